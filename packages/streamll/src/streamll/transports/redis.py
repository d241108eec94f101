"""Events in Redis 6.2 or later: a stream of everything, the firehose, and one for each execution.

The firehose's key is the target, its entries have one field, `event`. In the stream of an execution an
entry is what came in one batch, an event a line, under the id of the last one's sequence + 1: so a reader
resumes by sequence, and what is appended again is known to be there. Every key of a log hashes to the slot of
its target, so one script may touch them all, on a cluster too.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, cast

import hiredis
import redis
import redis.asyncio
from redis.asyncio.connection import parse_url as parse_async_url
from redis.connection import parse_url  # pyright: ignore[reportUnknownVariableType]
from redis.exceptions import AskError, MovedError

from streamll.core.events import Event, decode
from streamll.errors import BadUrl, EventsExpired, Refused, StreamllError, Unreachable
from streamll.transports.base import (
    DeadLetter,
    Delivery,
    Entry,
    Group,
    Page,
    Retention,
    Start,
    Subscription,
    Summary,
    decode_letter,
    encode_letter,
    summary,
    without_password,
)

_TIMEOUT = 10.0
_CONNECT_TIMEOUT = 5.0
_BATCH, _BATCH_BYTES = 512, 1_000_000  # a script holds up the whole server: about 5 ms of it
_FEW = 16  # a script is cheaper for them than a transaction
_UNKNOWN = float("inf")
_MOST_KNOWN = 10_000
_PAGE = 512
_BATCHES = 64  # of an execution's events, up to `_BATCH` each
_CUTS = 100  # executions a round
_TIDY_SECONDS = 1.0
_CLAIM_SECONDS = 1.0  # Redis does not wake anybody for what became claimable
_DEAD_LETTERS = 10_000
_TOMBSTONE = timedelta(days=1)

_NOTHING = b"0-0"

logger = logging.getLogger("streamll")

type _Value = str | int | bytes
type _Command = tuple[_Value, ...]
type _Rows = list[tuple[bytes, list[bytes]]]
"""Entries of a stream: their ids, and their fields and values in turn."""


# --- the keys and the scripts over them ---------------------------------------------------------------------

_PARTS = ("started", "running", "ended", "events", "bytes", "total", "cut", "behind")

_KEYS = f"local log, {', '.join(_PARTS)} = unpack(KEYS, 1, {len(_PARTS) + 1})\n"

_NOW = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""

_KEEP = f"""
for which, count in pairs(fresh) do
  redis.call('XADD', KEYS[{len(_PARTS) + 1} + which], top[which], 'event', table.concat(lines[which], '\\n'))
  local execution, start, over = unpack(ARGV, 1 + 3 * which, 3 + 3 * which)
  redis.call('ZADD', started, 'NX', start, execution)
  redis.call('HINCRBY', events, execution, count)
  redis.call('HINCRBY', bytes, execution, size[which])
  redis.call('HINCRBY', total, 'events', count)
  redis.call('HINCRBY', total, 'bytes', size[which])
  redis.call('ZREM', over == '1' and running or ended, execution)
  redis.call('ZADD', over == '1' and ended or running, now, execution)
  local alive = ARGV[over == '1' and 2 or 1]
  if alive ~= '0' then redis.call('PEXPIRE', KEYS[{len(_PARTS) + 1} + which], alive) end
end
"""

# ARGV: milliseconds to live for a running and for an ended execution, 0 is for ever; number of executions; of
# each its id, when it started, whether it ends here; of each event its execution, its number, its body. What
# an execution has already is skipped.
_APPEND = f"""{_KEYS}{_NOW}
redis.call('XLEN', log)  -- fails before anything is stored, if it is no stream
local had, top, lines, fresh, size, failed = {{}}, {{}}, {{}}, {{}}, {{}}, nil
for which = 1, ARGV[3] do
  local last = redis.call('XREVRANGE', KEYS[{len(_PARTS) + 1} + which], '+', '-', 'COUNT', 1)[1]
  had[which] = last and tonumber(string.match(last[1], '%d+')) or 0
end
for i = 4 + 3 * ARGV[3], #ARGV, 3 do
  local which, number, body = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), ARGV[i + 2]
  if number > had[which] then
    local id = redis.pcall('XADD', log, '*', 'event', body)
    if type(id) ~= 'string' then failed = id break end
    if not lines[which] then lines[which], fresh[which], size[which] = {{}}, 0, 0 end
    had[which], top[which], fresh[which] = number, ARGV[i + 1], fresh[which] + 1
    size[which], lines[which][fresh[which]] = size[which] + #body, body
  end
end
{_KEEP}
return failed
"""

# ARGV as above, but of each execution: the number of its last event, how many, their size, their bodies. The
# firehose gets them by plain commands in the same transaction, which cost Redis a third of what Lua does.
_BURST = f"""{_KEYS}{_NOW}
local top, lines, fresh, size = {{}}, {{}}, {{}}, {{}}
for which = 1, ARGV[3] do
  local at = 4 * which + 3 * ARGV[3]
  top[which], fresh[which], size[which], lines[which] = ARGV[at], ARGV[at + 1], ARGV[at + 2], {{ARGV[at + 3]}}
end
{_KEEP}
"""

# ARGV: age in milliseconds, events, bytes ('' is no limit), milliseconds of silence, executions at most.
# Trims the firehose, and returns the executions to cut.
_TIDY = f"""{_KEYS}{_NOW}
local age, most, biggest, silence = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local silent = redis.call('ZRANGEBYSCORE', running, '-inf', now - silence, 'WITHSCORES', 'LIMIT', 0, ARGV[5])
for i = 1, #silent, 2 do
  redis.call('ZREM', running, silent[i])
  redis.call('ZADD', ended, silent[i + 1], silent[i])
end

local count = tonumber(redis.call('HGET', total, 'events') or 0)
local size = tonumber(redis.call('HGET', total, 'bytes') or 0)
if biggest and size > 0 then most = math.min(most or math.huge, math.floor(biggest * count / size)) end

local last  -- the last entry of the firehose that has to go
if age then
  last = redis.call('XREVRANGE', log, string.format('%.0f', now - age), '-', 'COUNT', 1)[1]
  if last then redis.call('XTRIM', log, 'MINID', string.format('%.0f', now - age + 1)) end
end
if most and redis.call('XLEN', log) > most then
  redis.call('XTRIM', log, 'MAXLEN', most + 1)
  last = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  redis.call('XTRIM', log, 'MAXLEN', most)
end
if last then
  redis.call('SET', cut, last[1])
  local function parts(id)
    local ms, n = string.match(id, '(%d+)-(%d+)')
    return tonumber(ms), tonumber(n)
  end
  local ms, n = parts(last[1])
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', log)) do
    local about = {{}}
    for i = 1, #group, 2 do about[group[i]] = group[i + 1] end
    local its_ms, its_n = parts(about['last-delivered-id'])
    if its_ms < ms or its_ms == ms and its_n < n then
      redis.call('XGROUP', 'SETID', log, about.name, last[1])
      redis.call('HSET', behind, about.name, last[1])
    end
  end
end

local due, oldest = {{}}, redis.call('ZRANGE', ended, 0, ARGV[5] - 1, 'WITHSCORES')
for i = 1, #oldest, 2 do
  local execution, moment = oldest[i], tonumber(oldest[i + 1])
  local old, many = age and moment < now - age, tonumber(ARGV[2]) and count > tonumber(ARGV[2])
  if not (old or many or biggest and size > biggest) then break end
  due[#due + 1] = execution
  count = count - (redis.call('HGET', events, execution) or 0)
  size = size - (redis.call('HGET', bytes, execution) or 0)
end
return due
"""

# ARGV: milliseconds that tombstones live; executions, each with the key of its stream in KEYS. A tombstone is
# the last event under the id after its own: it refuses what is appended again, and wakes readers that wait.
_CUT = f"""{_KEYS}
for i = 2, #ARGV do
  local execution, key = ARGV[i], KEYS[{len(_PARTS)} + i]
  if redis.call('ZREM', ended, execution) == 1 then  -- else it is cut already, or goes on
    local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
    if last then
      redis.call('UNLINK', key)
      local body = string.match(last[2][2], '[^\\n]*$')
      redis.call('XADD', key, string.match(last[1], '%d+') .. '-1', 'cut', body)
      redis.call('RESTORE', key, ARGV[1], redis.call('DUMP', key), 'REPLACE')  -- packed: a quarter
    end
    redis.call('HINCRBY', total, 'events', -(redis.call('HGET', events, execution) or 0))
    redis.call('HINCRBY', total, 'bytes', -(redis.call('HGET', bytes, execution) or 0))
    redis.call('HDEL', events, execution)
    redis.call('HDEL', bytes, execution)
    redis.call('ZREM', started, execution)
  end
end
"""

# ARGV: group, the id it begins after, 1 if what comes next was cut: then the group must be there already.
_JOIN = """
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2], 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
if made.ok and ARGV[3] == '1' then return redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1]) end
"""

# ARGV: group, consumer. Removing one that holds something would drop that.
_LEAVE = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
"""


class _Keys:
    """The names of a log's keys."""

    def __init__(self, target: str) -> None:
        tag = re.search(r"\{([^}]*)\}", target)
        if ("{" in target or "}" in target) and not (tag and tag[1]):
            raise BadUrl(
                f"{target!r:.80} has braces that are no Redis hash tag; leave them out or write {{name}}."
            )
        self._base = target if tag else f"{{{target}}}"
        self.log = target
        self.cut, self.behind, self.started = map(self._of, ("cut", "behind", "started"))
        self.events, self.dead = map(self._of, ("events", "dead"))
        self.shared = (self.log, *map(self._of, _PARTS))

    def _of(self, part: str) -> str:
        return f"{self._base}:{part}"

    def execution(self, execution_id: str) -> str:
        return f"{self._base}:x:{execution_id}"

    def script(self, script: str, executions: Iterable[str], *arguments: _Value) -> _Command:
        """Return the command that runs `script` over the shared keys and the streams of `executions`."""
        keys = (*self.shared, *map(self.execution, executions))
        return ("EVAL", script, len(keys), *keys, *arguments)

    def additions(self, bodies: Iterable[bytes]) -> bytes:
        """Return the packed commands that add `bodies` to the firehose."""
        key = self.log.encode()
        head = b"*5\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n$1\r\n*\r\n$5\r\nevent\r\n$" % (len(key), key)
        return b"".join([b"%b%d\r\n%b\r\n" % (head, len(body), body) for body in bodies])

    def leave(self, group: str, consumer: _Value) -> _Command:
        return ("EVAL", _LEAVE, 1, self.log, group, consumer)


# --- the server ---------------------------------------------------------------------------------------------


_REFUSED: Mapping[str, str] = {
    "Authentication|NOAUTH|WRONGPASS|unauthenticated": "Check the user and the password in the URL.",
    "Authorization|NoPermission|NOPERM|ACL failure": "Let its ACL run streams and scripts on these keys.",
    "ReadOnly|READONLY": "This is a replica: give the URL of the primary.",
    "InvalidResponse": "What answers there is no Redis: check host, port and TLS.",
    "CERTIFICATE_VERIFY|WRONG_VERSION": "Check the server's certificate, or whether it speaks TLS at all.",
    "WRONGTYPE": "Something else has the name of this log: choose another target.",
    "": "Expected Redis 6.2 or later.",
}
"""What to do about errors in whose type or text this is found; the first that fits."""

_LOST = (redis.ConnectionError, redis.TimeoutError, OSError, AskError)
_PASSING = re.compile(
    "OutOfMemory|OOM|MISCONF|BUSY|LOADING|Down|DOWN|TRYAGAIN|TryAgain|NOREPL|UNBLOCKED|NOGROUP"
)


class _Server:
    """Where a URL leads, and what its errors mean."""

    def __init__(self, url: str) -> None:
        self.shown = without_password(url)
        self._url = url
        self._home: dict[str, Any] = {}
        try:
            self.timeout = self._options(parse_url)["socket_timeout"]
            self.connection()
            if not self.timeout > 0:
                raise ValueError("a timeout is more than 0")
        except (ValueError, TypeError) as error:
            raise BadUrl(f"{self.shown!r:.80} is no URL of a Redis: {error}.") from error

    def connection(self) -> redis.Connection:
        options = self._options(parse_url)
        kind = options.pop("connection_class", redis.Connection)
        return cast("type[redis.Connection]", kind)(**options)

    def async_connection(self) -> redis.asyncio.Connection:
        options = self._options(parse_async_url)
        kind = options.pop("connection_class", redis.asyncio.Connection)
        return kind(**options)

    def _options(self, parse: Any) -> dict[str, Any]:
        options = cast("dict[str, Any]", dict(parse(self._url)))
        timeout = options.pop("timeout", _TIMEOUT)
        waits = {"socket_timeout": timeout, "socket_connect_timeout": min(timeout, _CONNECT_TIMEOUT)}
        fixed = {"protocol": 2, "decode_responses": False, "health_check_interval": 0}
        return waits | options | fixed | self._home

    def elsewhere(self, error: Exception, *, used: bool) -> bool:
        """Return whether another connection helps: to the node that has the log, or for one that was idle."""
        if isinstance(error, MovedError):  # a node that does not know its own name sends none
            self._home = {"port": error.port} | ({"host": error.host} if error.host else {})
        return used or isinstance(error, MovedError)

    @contextmanager
    def errors(self) -> Generator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            self._home = {}
            raise _meaning(error, self.shown) from error


def _meaning(error: Exception, place: str) -> StreamllError:
    """Return what an error of Redis or of its client says to the caller."""
    named = f"{type(error).__name__}: {error}"
    remedy = next(remedy for pattern, remedy in _REFUSED.items() if re.search(pattern, named))
    if remedy == _REFUSED[""] and (isinstance(error, _LOST) or _PASSING.search(named)):
        return Unreachable(f"Redis at {place} is away: {error}. Worth another try.")
    return Refused(f"Redis at {place} refuses: {error}. {remedy}")


def _packed(command: _Command) -> bytes:
    return cast("bytes", hiredis.pack_command(cast("Any", command)))


# --- writing ------------------------------------------------------------------------------------------------


class Writer:
    """Sends a batch in one round trip, and about once a second what retention asks for."""

    def __init__(self, server: _Server, keys: _Keys, retention: Retention) -> None:
        self._server = server
        self._keys = keys
        self._retention = retention
        self._connection: redis.Connection | None = None
        self._known: dict[str, int] = {}  # the last sequence this writer stored
        self._tidy_at = 0.0
        keep = 0 if retention.age is None else _milliseconds(4 * retention.age + timedelta(hours=1))
        self._lives = (keep and keep + _milliseconds(retention.abandoned), keep)

    def append(self, entries: Sequence[Entry]) -> None:
        try:
            for batch in _batches(self._burst(entries) if len(entries) >= _FEW else entries):
                self._ask(_append(batch, self._keys, self._lives))
        except BaseException:
            self._known.clear()
            raise
        self._learn(entries)
        if time.monotonic() >= self._tidy_at:
            self._tidy()

    def rest(self) -> None:
        if self._connection is not None:
            with suppress(StreamllError):
                self._tidy()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    abandon = close  # redis-py closes the descriptor only, and says nothing, if it is another process's

    def _learn(self, entries: Sequence[Entry]) -> None:
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        self._known |= {event.execution_id: event.sequence for event, _ in entries}

    def _burst(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Store what follows on what this writer stored; return the rest, which may be there already."""
        known, by_execution = self._known, dict[str, list[Entry]]()
        for entry in entries:
            by_execution.setdefault(entry.event.execution_id, []).append(entry)
        sure = {n: its for n, its in by_execution.items() if its[0].event.sequence > known.get(n, _UNKNOWN)}
        adding = entries if len(sure) == len(by_execution) else [one for its in sure.values() for one in its]
        if self._connection is None or len(adding) < _FEW:
            return entries
        keep = self._keys.script(_BURST, sure, *self._lives, *_summed(sure))
        adds = self._keys.additions([body for _, body in adding])
        packed = b"".join((_packed(("MULTI",)), adds, _packed(keep), _packed(("EXEC",))))
        with self._server.errors():
            try:
                answer = _last_answer(self._connection, packed, len(adding) + 3)
            except BaseException:
                self.close()
                raise
        if isinstance(answer, Exception) or any(isinstance(one, Exception) for one in answer):
            return entries
        return [entry for name, its in by_execution.items() if name not in sure for entry in its]

    def _ask(self, command: _Command) -> Any:
        packed = _packed(command)
        with self._server.errors():
            for again in (True, True, False):
                used = self._connection is not None
                try:
                    return self._answer(packed)
                except (MovedError, redis.ConnectionError) as error:
                    if not self._server.elsewhere(error, used=used) or not again:
                        raise

    def _answer(self, packed: bytes) -> Any:
        connection = self._connection = self._connection or self._server.connection()
        try:
            connection.send_packed_command([packed], check_health=False)
            return cast("Any", connection.read_response())
        except BaseException:
            self.close()
            raise

    def _tidy(self) -> None:
        """Cut what retention lets go of; in the next batch again if that is more than one round."""
        keep, keys = self._retention, self._keys
        age = "" if keep.age is None else _milliseconds(keep.age)
        most, biggest = ("" if limit is None else limit for limit in (keep.events, keep.bytes))
        asked = keys.script(_TIDY, (), age, most, biggest, _milliseconds(keep.abandoned), _CUTS)
        due = [execution.decode() for execution in cast("list[bytes]", self._ask(asked))]
        if due:
            self._ask(keys.script(_CUT, due, _milliseconds(max(keep.age or _TOMBSTONE, _TOMBSTONE)), *due))
        self._tidy_at = time.monotonic() + (_TIDY_SECONDS if len(due) < _CUTS else 0)


def _batches(entries: Sequence[Entry]) -> Generator[Sequence[Entry]]:
    begin = size = 0
    for end, entry in enumerate(entries):
        size += len(entry.body)
        if end - begin == _BATCH or (size > _BATCH_BYTES and end > begin):
            yield entries[begin:end]
            begin, size = end, len(entry.body)
    if begin < len(entries):
        yield entries[begin:]


def _append(batch: Sequence[Entry], keys: _Keys, lives: tuple[int, int]) -> _Command:
    """Return the command that stores of `batch` what is not there yet."""
    places: dict[str, int] = {}
    heads: list[_Value] = []
    events: list[_Value] = []
    for event, body in batch:
        place = places.get(event.execution_id)
        if place is None:
            place = places[event.execution_id] = len(places) + 1
            heads += (event.execution_id, _started(event), 0)
        if event.is_last:
            heads[3 * place - 1] = 1
        events += (place, event.sequence + 1, body)
    return keys.script(_APPEND, places, *lives, len(places), *heads, *events)


def _summed(by_execution: Mapping[str, Sequence[Entry]]) -> list[_Value]:
    """Return the arguments of `_BURST`."""
    heads: list[_Value] = [len(by_execution)]
    rest: list[_Value] = []
    for name, its in by_execution.items():
        last, bodies = its[-1].event, [body for _, body in its]
        heads += (name, _started(its[0].event), int(last.is_last))
        rest += (last.sequence + 1, len(its), sum(map(len, bodies)), b"\n".join(bodies))
    return heads + rest


def _started(event: Event) -> int:
    return round(event.timestamp.timestamp() * 1e6)


def _last_answer(connection: redis.Connection, packed: bytes, number: int) -> Any:
    """Send commands, and return the last of `number` answers.

    By the connection's socket: redis-py's own way costs microseconds for each `+QUEUED`.
    """
    sock, reader = cast("Any", connection)._sock, hiredis.Reader()
    sock.sendall(packed)
    answer: Any = None
    while number:
        received = sock.recv(65_536)
        if not received:
            raise redis.ConnectionError("Redis closed the connection")
        reader.feed(received)
        while number and (answer := reader.gets()) is not False:
            number -= 1
    return answer


# --- reading ------------------------------------------------------------------------------------------------


class _Link:
    """A connection of a reader: made when first used, and again after an error; one exchange at a time."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._connection: redis.asyncio.Connection | None = None
        self._lock = asyncio.Lock()

    async def ask(self, *commands: _Command) -> list[Any]:
        """Send `commands` together, and return their replies."""
        packed = b"".join(map(_packed, commands))
        async with self._lock:
            with self._server.errors():
                for again in (True, True, False):
                    used = self._connection is not None
                    try:
                        return await self._answers(packed, len(commands))
                    except (MovedError, redis.ConnectionError) as error:
                        if not self._server.elsewhere(error, used=used) or not again:
                            raise
        raise AssertionError

    async def _answers(self, packed: bytes, number: int) -> list[Any]:
        connection = self._connection = self._connection or self._server.async_connection()
        try:
            await connection.send_packed_command(packed, check_health=False)
            return [await connection.read_response() for _ in range(number)]
        except BaseException:  # also cancelled: the replies that are under way belong to nobody
            await self.close()
            raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(redis.RedisError):
                await connection.disconnect()


class Backend:
    """A log in Redis: `redis://[user:password@]host:port/db`, `rediss://` with TLS, or a node of a cluster.

    What the URL's query may say is up to redis-py, and `timeout`: the seconds after which a server that does
    not answer is given up, 10 unless said.
    """

    def __init__(self, url: str, target: str, retention: Retention) -> None:
        self._server = _Server(url)
        self._keys = _Keys(target)
        self._retention = retention
        self._block = max(1, round(self._server.timeout * 500))  # half the timeout: the server answers first

    def __repr__(self) -> str:
        return f"Backend({self._server.shown!r}, {self._keys.log!r})"

    def writer(self) -> Writer:
        return Writer(self._server, self._keys, self._retention)

    @asynccontextmanager
    async def _link(self) -> AsyncGenerator[_Link]:
        link = _Link(self._server)
        try:
            yield link
        finally:
            await link.close()

    async def read(self, execution_id: str, after: int) -> AsyncGenerator[Sequence[bytes]]:
        key = self._keys.execution(execution_id)
        async with self._link() as link:
            (newest,) = await link.ask(("XREVRANGE", key, "+", "-", "COUNT", 1))
            for entry_id, (_, body, *_) in cast("_Rows", newest):
                if _id(entry_id)[0] <= after + 1:
                    yield _lines(body)[-1:]
            seen = f"{after + 1}-0"
            while True:
                read = ("XREAD", "COUNT", _BATCHES, "BLOCK", self._block, "STREAMS", key, seen)
                if rows := _rows(*await link.ask(read)):
                    _check_whole(rows, after, execution_id)
                    yield [line for _, fields in rows for line in _lines(fields[1])]
                    seen = rows[-1][0].decode()
                    after = _id(seen)[0] - 1

    @asynccontextmanager
    async def follow(self, start: Start, group: Group | None) -> AsyncGenerator[Subscription]:
        async with self._link() as link:
            get_cut = ("GET", self._keys.cut)
            cut, newest = await link.ask(get_cut, ("XREVRANGE", self._keys.log, "+", "-", "COUNT", 1))
            place = _place(start, newest[0][0] if newest else cut, cut)
            expired = _expired(place, cut, self._keys.log)
            if group is not None:
                async with self._joined(link, group, place, expired) as member:
                    yield member
            elif expired:
                raise expired
            else:
                yield _Alone(link, self._keys, self._block, place)

    @asynccontextmanager
    async def _joined(
        self, link: _Link, group: Group, place: str, expired: EventsExpired | None
    ) -> AsyncGenerator[Subscription]:
        """Make the group unless it is there, and leave it in the end unless something is still to settle."""
        arguments = (self._keys.log, group.name, place, int(expired is not None))
        (unmade,) = await link.ask(("EVAL", _JOIN, 1, *arguments))
        if unmade and expired:
            raise expired
        async with self._link() as spare:
            member, reachable = _Member(link, spare, self._keys, self._block, group), True
            try:
                yield member
            except Unreachable:
                reachable = False
                raise
            finally:
                await member.leave(reachable=reachable)

    async def executions(self, limit: int) -> Sequence[Summary]:
        async with self._link() as link:
            (names,) = await link.ask(("ZREVRANGE", self._keys.started, 0, max(limit, 0) - 1))
            asked = [command for name in names[:limit] for command in self._about(name)]
            replies = await link.ask(*asked) if asked else []
        found = zip(replies[::3], replies[1::3], replies[2::3], strict=True)
        return [
            summary(decode(_lines(first[0][1][1])[0]), decode(_lines(last[0][1][1])[-1]), int(events))
            for first, last, events in found
            if first and events
        ]

    def _about(self, execution_id: bytes) -> Sequence[_Command]:
        key = self._keys.execution(execution_id.decode())
        ends = (("XRANGE", key, "-", "+", "COUNT", 1), ("XREVRANGE", key, "+", "-", "COUNT", 1))
        return (*ends, ("HGET", self._keys.events, execution_id))

    async def bury(self, letter: DeadLetter) -> None:
        bound = ("MAXLEN", "~", _DEAD_LETTERS)
        async with self._link() as link:
            await link.ask(("XADD", self._keys.dead, *bound, "*", "letter", encode_letter(letter)))

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        async with self._link() as link:
            (rows,) = await link.ask(("XREVRANGE", self._keys.dead, "+", "-", "COUNT", limit))
        return [decode_letter(fields[1]) for _, fields in cast("_Rows", rows)]


class _Alone:
    """A follower that sees everything."""

    def __init__(self, link: _Link, keys: _Keys, block: int, cursor: str) -> None:
        self._link = link
        self._keys = keys
        self._block = block
        self.cursor = cursor

    async def next(self) -> Sequence[Delivery]:
        log = self._keys.log
        while True:
            # Both are in one segment, so Redis runs them back to back: nothing is cut between them.
            read = ("XREAD", "COUNT", _PAGE, "BLOCK", self._block, "STREAMS", log, self.cursor)
            cut, found = await self._link.ask(("GET", self._keys.cut), read)
            if expired := _expired(self.cursor, cut, log):
                raise expired
            if rows := _rows(found):
                self.cursor = rows[-1][0].decode()
                return [Delivery(fields[1], entry_id.decode()) for entry_id, fields in rows]

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        return

    renew = release = settle


class _Member:
    """A member of a group. What it holds is claimed by others when it has been idle, as Redis calls it."""

    cursor = None

    def __init__(self, link: _Link, spare: _Link, keys: _Keys, block: int, group: Group) -> None:
        self._link = link
        self._spare = spare  # `next` may be waiting on the other one
        self._keys = keys
        self._block = block
        self._group = group
        self._idle = _milliseconds(group.claim_after)
        self._claim_at = 0.0
        self._page = Page()
        self._next: asyncio.Future[Sequence[Delivery]] | None = None

    async def next(self) -> Sequence[Delivery]:
        # When the caller is cancelled this goes on: Redis may have handed us something already.
        task = self._next = self._next or asyncio.ensure_future(self._take(self._page.asked()))
        await asyncio.wait([task])
        self._next = None
        self._page.took(len(task.result()))
        return task.result()

    async def leave(self, *, reachable: bool) -> None:
        """Stop waiting, give back what nobody took, and be forgotten unless something is still to settle."""
        untaken: Sequence[Delivery] = ()
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait([self._next])
            if not self._next.cancelled() and self._next.exception() is None:
                untaken = self._next.result()
        if reachable:
            with suppress(StreamllError):
                await self.release(untaken)
                await self._spare.ask(self._keys.leave(self._group.name, self._group.consumer))

    async def _take(self, page: int) -> Sequence[Delivery]:
        group, log = self._group, self._keys.log
        while True:
            if time.monotonic() >= self._claim_at and (claimed := await self._claim(page)):
                return claimed
            wait = min(self._block, max(1, round((self._claim_at - time.monotonic()) * 1000)))
            member = ("GROUP", group.name, group.consumer)
            read = ("XREADGROUP", *member, "COUNT", page, "BLOCK", wait, "STREAMS", log, ">")
            behind, found = await self._link.ask(("HGET", self._keys.behind, group.name), read)
            deliveries = [Delivery(fields[1], entry_id.decode()) for entry_id, fields in _rows(found)]
            if behind:
                await self._tell(behind, deliveries)
            if deliveries:
                return deliveries

    async def _claim(self, page: int) -> Sequence[Delivery]:
        """Take what nobody renewed for long enough; what has been cut nobody can have any more."""
        group, log = self._group, self._keys.log
        idle = ("XPENDING", log, group.name, "IDLE", self._idle, "-", "+", page)
        cut, pending = await self._link.ask(("GET", self._keys.cut), idle)
        if len(pending) < page:
            self._claim_at = time.monotonic() + min(_CLAIM_SECONDS, self._idle / 2000)
        if not pending:
            return ()
        attempts = {cast("bytes", row[0]): cast("int", row[3]) for row in pending}
        gone = [entry_id for entry_id in attempts if _id(entry_id) <= _id(cut or _NOTHING)]
        if gone:
            logger.warning("%d events of group %r were cut before they were settled", len(gone), group.name)
            await self._link.ask(("XACK", log, group.name, *gone))
        claim = ("XCLAIM", log, group.name, group.consumer, self._idle, *attempts)
        (rows,) = await self._link.ask(claim)
        # Who crashed, or left while it held something, is forgotten here; who is alive comes back by reading.
        await self._link.ask(*(self._keys.leave(group.name, owner) for owner in {row[1] for row in pending}))
        found = cast("_Rows", [row for row in rows if row])  # Redis 6.2 has None for what was deleted
        return [Delivery(fields[1], name.decode(), attempts[name] + 1) for name, fields in found]

    async def _tell(self, behind: bytes, deliveries: Sequence[Delivery]) -> None:
        """Raise what the group missed, in one of its members, which gives back what it just got."""
        (first,) = await self._spare.ask(("HDEL", self._keys.behind, self._group.name))
        if first:
            await self.release(deliveries)
            raise _gap(self._keys.log, behind)

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            ids = (delivery.cursor for delivery in deliveries)
            await self._spare.ask(("XACK", self._keys.log, self._group.name, *ids))

    async def renew(self, deliveries: Sequence[Delivery]) -> None:
        await self._hold(deliveries)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self._hold(deliveries, "TIME", 1)  # idle since 1970

    async def _hold(self, deliveries: Sequence[Delivery], *since: _Value) -> None:
        if deliveries:
            ids = (delivery.cursor for delivery in deliveries)
            mine = (self._keys.log, self._group.name, self._group.consumer, 0)
            await self._spare.ask(("XCLAIM", *mine, *ids, *since, "JUSTID"))


# --- ids and moments ----------------------------------------------------------------------------------------


def _rows(reply: Any) -> _Rows:
    """Return the entries in a reply to XREAD of one stream."""
    return cast("_Rows", reply[0][1]) if reply else []


def _lines(body: bytes) -> list[bytes]:
    """Return the events in an entry of an execution's stream."""
    return body.split(b"\n")


def _id(text: str | bytes) -> tuple[int, int]:
    milliseconds, _, number = (text if isinstance(text, str) else text.decode()).partition("-")
    return int(milliseconds), int(number)


def _milliseconds(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


def _place(start: Start, newest: bytes | None, cut: bytes | None) -> str:
    """Return the id after which a follower begins."""
    if isinstance(start, datetime):
        moment = f"{max(1, int(start.timestamp() * 1000)) - 1}-{2**64 - 1}"
        return max(moment, (cut or _NOTHING).decode(), key=_id)
    ends = {"latest": newest or _NOTHING, "earliest": cut or _NOTHING}
    if start not in ends and not re.fullmatch(r"\d+-\d+", start):
        raise BadUrl(f"{start!r:.80} is no place to start: expected latest, earliest, a moment or a cursor.")
    return ends[start].decode() if start in ends else start


def _expired(cursor: str, cut: bytes | None, log: str) -> EventsExpired | None:
    return _gap(log, cut, cursor) if cut and _id(cursor) < _id(cut) else None


def _gap(log: str, cut: bytes, cursor: str = "of the group") -> EventsExpired:
    left = cut.decode()
    return EventsExpired(
        f"Events of {log!r:.80} after cursor {cursor} were cut by retention; follow from {left!r}.", left
    )


def _check_whole(rows: _Rows, after: int, execution_id: str) -> None:
    """Raise if events after `after` have been cut; the tombstone comes before what is left."""
    entry_id, fields = rows[0]
    last = _id(entry_id)[0] - 1
    if fields[0] == b"cut" and after < last - 1:
        raise EventsExpired(
            f"Events of execution {execution_id!r:.80} after sequence {after} were cut by retention; "
            f"sequence {last} is the first there is.",
            last,
        )
