"""The names of a log's keys in Redis, and the scripts that change several of them at once.

Every key hashes to the slot of the target, so one script may touch them all, on a cluster too.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from streamll.errors import BadUrl

type Value = str | int | bytes
type Command = tuple[Value, ...]

_WATCHED = 128  # streams: Redis compares each with those before

_SHARED = ("started", "running", "ended", "events", "bytes", "total", "cut", "behind")

_KEYS = f"""
local log, {", ".join(_SHARED)} = unpack(KEYS, 1, {len(_SHARED) + 1})
local shared = {len(_SHARED) + 1}  -- keys; after them come the streams of executions
"""

_NOW = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""

_KEEP = r"""
for which, count in pairs(fresh) do
  redis.call('XADD', KEYS[shared + which], top[which], 'event', table.concat(lines[which], '\n'))
  local execution, start, over = unpack(ARGV, 1 + 3 * which, 3 + 3 * which)
  redis.call('ZADD', started, 'NX', start, execution)
  redis.call('HINCRBY', events, execution, count)
  redis.call('HINCRBY', bytes, execution, size[which])
  redis.call('HINCRBY', total, 'events', count)
  redis.call('HINCRBY', total, 'bytes', size[which])
  redis.call('ZREM', over == '1' and running or ended, execution)
  redis.call('ZADD', over == '1' and ended or running, now, execution)
  local alive = ARGV[over == '1' and 2 or 1]
  if alive ~= '0' then redis.call('PEXPIRE', KEYS[shared + which], alive) end
end
"""

_APPEND = f"""{_KEYS}{_NOW}
redis.call('XLEN', log)  -- fails before anything is stored, if it is no stream
local had, top, lines, fresh, size, failed = {{}}, {{}}, {{}}, {{}}, {{}}, nil
for which = 1, ARGV[3] do
  local last = redis.call('XREVRANGE', KEYS[shared + which], '+', '-', 'COUNT', 1)[1]
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

_PROTECT = """
local length = redis.pcall('XLEN', KEYS[2])
local unfit = type(length) ~= 'number'
for i, number in ipairs(ARGV) do
  local there = redis.pcall('XRANGE', KEYS[2 + i], number, '+', 'COUNT', 1)
  unfit = unfit or there.err or there[1]
end
if unfit then
  redis.call('SET', KEYS[1], '')
  redis.call('DEL', KEYS[1])
end
"""

_BURST = f"""{_KEYS}{_NOW}
local top, lines, fresh, size = {{}}, {{}}, {{}}, {{}}
for which = 1, ARGV[3] do
  local at = 4 * which + 3 * ARGV[3]
  top[which], fresh[which], size[which], lines[which] = ARGV[at], ARGV[at + 1], ARGV[at + 2], {{ARGV[at + 3]}}
end
{_KEEP}
"""

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

_CUT = rf"""{_KEYS}
for i = 2, #ARGV do
  local execution, key = ARGV[i], KEYS[shared + i - 1]
  if redis.call('ZREM', ended, execution) == 1 then  -- else it is cut already, or goes on
    local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
    if last then
      redis.call('UNLINK', key)
      local body = string.match(last[2][2], '[^\n]*$')
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

_JOIN = """
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[2], 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
if made.ok and ARGV[3] == '1' then return redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1]) end
"""

_LEAVE = """
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
"""


class Keys:
    """The names of a log's keys, and the commands that run a script over them."""

    def __init__(self, target: str) -> None:
        tag = re.search(r"\{([^}]*)\}", target)
        if ("{" in target or "}" in target) and not (tag and tag[1]):
            raise BadUrl(
                f"{target!r:.80} has braces that are no Redis hash tag; leave them out or write {{name}}."
            )
        self._base = target if tag else f"{{{target}}}"
        self.log = target
        self.cut, self.behind, self.started = map(self._of, ("cut", "behind", "started"))
        self.events, self.dead, self._void = map(self._of, ("events", "dead", "void"))
        self._shared = (self.log, *map(self._of, _SHARED))

    def _of(self, part: str) -> str:
        return f"{self._base}:{part}"

    def execution(self, execution_id: str) -> str:
        return f"{self._base}:x:{execution_id}"

    def _script(self, script: str, executions: Iterable[str], *arguments: Value) -> Command:
        keys = (*self._shared, *map(self.execution, executions))
        return ("EVAL", script, len(keys), *keys, *arguments)

    def append(self, executions: Iterable[str], *arguments: Value) -> Command:
        """Store events; what an execution has already is skipped.

        Arguments: milliseconds to live for a running and for an ended execution, 0 is for ever; number of
        executions; of each its id, when it started, whether it ends here; of each event its execution, its
        number, its body.
        """
        return self._script(_APPEND, executions, *arguments)

    def burst(self, executions: Iterable[str], *arguments: Value) -> Command:
        """Store events whose bodies the same transaction adds to the firehose by `additions`.

        Arguments as for `append`, but of each execution: the number of its last event, how many, their size,
        their bodies.
        """
        return self._script(_BURST, executions, *arguments)

    def additions(self, bodies: Iterable[bytes]) -> bytes:
        """Return the packed commands that add `bodies` to the firehose: a third of what it costs in Lua."""
        key = self.log.encode()
        head = b"*5\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n$1\r\n*\r\n$5\r\nevent\r\n$" % (len(key), key)
        return b"".join([b"%b%d\r\n%b\r\n" % (head, len(body), body) for body in bodies])

    def protection(self, firsts: Mapping[str, int]) -> Sequence[Command]:
        """Void the transaction that follows, or that somebody overtakes, if an execution has its events.

        `firsts` are the numbers of the first events to come. What is watched has changed then: the key that
        this script sets, or a stream that somebody else writes to.
        """
        streams = [self.execution(name) for name in firsts]
        check = ("EVAL", _PROTECT, len(streams) + 2, self._void, self.log, *streams, *firsts.values())
        return ("WATCH", self._void, *streams[:_WATCHED]), check

    def tidy(self, *arguments: Value) -> Command:
        """Trim the firehose, and return the executions to cut.

        Arguments: age in milliseconds, events, bytes ('' is no limit), milliseconds of silence, executions at
        most.
        """
        return self._script(_TIDY, (), *arguments)

    def cutting(self, executions: Sequence[str], milliseconds: int) -> Command:
        """Put a tombstone in the place of each of `executions`, which lives so long.

        It is the last event under the id after its own: it refuses what is appended again, and wakes readers
        that wait.
        """
        return self._script(_CUT, executions, milliseconds, *executions)

    def join(self, group: str, after: str, *, must_exist: bool) -> Command:
        """Make a group that begins after an id; one that must exist is not made, and the answer is 1."""
        return ("EVAL", _JOIN, 1, self.log, group, after, int(must_exist))

    def leave(self, group: str, consumer: Value) -> Command:
        """Forget a consumer, unless it holds something, which would be dropped."""
        return ("EVAL", _LEAVE, 1, self.log, group, consumer)
