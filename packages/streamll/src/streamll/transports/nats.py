"""Events in a NATS JetStream stream: `<prefix>.<program>.<execution_id>`, a message an event.

The stream is named after the target and `prefix` too, except that the default target's is `streamll`. What a
name of NATS cannot hold is written `=2E`. An event above the server's `max_payload` is an empty message whose
header `Streamll-Parts` lists the sequences of its parts, which are stored under `<its subject>.part`.
Beside the stream are two small ones: `<name>_dead` keeps dead letters, `<name>_expired` says what was cut.

Writing, and asking the server, needs no event loop: it is a blocking socket, which costs a fifth of what
nats-py's publish does. Listening is nats-py's.
"""

import asyncio
import logging
import re
import socket
import ssl
from base64 import b64decode
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import batched
from math import inf
from secrets import token_hex
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from streamll.core.events import Event, decode, encode
from streamll.errors import BadEvent, BadUrl, EventsExpired, Refused, StreamllError, Unreachable
from streamll.transports.base import (
    DEFAULT_TARGET,
    DeadLetter,
    Delivery,
    Entry,
    Group,
    Retention,
    Start,
    Subscription,
    Summary,
    begun,
    decode_letter,
    encode_letter,
    summary,
    without_password,
)

logger = logging.getLogger("streamll")

_TIMEOUT = 10.0
_IN_FLIGHT = 1_000  # JetStream drops what comes when 10,000 messages of a stream are waiting
_PAGE = 256
_KNOWN_SUBJECTS = 4_096
_LONGEST_NAME = 200  # it becomes the name of a directory
_DEAD_LETTERS = 10_000
_TOMBSTONES = 100_000
_TOMBSTONE_AGES = 7  # a tombstone stays that many times as long as its execution did
_OLDEST = 10_000  # executions a writer keeps in mind
_TRIM_SECONDS = 0.2
_TRIM_SHARE = 0.2  # of the writer's time
_REFUSALS = ("authorization", "authentication", "permissions violation", "jetstream not enabled")

_json = msgspec.json.encode

_PARTS = re.compile(r"^Streamll-Parts: (\S+)", re.MULTILINE)
_SPECIAL = re.compile(r"[^A-Za-z0-9_-]|_(?=(?:dead|expired|INBOX)\Z)")


def _token(name: str) -> str:
    """Return `name` as NATS can hold it in names and subjects; no two names become the same."""
    written = _SPECIAL.sub(lambda found: "".join(f"={byte:02X}" for byte in found[0].encode()), name)
    if len(written) > _LONGEST_NAME:
        written = f"{written[:100]}={sha256(name.encode()).hexdigest()}"
    return written or "="


class _Place(NamedTuple):
    """A server, as the URL names it."""

    shown: str
    host: str
    port: int
    user: str | None
    password: str | None
    tls: bool
    seconds: float

    def __repr__(self) -> str:
        return self.shown

    def trouble(self, what: object) -> Unreachable:
        return Unreachable(f"NATS at {self.shown}: {what}")

    def refusal(self, what: object) -> Refused:
        return Refused(f"NATS at {self.shown}: {what}")

    def complaint(self, said: str) -> Unreachable | Refused:
        if any(word in said.lower() for word in _REFUSALS):
            return self.refusal(f"{said}; look at the URL's credentials and at what they may do")
        return self.trouble(said)

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def credentials(self) -> dict[str, str]:
        """Return what CONNECT says of us; a lone user is a token."""
        if self.user is None:
            return {}
        if self.password is None:
            return {"auth_token": self.user}
        return {"user": self.user, "pass": self.password}


def _place(url: str) -> _Place:
    try:
        parts = urlsplit(url)
        port = parts.port or 4222
        seconds = float(parse_qs(parts.query).get("timeout", [_TIMEOUT])[-1])
        host = parts.hostname or "127.0.0.1"
        if not 0 < seconds < inf:
            raise ValueError(seconds)
    except ValueError as error:
        raise BadUrl(
            f"{without_password(url.partition('?')[0])!r:.80} names no NATS server: expected "
            f"nats://[user:password@ or token@]host[:4222][?timeout=seconds]"
        ) from error
    user, password = (value and unquote(value) for value in (parts.username, parts.password))
    return _Place(without_password(url), host, port, user, password, parts.scheme == "tls", seconds)


@contextmanager
def _explained(place: _Place) -> Generator[None]:
    """Turn what sockets and nats-py raise into what a backend may raise."""
    try:
        yield
    except StreamllError:
        raise
    except ssl.SSLCertVerificationError as error:
        raise place.refusal(f"its certificate is not trusted: {error.verify_message}") from error
    except TimeoutError as error:
        raise place.trouble(f"no answer within {place.seconds:g} s; is it running?") from error
    except (ValueError, msgspec.DecodeError) as error:
        raise place.refusal(f"it does not speak the protocol of NATS: {error}") from error
    except (OSError, nats.errors.Error) as error:
        raise place.complaint(str(error) or type(error).__name__) from error


# --- asking, and writing ------------------------------------------------------------------------------------


class _Stored(NamedTuple):
    seq: int
    subject: str
    time: datetime
    body: bytes


class _Received(NamedTuple):
    subject: bytes
    status: bytes
    body: bytes


def _command(subject: str, reply: str, body: bytes, headers: str = "") -> bytes:
    if not headers:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(body), body)
    head = f"NATS/1.0\r\n{headers}\r\n".encode()
    sizes = len(head), len(head) + len(body)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject.encode(), reply.encode(), *sizes, head, body)


def _message_id(event_id: str) -> str:
    return f"Nats-Msg-Id: {event_id if event_id.isprintable() else _token(event_id)}\r\n"


class _Wire:
    """A blocking connection that publishes and asks; after an error it is good for nothing but `close`.

    Source: https://docs.nats.io/reference/reference-protocols/nats-protocol
    """

    def __init__(self, place: _Place) -> None:
        self._place = place
        self._inbox = f"_INBOX.{token_hex(11)}"
        self._acks = f"{self._inbox}.acks"
        self._until = monotonic() + place.seconds
        self._data = bytearray()  # no file object: its lock would not survive a fork in another thread
        self._read = 0
        with _explained(place):
            self._socket = socket.create_connection((place.host, place.port), place.seconds)
            try:
                self._greet()
            except BaseException:
                self._socket.close()
                raise

    def close(self) -> None:
        self._socket.close()

    def __del__(self) -> None:  # whoever appends need not close
        if "_socket" in vars(self):
            self._socket.close()

    def _greet(self) -> None:
        """Read what the server says of itself, and say who we are."""
        place, info = self._place, self._info()
        self.max_payload: int = info.get("max_payload", 1 << 20)
        if info.get("tls_required"):
            context = ssl.create_default_context()
            self._socket = context.wrap_socket(self._socket, server_hostname=place.host)
        elif place.tls:
            raise place.refusal("it does not ask for TLS; a tls:// URL never goes without")
        who = {"lang": "python", "version": "0", "name": "streamll", "protocol": 1, "verbose": False}
        who |= {"pedantic": False, "headers": True, "no_responders": True, **place.credentials()}
        self._ping(b"CONNECT %b\r\nSUB %b.* 1\r\n" % (_json(who), self._inbox.encode()))

    def _info(self) -> dict[str, Any]:
        try:
            self._fill()
        except TimeoutError:  # a NATS server speaks first; some other kind may wait to be asked
            self._socket.settimeout(1)
            self._socket.sendall(b"PING\r\n\r\n")
            self._data += self._socket.recv(80)
        if not self._data.startswith(b"INFO "):
            said = bytes(self._data)
            raise self._place.refusal(f"another kind of server is on that port; it says {said!r:.80}")
        return msgspec.json.decode(self._line()[5:])

    def ping(self) -> None:
        """Hear that the server is there, and answer its own pings."""
        with _explained(self._place):
            self._until = monotonic() + min(1, self._place.seconds)
            self._ping()

    def _ping(self, before: bytes = b"") -> None:
        self._send([before + b"PING\r\n"])
        while self._receive().status != b"PONG":
            pass

    def _receive(self) -> _Received:
        while True:
            line = self._line()
            match line[:4]:
                case b"MSG ":
                    return _Received(line.split(None, 2)[1], b"", self._exactly(int(line.rsplit(None, 1)[1])))
                case b"HMSG":
                    *words, head, size = line.split()
                    whole = self._exactly(int(size))
                    return _Received(words[1], whole[9:12], whole[int(head) :])
                case b"PING":
                    self._socket.sendall(b"PONG\r\n")
                case b"PONG":
                    return _Received(b"", b"PONG", b"")
                case b"-ERR":
                    raise self._place.complaint(line[5:].decode(errors="replace").strip(" '\r\n"))
                case _:
                    pass  # +OK, and INFO when the cluster changes

    def _line(self) -> bytes:
        while (end := self._data.find(b"\n", self._read)) < 0:
            self._fill()
        line = bytes(self._data[self._read : end])
        self._read = end + 1
        return line

    def _exactly(self, size: int) -> bytes:
        while len(self._data) < self._read + size + 2:
            self._fill()
        body = bytes(self._data[self._read : self._read + size])
        self._read += size + 2
        return body

    def _fill(self) -> None:
        del self._data[: self._read]
        self._read = 0
        self._socket.settimeout(max(0.001, self._until - monotonic()))
        received = self._socket.recv(65_536)
        if not received:
            raise ConnectionResetError("it closed the connection")
        self._data += received

    def publish(self, messages: Sequence[tuple[str, str, bytes]]) -> int:
        """Store messages (subject, headers, body) in order; return the last one's sequence."""
        last = b""
        with _explained(self._place):
            self._until = monotonic() + self._place.seconds
            for some in batched(messages, _IN_FLIGHT, strict=False):
                self._send(_command(subject, self._acks, body, headers) for subject, headers, body in some)
                for _ in some:
                    last = self._ack(some[0][0])
        return msgspec.json.decode(last)["seq"]

    def _send(self, commands: Iterable[bytes]) -> None:
        self._socket.settimeout(max(0.001, self._until - monotonic()))
        self._socket.sendall(b"".join(commands))

    def _ack(self, subject: str) -> bytes:
        got = self._receive()
        if got.status == b"503":
            raise self._place.trouble(f"no stream takes {subject!r}: the stream was deleted or has others")
        if b'"error"' in got.body:
            raise self._failure(msgspec.json.decode(got.body)["error"])
        return got.body

    def _failure(self, error: Mapping[str, Any]) -> Unreachable | Refused:
        what = error.get("description", error)
        return self._place.complaint(what) if error.get("code", 0) >= 500 else self._place.refusal(what)

    def ask_all(self, verb: str, questions: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
        """Return what the JetStream API answers to each question; an answer may be an `error`."""
        answers: dict[int, dict[str, Any]] = {}
        with _explained(self._place):
            self._until = monotonic() + self._place.seconds
            for page in batched(enumerate(questions), _PAGE, strict=False):
                self._send(
                    _command(f"$JS.API.{verb}", f"{self._inbox}.{n}", _json(asked)) for n, asked in page
                )
                for _ in page:
                    got = self._receive()
                    if got.status == b"503":
                        raise self._place.refusal("JetStream is off there; start nats-server with -js")
                    answers[int(got.subject.rpartition(b".")[2])] = msgspec.json.decode(got.body)
        return [answers[number] for number in range(len(questions))]

    def ask(self, verb: str, **question: object) -> dict[str, Any] | None:
        """Return what the JetStream API answers; None is that there is no such thing."""
        answer = self.ask_all(verb, [question])[0]
        if error := answer.get("error"):
            if error.get("code") != 404:
                raise self._failure(error)
            return None
        return answer

    def ensured(self, stream: str, **config: object) -> dict[str, Any]:
        """Return the state of a stream; makes it when it is not there."""
        kept = {"storage": "file", "retention": "limits", "discard": "old", "allow_direct": True}
        for verb, asked in (("INFO", {}), ("CREATE", {"name": stream, **kept, **config}), ("INFO", {})):
            answer = self.ask_all(f"STREAM.{verb}.{stream}", [asked])[0]
            if "error" not in answer:
                return answer["state"]
            if verb == "INFO" and answer["error"].get("code") != 404:
                break
        raise self._failure(answer["error"])

    def stored(self, stream: str, wanted: Sequence[Mapping[str, object]]) -> list[_Stored | None]:
        """Return messages of a stream by their sequences or subjects, big ones whole; None is not there."""
        return [
            self._stored(stream, answer["message"]) if "message" in answer else None
            for answer in self.ask_all(f"STREAM.MSG.GET.{stream}", wanted)
        ]

    def _stored(self, stream: str, message: Mapping[str, Any]) -> _Stored:
        body = b64decode(message.get("data", ""))
        if found := _PARTS.search(b64decode(message.get("hdrs", "")).decode()):
            body = self.joined(stream, found[1])
        return _Stored(message["seq"], message["subject"], datetime.fromisoformat(message["time"]), body)

    def joined(self, stream: str, sequences: str) -> bytes:
        """Return a big body from its parts."""
        parts = self.stored(stream, [{"seq": int(seq)} for seq in sequences.split(",")])
        return b"".join(part.body for part in parts if part)

    def message(self, subject: str, message_id: str, body: bytes) -> tuple[str, str, bytes]:
        """Return what to publish for `body`; its parts are stored before, when it is too big for one."""
        headers = _message_id(message_id)
        if len(headers) + len(body) + 12 > self.max_payload:
            size = self.max_payload // 2
            sequences = [
                self.publish([(f"{subject}.part", _message_id(f"{message_id}/{at}"), body[at : at + size])])
                for at in range(0, len(body), size)
            ]
            headers += f"Streamll-Parts: {','.join(map(str, sequences))}\r\n"
            body = b""
        return subject, headers, body


# --- the backend --------------------------------------------------------------------------------------------


class _Run(NamedTuple):
    """An execution in the log: when it began, and how many messages each of its subjects has."""

    began: datetime
    token: str
    subjects: Mapping[str, int]

    @property
    def events(self) -> Sequence[str]:
        return [subject for subject in self.subjects if not _is_part(subject)]

    @property
    def number(self) -> int:
        return sum(self.subjects[subject] for subject in self.events)


def _is_part(subject: str) -> bool:
    return subject.count(".") > 2


class Backend:
    """A log in a NATS server with JetStream: `nats://[user:password@ or token@]host[:4222][?timeout=10]`."""

    def __init__(self, url: str, target: str, retention: Retention) -> None:
        self.place = _place(url)
        self.retention = retention
        self.stream = _token(target)
        self.prefix = "streamll" if target == DEFAULT_TARGET else self.stream
        if target == "streamll":
            self.prefix = "streamll="  # the plain one is the default target's

    def __repr__(self) -> str:
        return f"{type(self).__module__}.Backend({self.place.shown!r}, {self.stream!r})"

    @contextmanager
    def wire(self) -> Generator[_Wire]:
        with closing(_Wire(self.place)) as wire:
            yield wire

    def ensured(self, wire: _Wire) -> dict[str, Any]:
        """Return the state of the log's stream; makes it when it is not there."""
        window = 120 * 10**9
        return wire.ensured(self.stream, subjects=[f"{self.prefix}.>"], duplicate_window=window)

    def writer(self) -> "Writer":
        return Writer(self)

    # reading one

    async def read(self, execution_id: str, after: int) -> AsyncGenerator[Sequence[bytes]]:
        expired = self.expired(execution_id)
        async with self._listening(partial(self._read_from, execution_id), expired) as (feed, cut):
            if cut is not None and after < cut.sequence:
                raise _expired(execution_id)
            if cut is not None and cut.is_last:
                yield [encode(cut)]
            while True:
                messages = await feed.take()
                bodies = [await self.body(one) for one in messages if one.subject != expired]
                if bodies:
                    yield bodies
                if len(bodies) < len(messages):
                    raise _expired(execution_id)

    def _read_from(self, execution_id: str, wire: _Wire, inbox: str) -> Event | None:
        """Have an execution sent to `inbox`; return what was left in its place if it was cut."""
        self.ensured(wire)
        last = {"last_by_subj": self.expired(execution_id)}
        cut = wire.stored(f"{self.stream}_expired", [last])[0]
        everything = f"{self.prefix}.*.{_token(execution_id)}"
        self._consume(wire, inbox, filter_subject=everything, deliver_policy="all")
        return decode(cut.body) if cut else None

    def expired(self, execution_id: str) -> str:
        """Return the subject of what is left of an execution that was cut."""
        return f"{self.prefix}_expired.{_token(execution_id)}"

    def _consume(self, wire: _Wire, inbox: str, **config: object) -> None:
        where = {"deliver_subject": inbox, "mem_storage": True, "num_replicas": 1}
        pace = {"idle_heartbeat": self.beat, "flow_control": True, "ack_policy": "none"}
        consumer = {**where, **pace, **config}
        wire.ask(f"CONSUMER.CREATE.{self.stream}", stream_name=self.stream, config=consumer)

    @property
    def beat(self) -> int:
        """Nanoseconds between two signs of life from the server."""
        return int(max(0.1, min(self.place.seconds / 3, 10)) * 1e9)

    @asynccontextmanager
    async def _listening[T](
        self, prepare: Callable[[_Wire, str], T], *subjects: str
    ) -> AsyncGenerator[tuple["_Feed", T]]:
        """Listen to `subjects`, and to an inbox that `prepare` tells the server of."""
        wire = await asyncio.to_thread(_Wire, self.place)  # says better than nats-py what is wrong
        feed = _Feed(self.place)
        try:
            await feed.connect(*subjects)
            yield feed, await asyncio.to_thread(_prepared, prepare, wire, feed.inbox)
        finally:
            await feed.close()

    async def body(self, message: Msg) -> bytes:
        """Return what a message holds, or its parts."""
        parts: str | None = (message.headers or {}).get("Streamll-Parts")
        return await asyncio.to_thread(self._joined, parts) if parts else message.data

    def _joined(self, sequences: str) -> bytes:
        with self.wire() as wire:
            return wire.joined(self.stream, sequences)

    # following all

    @asynccontextmanager
    async def follow(self, start: Start, group: Group | None) -> AsyncGenerator[Subscription]:
        if group is None:
            async with self._listening(partial(self._follow_from, start)) as (feed, at):
                yield _Alone(self, feed, at)
            return
        async with self._listening(partial(self._join, start, group)) as (feed, durable):
            shared = _Shared(self, feed, durable)
            try:
                yield shared
            finally:
                await shared.leave()

    def _follow_from(self, start: Start, wire: _Wire, inbox: str) -> int | None:
        """Have what comes after `start` sent to `inbox`; return the sequence before it, if it is known."""
        state = self.ensured(wire)
        start = str(state["last_seq"]) if start == "latest" else start
        at = int(start) if isinstance(start, str) and start != "earliest" else None
        if at is not None:
            _check_cursor(at, state)
        self._consume(wire, inbox, **_deliver(start))
        return at

    def _join(self, start: Start, group: Group, wire: _Wire, inbox: str) -> str:
        """Return the name of the group's consumer, which is made when it is not there."""
        name, wait = _token(group.name), int(group.claim_after.total_seconds() * 1e9)
        known = f"CONSUMER.INFO.{self.stream}.{name}"
        create = f"CONSUMER.DURABLE.CREATE.{self.stream}.{name}"
        config = {"durable_name": name, "ack_policy": "explicit", "ack_wait": wait, "max_ack_pending": -1}
        config |= {"filter_subject": f"{self.prefix}.*.*", "max_deliver": -1, **_deliver(start)}
        self.ensured(wire)
        if (found := wire.ask(known)) is None:
            try:
                wire.ask(create, stream_name=self.stream, config=config)
            except Refused:  # another member was quicker, and began elsewhere
                if wire.ask(known) is None:
                    raise
        elif found["config"]["ack_wait"] != wait:
            wire.ask(create, stream_name=self.stream, config=found["config"] | {"ack_wait": wait})
        return name

    # listing

    def runs(self, wire: _Wire) -> list[_Run]:
        """Return all executions, oldest first."""
        counts: dict[str, int] = {}
        asked: dict[str, object] = {"subjects_filter": f"{self.prefix}.>"}
        while page := wire.ask(f"STREAM.INFO.{self.stream}", **asked, offset=len(counts)):
            counts |= (some := page["state"].get("subjects") or {})
            if not some or len(counts) >= page.get("total", 0):
                break
        subjects: dict[str, dict[str, int]] = {}
        for subject, number in counts.items():
            subjects.setdefault(subject.split(".")[2], {})[subject] = number
        began = {token: begun(token) for token in subjects}
        foreign = [token for token, moment in began.items() if moment is None]
        firsts = [{"seq": 1, "next_by_subj": next(iter(subjects[token]))} for token in foreign]
        for token, first in zip(foreign, wire.stored(self.stream, firsts), strict=True):
            began[token] = first and first.time
        runs = [_Run(began[token] or datetime.now(UTC), token, subjects[token]) for token in subjects]
        return sorted(runs, key=lambda run: run.began)

    async def executions(self, limit: int) -> Sequence[Summary]:
        return await asyncio.to_thread(self._executions, limit)

    def _executions(self, limit: int) -> Sequence[Summary]:
        with self.wire() as wire:
            runs = self.runs(wire)
            earliest = runs[-limit].began if limit < len(runs) else None
            runs = [run for run in runs if earliest is None or run.began >= earliest]
            ends = wire.stored(self.stream, [self.last_of(run) for run in runs])
            subjects = [subject for run in runs for subject in run.events]
            asked = [{"seq": 1, "next_by_subj": subject} for subject in subjects]
            starts = dict(zip(subjects, wire.stored(self.stream, asked), strict=True))
        listed = [
            summary(first, last, run.number)
            for run, end in zip(runs, ends, strict=True)
            if (first := _event(min(filter(None, map(starts.get, run.events)), default=None)))
            and (last := _event(end))
        ]
        return sorted(listed, key=lambda one: one.started, reverse=True)[:limit]

    def last_of(self, run: _Run) -> Mapping[str, str]:
        return {"last_by_subj": f"{self.prefix}.*.{run.token}"}

    # dead letters

    async def bury(self, letter: DeadLetter) -> None:
        await asyncio.to_thread(self._bury, encode_letter(letter))

    def _bury(self, body: bytes) -> None:
        with self.wire() as wire:
            subject = f"{self.prefix}_dead"
            wire.ensured(f"{self.stream}_dead", subjects=[subject, f"{subject}.part"], max_msgs=_DEAD_LETTERS)
            wire.publish([wire.message(subject, token_hex(16), body)])

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        return await asyncio.to_thread(self._dead_letters, limit)

    def _dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        letters: list[DeadLetter] = []
        with self.wire() as wire:
            if (info := wire.ask(f"STREAM.INFO.{self.stream}_dead")) is None:
                return letters
            first, last = info["state"]["first_seq"], info["state"]["last_seq"]
            while len(letters) < limit and last >= first:
                page = [{"seq": seq} for seq in range(last, max(first, last - limit + 1) - 1, -1)]
                found = wire.stored(f"{self.stream}_dead", page)
                letters += [decode_letter(one.body) for one in found if one and "." not in one.subject]
                last -= limit
        return letters[:limit]


def _event(stored: _Stored | None) -> Event | None:
    try:
        return decode(stored.body) if stored else None
    except BadEvent:
        return None


def _expired(execution_id: str) -> EventsExpired:
    return EventsExpired(f"{execution_id!r:.80} was cut by retention; read executions sooner, or keep more")


def _cut_after(cursor: int, available: int) -> EventsExpired:
    return EventsExpired(
        f"what comes after cursor {cursor} was cut by retention; go on from `available`, {available}",
        available=str(available),
    )


def _check_cursor(cursor: int, state: Mapping[str, Any]) -> None:
    first, last = state["first_seq"], state["last_seq"]
    made_anew, lost_its_beginning = cursor > last, cursor < min(first - 1, last)
    if made_anew or lost_its_beginning:
        raise _cut_after(cursor, max(0, first - 1))


def _deliver(start: Start) -> Mapping[str, object]:
    """Return what says in a consumer's configuration where it begins."""
    match start:
        case "latest":
            return {"deliver_policy": "new"}
        case "earliest":
            return {"deliver_policy": "all"}
        case str():
            return {"deliver_policy": "by_start_sequence", "opt_start_seq": int(start) + 1}
        case datetime():
            moment = start.astimezone(UTC).isoformat()
            return {"deliver_policy": "by_start_time", "opt_start_time": moment}


def _prepared[T](prepare: Callable[[_Wire, str], T], wire: _Wire, inbox: str) -> T:
    with closing(wire):
        return prepare(wire, inbox)


# --- listening ----------------------------------------------------------------------------------------------


class _Feed:
    """What a connection of nats-py hears, until it hears nothing for too long."""

    def __init__(self, place: _Place) -> None:
        self._place = place
        self._client = Client()
        self._heard: list[Msg] = []
        self._some = asyncio.Event()
        self._error: Exception | None = None
        self.inbox = self._client.new_inbox()

    async def connect(self, *subjects: str) -> None:
        """Listen to the inbox and to `subjects`."""
        place, credentials = self._place, self._place.credentials()
        with _explained(place):
            async with asyncio.timeout(place.seconds):
                await self._client.connect(
                    f"nats://{place.authority}",
                    user=credentials.get("user"),
                    password=credentials.get("pass"),
                    token=credentials.get("auth_token"),
                    error_cb=self._on_error,
                    closed_cb=self._on_close,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=max(1, int(place.seconds)),
                )
                for subject in (self.inbox, *subjects):
                    await self._client.subscribe(
                        subject, cb=self._on_message, pending_msgs_limit=0, pending_bytes_limit=0
                    )
                await self._client.flush()

    async def _on_message(self, message: Msg) -> None:
        self._heard.append(message)
        self._some.set()

    async def _on_error(self, error: Exception) -> None:
        self._error = error
        self._some.set()

    async def _on_close(self) -> None:
        self._error = self._error or nats.errors.ConnectionClosedError()
        self._some.set()

    async def close(self) -> None:
        try:
            with suppress(nats.errors.Error, OSError):
                async with asyncio.timeout(1):
                    await self._client.close()
        finally:  # nats-py leaves its socket open when it is cancelled here, as at the end of a loop
            transport = self._client._transport  # pyright: ignore[reportPrivateUsage]
            if transport is not None:
                transport.close()

    async def say(self, messages: Iterable[tuple[str, bytes]], reply: str = "") -> None:
        """Publish."""
        with _explained(self._place):
            for subject, body in messages:
                await self._client.publish(subject, body, reply)

    async def flush(self) -> None:
        """Wait until the server has what was said."""
        with _explained(self._place):
            await self._client.flush(max(1, int(self._place.seconds)))

    async def take(self) -> Sequence[Msg]:
        """Wait for messages, and return those there are, at least one."""
        while True:
            with _explained(self._place):
                await self._wait()
            heard, self._heard = self._heard, []
            messages = [one for one in heard if _status(one) != "100"]
            if len(messages) < len(heard):  # heartbeats, and questions whether we keep up
                await self.say((one.reply, b"") for one in heard if one.reply and _status(one) == "100")
            if messages:
                return messages

    async def _wait(self) -> None:
        if not self._heard and self._error is None:
            self._some.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._place.seconds):
                    await self._some.wait()
        if not self._heard:
            await asyncio.sleep(0.1)  # a loop that was blocked meets its timers before its sockets
        if not self._heard:
            raise self._error or TimeoutError


def _status(message: Msg) -> str | None:
    return message.headers.get("Status") if message.headers and not message.data else None


class _Alone:
    """Follows everything; what it gets is contiguous, so a hole is what retention has cut."""

    def __init__(self, backend: Backend, feed: _Feed, at: int | None) -> None:
        self._backend = backend
        self._feed = feed
        self._at = at
        self._next: Sequence[Msg] = ()

    @property
    def cursor(self) -> str | None:
        return None if self._at is None else str(self._at)

    async def next(self) -> Sequence[Delivery]:
        got: list[Delivery] = []
        while not got:
            messages = self._next = self._next or await self._feed.take()
            at, taken = self._at, 0
            for message in messages:
                seq = message.metadata.sequence.stream
                if at is not None and seq > at + 1:
                    if not got:
                        raise _cut_after(at, seq - 1)
                    break
                if message.subject.count(".") == 2:
                    got.append(Delivery(await self._backend.body(message), str(seq)))
                at, taken = seq, taken + 1
            self._at, self._next = at, messages[taken:]  # not before: who cancels loses nothing
        return got

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        return

    renew = release = settle


class _Shared:
    """A member of a group. It asks for what there is; when there is nothing, for one, which it waits for."""

    cursor = None

    def __init__(self, backend: Backend, feed: _Feed, durable: str) -> None:
        self._backend = backend
        self._feed = feed
        self._more = f"$JS.API.CONSUMER.MSG.NEXT.{backend.stream}.{durable}"
        self._held: list[Msg] = []

    async def next(self) -> Sequence[Delivery]:
        while not self._held:
            await self._pull(batch=_PAGE, no_wait=True)
            if not self._held:
                beat = self._backend.beat
                await self._pull(batch=1, expires=3 * beat, idle_heartbeat=beat)
        got = [
            Delivery(
                await self._backend.body(one),
                str(one.metadata.sequence.stream),
                one.metadata.num_delivered,
                one.reply,
            )
            for one in self._held
        ]
        self._held = []
        return got

    async def _pull(self, **request: int) -> None:
        await self._feed.say([(self._more, _json(request))], reply=self._feed.inbox)
        while len(self._held) < request["batch"]:
            messages = await self._feed.take()
            self._held += [one for one in messages if _status(one) is None]
            if ends := [one for one in messages if _status(one) is not None]:
                if _status(ends[-1]) not in ("404", "408"):  # no messages, request timeout
                    raise self._backend.place.trouble(f"the group's consumer is gone: {ends[-1].headers}")
                return

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        await self._reply(deliveries, b"+ACK")

    async def renew(self, deliveries: Sequence[Delivery]) -> None:
        await self._reply(deliveries, b"+WPI")

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self._reply(deliveries, b"-NAK")

    async def _reply(self, deliveries: Sequence[Delivery], what: bytes) -> None:
        await self._feed.say((str(one.handle), what) for one in deliveries)
        await self._feed.flush()

    async def leave(self) -> None:
        """Give back what nobody has seen."""
        with suppress(StreamllError):
            await self._feed.say((one.reply, b"-NAK") for one in self._held)


# --- the writer ---------------------------------------------------------------------------------------------


class Writer:
    """Appends over a connection of its own, and cuts what retention lets go of."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._wire: _Wire | None = None
        self._subjects: dict[str, str] = {}
        self._trimmer = _Trimmer(backend)

    def append(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        try:
            wire = self._wire or self._connected()
            wire.publish(
                [wire.message(self._subject(event), event.event_id, body) for event, body in entries]
            )
        except BaseException:
            self.close()
            raise
        self._trim(wire)

    def _connected(self) -> _Wire:
        self._wire = _Wire(self._backend.place)
        self._backend.ensured(self._wire)
        return self._wire

    def _subject(self, event: Event) -> str:
        """Return where the events of an execution go: the program is known from its start, or not at all."""
        if (known := self._subjects.get(event.execution_id)) is None:
            program = str(event.data.get("program", "-")) if event.event_type == "execution_start" else "-"
            known = f"{self._backend.prefix}.{_token(program)}.{_token(event.execution_id)}"
            if len(self._subjects) >= _KNOWN_SUBJECTS:
                del self._subjects[next(iter(self._subjects))]
            self._subjects[event.execution_id] = known
        return known

    def _trim(self, wire: _Wire) -> None:
        try:
            self._trimmer.trim(wire)
        except Refused as error:
            logger.warning("%r keeps everything, because it may not cut: %s", self._backend, error)
            self._trimmer.next = inf
            self.close()
        except Unreachable:  # the events are stored; the next append tells
            self.close()

    def rest(self) -> None:
        if self._wire is not None:
            try:
                self._wire.ping()
            except StreamllError:
                self.close()

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    abandon = close  # closing sends nothing, and the parent's copy of the socket keeps the connection


class _Trimmer:
    """Cuts executions that are over, oldest first, while they are too old or the log is too big."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._limit = backend.retention
        self._oldest: deque[_Run] = deque()
        self._listing = 0.0
        self._messages = self._bytes = 0.0
        limit = self._limit
        self.next = inf if limit.age is limit.events is limit.bytes is None else 0.0

    def trim(self, wire: _Wire) -> None:
        """Cut for a moment, if it is time to."""
        began = monotonic()
        if began < self.next:
            return
        state = self._backend.ensured(wire)
        self._messages, self._bytes = state["messages"], state["bytes"]
        if listed := began >= self._listing:
            self._list(wire)
        while monotonic() < began + _TRIM_SECONDS:
            if picked := self._picked():
                self._cut(wire, picked)
            elif listed or self._oldest:
                break
            else:
                self._list(wire)
                listed = True
        ended = monotonic()
        self.next = ended + max(1, (ended - began) / _TRIM_SHARE)

    def _list(self, wire: _Wire) -> None:
        """Learn anew what there is, which costs microseconds for each execution."""
        self._oldest = deque(self._backend.runs(wire)[:_OLDEST])
        age = self._limit.age or timedelta.max
        self._listing = monotonic() + min(600, max(1, age.total_seconds() / 10))

    def _picked(self) -> list[_Run]:
        """Take the oldest executions that may have to go."""
        picked: list[_Run] = []
        messages, size, now = self._messages, self._bytes, datetime.now(UTC)
        while self._oldest and len(picked) < _PAGE:
            run = self._oldest[0]
            if not self._too_big(messages, size) and not self._too_old(now - run.began):
                break
            size -= size * run.number / max(1, messages)
            messages -= run.number
            picked.append(self._oldest.popleft())
        return picked

    def _too_big(self, messages: float, size: float) -> bool:
        events, bytes_ = self._limit.events, self._limit.bytes
        return (events is not None and messages > events) or (bytes_ is not None and size > bytes_)

    def _too_old(self, silence: timedelta) -> bool:
        return self._limit.age is not None and silence >= self._limit.age

    def _cut(self, wire: _Wire, picked: Sequence[_Run]) -> None:
        backend, now = self._backend, datetime.now(UTC)
        cut: list[str] = []
        tombstones: list[tuple[str, str, bytes]] = []
        ends = wire.stored(backend.stream, [backend.last_of(run) for run in picked])
        for run, end in zip(picked, ends, strict=True):
            last, silence = _event(end), now - (end.time if end else run.began)
            over = (last is not None and last.is_last) or silence >= self._limit.abandoned
            if not over or not (self._too_old(silence) or self._too_big(self._messages, self._bytes)):
                continue  # it is met again when all are listed again
            self._bytes -= self._bytes * run.number / max(1, self._messages)
            self._messages -= run.number
            cut += run.subjects
            if last is not None:
                tombstones.append((backend.expired(last.execution_id), "", encode(_tombstone(last, now))))
        if tombstones:
            age = self._limit.age and max(_TOMBSTONE_AGES * self._limit.age, timedelta(hours=1))
            seconds = age.total_seconds() if age else 0
            limits = {"max_msgs_per_subject": 1, "max_msgs": _TOMBSTONES, "max_age": int(seconds * 1e9)}
            wire.ensured(f"{backend.stream}_expired", subjects=[f"{backend.prefix}_expired.*"], **limits)
            wire.publish(tombstones)
        wire.ask_all(f"STREAM.PURGE.{backend.stream}", [{"filter": subject} for subject in cut])


def _tombstone(last: Event, now: datetime) -> Event:
    """Return what is left of an execution: how far it went, and whether it ended."""
    return Event(
        event_id=last.event_id,
        execution_id=last.execution_id,
        sequence=last.sequence,
        timestamp=now,
        event_type="gap",
        data={"reason": "expired", "ended": last.is_last},
    )
