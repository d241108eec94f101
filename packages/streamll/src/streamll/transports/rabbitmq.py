"""RabbitMQ: a topic exchange that anybody may bind a queue to, and a stream queue that keeps what it gets.

Exchange and stream are called as the target; a group is a quorum queue `<target>.<group>`, dead letters are a
stream `<target>.dead`. The routing key is `<event type>.<module or operation>`: `token.#` is all tokens.
Needs RabbitMQ 3.9, for streams, and no plugin: everything goes over AMQP 0-9-1.

A stream is cut from the front, whole segments at a time: `Retention.age` and `.bytes` hold roughly, `.events`
and `.abandoned` not at all, and an execution that has not ended is cut like any other.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence, Set
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache, partial
from itertools import batched, dropwhile, islice
from math import inf
from time import monotonic
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import uuid4

from pika import BasicProperties, URLParameters, frame, spec
from pika import exceptions as amqp
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.adapters.utils import connection_workflow as workflow
from pika.channel import Channel

from streamll.core.events import Event, decode
from streamll.errors import BadEvent, BadUrl, EventsExpired, Refused, StreamllError, Unreachable
from streamll.transports.base import (
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

_SLICE = 512  # at most two of these are unconfirmed: a stream is stored in chunks, which want to be full
_PREFETCH = 1000
_PREFETCH_GROUP = 256
_CHUNK = 60_000  # more messages than a chunk has
_SKEW = timedelta(seconds=30)  # how far the clocks of a program and of the broker may be apart
_LONGEST = 255 - len(".making")
_SEGMENT_BYTES = 50_000_000
_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_LOCK_SECONDS = 0.1

_DEAD_ARGUMENTS: Mapping[str, object] = {
    "x-queue-type": "stream",  # and no classic queue: everybody sees all letters, and nobody takes them away
    "x-max-length-bytes": 64_000_000,
    "x-stream-max-segment-size-bytes": 16_000_000,
}

_MISSING, _LOCKED, _OTHERWISE = 404, 405, 406
_UNFINISHED = frozenset({506, 541})  # from RabbitMQ 3.10 to who uses a stream that others are just declaring
_REFUSALS = frozenset({402, 403, _LOCKED, _OTHERWISE, 530})  # 530: no such virtual host
_NOT_FOR_US = (
    amqp.ProbableAuthenticationError,
    amqp.ProbableAccessDeniedError,
    amqp.AuthenticationError,
    amqp.IncompatibleProtocolError,
)
_ADVICE = {
    True: (Refused, "Check user, password, virtual host, permissions, and that AMQP 0-9-1 is spoken there."),
    False: (Unreachable, "Check that it runs and can be reached from here."),
}


@dataclass(frozen=True, slots=True)
class Place:
    """A target on a server, and what it is made with."""

    shown: str
    target: str
    seconds: float
    parameters: URLParameters = field(repr=False)
    arguments: Mapping[str, object]

    def error(self, reason: BaseException) -> StreamllError:
        """Return what `reason` means to a caller."""
        if isinstance(reason, StreamllError):
            return reason
        cause = _root(reason)
        said = f"{type(cause).__name__}: {cause}"
        refused = isinstance(cause, _NOT_FOR_US) or getattr(cause, "reply_code", 0) in _REFUSALS
        refused &= "timed out" not in said  # 406 also ends a consumer that held a message for half an hour
        kind, advice = _ADVICE[refused]
        error = kind(f"RabbitMQ at {self.shown!r}, {self.target!r:.80}: {said:.300}. {advice}")
        error.__cause__ = cause
        return error

    def silence(self, why: str = "") -> Unreachable:
        """Return the error for a server that said nothing for too long."""
        return Unreachable(
            f"RabbitMQ at {self.shown!r} did not answer within {self.seconds:g} s{why}. "
            "Check that it runs and is no other kind of server; ?timeout= in the URL waits longer."
        )

    def nack(self) -> Unreachable:
        """Return the error for a server that answered that it did not store."""
        return Unreachable(f"RabbitMQ at {self.shown!r} could not store what it was sent: see its log.")


def _place(url: str, target: str, retention: Retention) -> Place:
    shown, parts = without_password(url), urlsplit(url)
    query = {"heartbeat": "60"} | dict(parse_qsl(parts.query))
    try:
        seconds = float(query.pop("timeout", _SECONDS))
        parameters = URLParameters(urlunsplit(parts._replace(query=urlencode(query))))
    except (ValueError, TypeError):
        seconds, parameters = 0, URLParameters("amqp://")
    if not 0 < seconds < inf:
        raise BadUrl(
            f"{shown!r:.80} is no place in RabbitMQ; expected "
            "amqp://user:password@host:port/virtual-host?timeout=10&heartbeat=60"
        )
    parameters.socket_timeout = parameters.stack_timeout = None  # we look at the clock ourselves
    parameters.client_properties = {"connection_name": f"streamll {target}"}
    return Place(shown, _named(target), seconds, parameters, _stream_arguments(retention))


def _named(name: str) -> str:
    if len(name.encode()) > _LONGEST:
        raise BadUrl(f"{name!r:.80} is too long for RabbitMQ; expected up to {_LONGEST} bytes of UTF-8.")
    return name


def _stream_arguments(retention: Retention) -> Mapping[str, object]:
    limit = retention.bytes or 4 * _SEGMENT_BYTES
    arguments: dict[str, object] = {
        "x-queue-type": "stream",
        "x-stream-max-segment-size-bytes": max(1, min(_SEGMENT_BYTES, limit // 4)),
    }
    if retention.bytes is not None:
        arguments["x-max-length-bytes"] = max(1, retention.bytes)
    if retention.age is not None:
        arguments["x-max-age"] = f"{max(1, round(retention.age.total_seconds()))}s"
    return arguments


def _root(error: BaseException) -> BaseException:
    """Return what went wrong below what pika wrapped around it."""
    match error:
        case workflow.AMQPConnectionWorkflowFailed():
            return _root(cast("Sequence[BaseException]", error.exceptions)[-1])
        case workflow.AMQPConnectorPhaseErrorBase():
            return _root(cast("BaseException", error.exception))
        case amqp.AMQPConnectionError(args=(BaseException() as inner,)):
            return _root(inner)
        case _:
            return error


def _code(error: StreamllError) -> int:
    return getattr(error.__cause__, "reply_code", 0)


@contextmanager
def _explained(place: Place) -> Generator[None]:
    try:
        yield
    except (amqp.AMQPError, workflow.AMQPConnectorException, OSError) as error:
        if isinstance(error, StreamllError):
            raise
        raise place.error(error) from error


# --- pika, quiet and closable -------------------------------------------------------------------------------

_ours: ContextVar[bool] = ContextVar("streamll_rabbitmq", default=False)


def _of_others(_: logging.LogRecord) -> bool:
    return not _ours.get()


# pika logs each failed connection several times at ERROR. Ours end in an exception that says it once.
for _name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "pika"]:
    logging.getLogger(_name).addFilter(_of_others)


@contextmanager
def _quiet() -> Generator[None]:
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)


def _farewell(connection: AsyncioConnection | SelectConnection) -> None:
    """Begin to close the connection, in order if it is open."""
    if connection.is_open or not (cast("Any", connection)._transport or connection.is_closed):
        connection.close()
    else:  # pika's `close` trips over itself (1.4.4) while AMQP is being negotiated
        _hang_up(connection)


def _hang_up(connection: AsyncioConnection | SelectConnection) -> None:
    """Begin to close the connection without asking a server that may not answer."""
    transport = cast("Any", connection)._transport
    if transport is not None and transport._state == transport._STATE_ACTIVE:
        transport._initiate_abort(ConnectionAbortedError("given up"))


def _ignore(*_: object) -> None:
    pass


# --- what is on the wire ------------------------------------------------------------------------------------


class Message(NamedTuple):
    """One message of a queue or stream."""

    tag: int
    properties: BasicProperties
    body: bytes

    def header(self, name: str) -> object:
        headers = cast("Mapping[str, object] | None", self.properties.headers)
        return headers.get(name) if headers else None

    @property
    def offset(self) -> int:
        return int(cast("int", self.header("x-stream-offset")))  # pika's own kind of int prints as `7L`

    def event(self) -> Event | None:
        try:
            return decode(self.body)
        except BadEvent:
            return None

    def about(self) -> tuple[str | None, int]:
        """Return execution and sequence: from the headers that our writers set, or else from the event."""
        match self.header("execution_id"), self.header("sequence"):
            case str() as execution, int() as sequence:
                return execution, int(sequence)
            case _:
                event = self.event()
                return (event.execution_id, event.sequence) if event else (None, 0)


class Confirms:
    """What the broker has stored of what was published on a channel."""

    def __init__(self) -> None:
        self.sent = 0
        self.refused = False
        self._upto = 0
        self._ahead: set[int] = set()

    @property
    def open(self) -> int:
        return self.sent - self._upto - len(self._ahead)

    def heard(self, reply: Any) -> None:
        """Count an answer, which is about one message or about all up to it."""
        self.refused |= isinstance(reply, spec.Basic.Nack)
        if reply.multiple:
            self._upto = max(self._upto, reply.delivery_tag)
            self._ahead = {tag for tag in self._ahead if tag > self._upto}
        else:
            self._ahead.add(reply.delivery_tag)
        while self._upto + 1 in self._ahead:
            self._upto += 1
            self._ahead.remove(self._upto)


def _frames(entries: Iterable[Entry], *, number: int, exchange: str, max_bytes: int) -> Generator[bytes]:
    """Yield the frames that publish `entries` on channel `number`."""
    for event, body in entries:
        about = ".".join(filter(None, (event.event_type, event.module_name or event.operation)))
        yield _opening(number, exchange, _short(about))
        yield frame.Header(number, len(body), _properties(event)).marshal()
        for start in range(0, len(body), max_bytes):
            yield frame.Body(number, body[start : start + max_bytes]).marshal()


@lru_cache(1024)
def _opening(number: int, exchange: str, key: str) -> bytes:
    return frame.Method(number, spec.Basic.Publish(exchange=exchange, routing_key=key)).marshal()


def _properties(event: Event) -> BasicProperties:
    return BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        message_id=_short(event.event_id),
        type=_short(event.event_type),
        headers={"execution_id": event.execution_id, "sequence": event.sequence},
    )


def _short(text: str) -> str:
    """Return what fits into AMQP's short strings, cut between characters."""
    return text if len(text) < 64 else text.encode()[:255].decode(errors="ignore")


# --- writing ------------------------------------------------------------------------------------------------


class _Select(SelectConnection):
    def emit(self, frames: bytes) -> None:
        """Send many frames in one piece: a system call for each is what makes `basic_publish` slow."""
        cast("Any", self)._output_marshaled_frames([frames])


class Line:
    """A connection with one confirming channel, driven by the thread that uses it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.lost: BaseException | None = None
        self._confirms = Confirms()
        self._blocked = ""
        self._channel: Any = None
        self._loop: Any = IOLoop()
        self._connection = _Select(
            place.parameters, _ignore, self._on_end, self._on_end, custom_ioloop=self._loop
        )
        self._connection.add_on_connection_blocked_callback(self._on_blocked)
        self._connection.add_on_connection_unblocked_callback(self._on_unblocked)

    def open(self) -> None:
        """Connect, and declare what is written to: as it should be, or else as it is."""
        self.until(lambda: self._connection.is_open)
        try:
            self._declare(passive=False)
        except Refused as error:
            if _code(error) != _OTHERWISE:
                raise
            self.lost = None
            self._declare(passive=True)
            logger.warning("%s The log is used as it is, with the retention it was made with.", error)

    def _declare(self, *, passive: bool) -> None:
        target, answers = self.place.target, list[object]()
        self._channel = self._connection.channel(on_open_callback=answers.append)
        self._channel.add_on_close_callback(self._on_end)
        self.until(lambda: len(answers) == 1)
        options = {"passive": True} if passive else {"durable": True, "arguments": self.place.arguments}
        self._channel.exchange_declare(target, "topic", durable=True, callback=_ignore)
        self._channel.queue_declare(target, **options, callback=_ignore)
        self._channel.queue_bind(target, target, "#", callback=_ignore)
        self._channel.confirm_delivery(self._on_confirm, answers.append)
        self.until(lambda: len(answers) == 2)

    def append(self, entries: Sequence[Entry]) -> None:
        for piece in batched(entries, _SLICE, strict=False):
            frames = _frames(
                piece,
                number=self._channel.channel_number,
                exchange=self.place.target,
                max_bytes=self._connection.params.frame_max - 8,
            )
            self._connection.emit(b"".join(frames))
            self._confirms.sent += len(piece)
            self.until(lambda: self._confirms.open <= _SLICE)
        self.until(lambda: not self._confirms.open)
        if self._confirms.refused:
            raise self.place.nack()

    def until(self, done: Callable[[], bool], seconds: float | None = None) -> None:
        """Let pika work until `done`."""
        seconds = self.place.seconds if seconds is None else seconds
        deadline = monotonic() + seconds
        alarm = self._loop.call_later(seconds, _ignore)
        self._loop.activate_poller()
        try:
            while not done():
                if self.lost is not None:
                    raise self.place.error(self.lost)
                self._loop.poll()
                self._loop.process_timeouts()
                if monotonic() >= deadline and not done():
                    raise self.place.silence(self._blocked)
        finally:
            self._loop.deactivate_poller()
            self._loop.remove_timeout(alarm)

    def rest(self) -> None:
        """Answer what has come in, and send a heartbeat if it is time."""
        with suppress(StreamllError):
            self.until(lambda: False, 0)

    def close(self) -> None:
        """Say goodbye, and hang up when nobody listens."""
        self.lost = None
        with suppress(StreamllError):
            _farewell(self._connection)
            self.until(lambda: self._connection.is_closed, _CLOSE_SECONDS)
        self.hang_up()

    def hang_up(self) -> None:
        try:
            (_hang_up if self._connection.is_open else _farewell)(self._connection)
            self._loop.process_timeouts()
        finally:
            self._loop.close()

    def forget(self) -> None:
        """Close the sockets of this process alone: a shutdown would reach the parent's."""
        transport, poller = cast("Any", self._connection)._transport, self._loop._poller
        mine = (transport and transport._sock, poller._r_interrupt, poller._w_interrupt)
        for socket in filter(None, mine):
            socket.close()

    def _on_end(self, _: object, reason: BaseException) -> None:
        self.lost = reason

    def _on_confirm(self, reply: Any) -> None:
        self._confirms.heard(reply.method)

    def _on_blocked(self, _: object, reply: Any) -> None:
        self._blocked = f": it takes nothing from publishers ({reply.method.reason})"

    def _on_unblocked(self, *_: object) -> None:
        self._blocked = ""


class Writer:
    """See `base.Writer`; what it promises, `Line` does."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._line: Line | None = None

    def append(self, entries: Sequence[Entry]) -> None:
        self.rest()  # notices a connection that the server has cut meanwhile
        try:
            with _quiet(), _explained(self._place):
                self._store(entries)
        except BaseException:
            self._end(Line.hang_up)
            raise

    def _store(self, entries: Sequence[Entry], tries: int = 5) -> None:
        fresh, self._line = self._line is None, self._line or Line(self._place)
        try:
            if fresh:
                self._line.open()
            self._line.append(entries)
        except Unreachable as error:
            if not fresh or tries == 1 or _code(error) not in _UNFINISHED:
                raise
            self._end(Line.hang_up)
            self._store(entries, tries - 1)

    def rest(self) -> None:
        if self._line is not None:
            with suppress(Exception), _quiet():
                self._line.rest()
            if self._line.lost is not None:
                self._end(Line.hang_up)

    def close(self) -> None:
        self._end(Line.close)

    def abandon(self) -> None:
        self._end(Line.forget)

    def _end(self, how: Callable[[Line], None]) -> None:
        line, self._line = self._line, None
        if line is not None:
            with suppress(Exception), _quiet():
                how(line)


# --- reading: the same, on an event loop --------------------------------------------------------------------

type Offset = int | str | datetime
"""A place in a stream: a number, "first", "last" or a moment; the last two begin where a chunk does."""


def _answer(reply: asyncio.Future[Any], value: object) -> None:
    if not reply.done():
        reply.set_result(value)


class Lane:
    """A channel whose answers, messages and end are awaited."""

    def __init__(self, place: Place, connection: AsyncioConnection) -> None:
        self.place = place
        self.tag = ""
        self._future: Callable[[], asyncio.Future[Any]] = asyncio.get_running_loop().create_future
        self._opened, self._lost, self._news, self._stored = (self._future() for _ in range(4))
        self._confirms = Confirms()
        self._inbox = deque[Message]()
        self._raw: Any = connection.channel(on_open_callback=partial(_answer, self._opened))
        self._raw.add_on_close_callback(self._on_close)
        self._raw.add_on_cancel_callback(self._on_cancel)

    async def opened(self) -> "Lane":
        await self._first(self._opened, self.place.seconds)
        return self

    async def call(self, method: Callable[..., object], *values: object, **options: object) -> Any:
        """Call a method of pika's channel, and return what the broker answers."""
        reply = self._future()
        self.tell(method, *values, **options, callback=partial(_answer, reply))
        return await self._first(reply, self.place.seconds)

    def tell(self, method: Callable[..., object], *values: object, **options: object) -> None:
        """Call a method of pika's channel that is not answered, or not waited for."""
        with _quiet(), _explained(self.place):
            method(self._raw, *values, **options)

    async def consume(self, queue: str, *, prefetch: int, offset: Offset | None = None) -> "Lane":
        """Let messages of `queue` come in."""
        self.tag = uuid4().hex
        options = {} if offset is None else {"arguments": {"x-stream-offset": offset}}
        await self.call(Channel.basic_qos, prefetch_count=prefetch)
        await self.call(Channel.basic_consume, queue, self._on_message, consumer_tag=self.tag, **options)
        return self

    async def take(self) -> Sequence[Message]:
        """Wait for messages, and return all that are here."""
        if not self._inbox:
            self._news = self._future()
            await self._first(self._news, None)
        return self.here()

    async def take_on(self) -> Sequence[Message]:
        """Take messages of a stream, and have more of them sent."""
        got = await self.take()
        self.tell(Channel.basic_ack, got[-1].tag, multiple=True)
        return got

    def here(self) -> Sequence[Message]:
        """Return the messages that have come so far."""
        got = tuple(self._inbox)
        self._inbox.clear()
        return got

    async def publish(self, queue: str, messages: Iterable[tuple[BasicProperties, bytes]]) -> None:
        """Put messages into a queue, and return when the broker has stored them."""
        if not self._confirms.sent:
            await self.call(Channel.confirm_delivery, self._on_confirm)
        self._stored = self._future()
        for properties, body in messages:
            self.tell(Channel.basic_publish, "", queue, body, properties)
            self._confirms.sent += 1
        if self._confirms.open:
            await self._first(self._stored, self.place.seconds)
        if self._confirms.refused:
            raise self.place.nack()

    async def _first[T](self, reply: asyncio.Future[T], seconds: float | None) -> T:
        await asyncio.wait({reply, self._lost}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if reply.done():
            return reply.result()
        raise self.place.error(self._lost.result()) if self._lost.done() else self.place.silence()

    def _on_close(self, _: object, reason: BaseException) -> None:
        _answer(self._lost, reason)

    def _on_cancel(self, _: object) -> None:
        _answer(self._lost, ConnectionError("the queue was deleted"))

    def _on_message(self, _: object, delivery: Any, properties: BasicProperties, body: bytes) -> None:
        self._inbox.append(Message(delivery.delivery_tag, properties, body))
        _answer(self._news, None)

    def _on_confirm(self, reply: Any) -> None:
        self._confirms.heard(reply.method)
        if not self._confirms.open:
            _answer(self._stored, None)


class Link:
    """A connection on the running loop."""

    def __init__(self, place: Place) -> None:
        loop = asyncio.get_running_loop()
        self.place = place
        self._opened: asyncio.Future[object] = loop.create_future()
        self._ended: asyncio.Future[BaseException] = loop.create_future()
        context = copy_context()  # what pika calls later on the loop is called in it
        context.run(_ours.set, True)
        self._connection = context.run(
            AsyncioConnection, place.parameters, self._on_open, self._on_end, self._on_end, loop
        )

    def _on_open(self, connection: object) -> None:
        _answer(self._opened, connection)

    def _on_end(self, _: object, reason: BaseException) -> None:
        _answer(self._ended, reason)

    async def open(self) -> None:
        either = {self._opened, self._ended}
        await asyncio.wait(either, timeout=self.place.seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            raise self.place.error(self._ended.result())
        if not self._opened.done():
            raise self.place.silence()

    async def close(self) -> None:
        """Say goodbye, and hang up when nobody listens."""
        try:
            with _quiet():
                _farewell(self._connection)
            await asyncio.wait({self._ended}, timeout=_CLOSE_SECONDS)
        finally:
            if not self._ended.done():
                _hang_up(self._connection)

    async def lane(self) -> Lane:
        with _quiet(), _explained(self.place):
            lane = Lane(self.place, self._connection)
        return await lane.opened()

    async def grants(self, method: Callable[..., object], name: str, *, but: int, **options: object) -> bool:
        """Call on a channel of its own; False if the broker closes that with the code `but`."""
        lane = await self.lane()
        try:
            await lane.call(method, name, **options)
        except StreamllError as error:
            if _code(error) != but or "inaccessible" in str(error):  # 404 as well, while a node starts
                raise
            return False
        lane.tell(Channel.close)
        return True

    async def has(self, queue: str) -> bool:
        return await self.grants(Channel.queue_declare, queue, but=_MISSING, passive=True)

    async def consume(self, queue: str, *, prefetch: int, offset: Offset | None = None) -> Lane:
        return await (await self.lane()).consume(queue, prefetch=prefetch, offset=offset)

    async def hear(self, exchange: str, kind: str) -> tuple[Lane, str]:
        """Return a channel on which all comes in that is published from now on, and its queue."""
        lane = await self.lane()
        made = await lane.call(Channel.queue_declare, "", exclusive=True, auto_delete=True)
        await lane.call(Channel.exchange_declare, exchange, kind, durable=True)
        await lane.call(Channel.queue_bind, made.method.queue, exchange, "#")
        return await lane.consume(made.method.queue, prefetch=0), made.method.queue

    async def peek(self, stream: str, offset: Offset, prefetch: int = 1) -> Sequence[Message]:
        """Return the messages there are at a place of a stream; none if there are none yet.

        Nothing says that a stream is empty. But joining a second consumer asks the stream's process, which by
        then has told the channel what the first one may have: that is sent before the next answer.
        """
        lane = await self.consume(stream, prefetch=prefetch, offset=offset)
        await lane.call(Channel.basic_consume, stream, _ignore, arguments={"x-stream-offset": "next"})
        await lane.call(Channel.basic_qos, prefetch_count=prefetch)
        lane.tell(Channel.close)
        return lane.here()

    async def span(self, stream: str) -> "Span":
        """Return where a stream begins and ends, at the time of asking."""
        last = await self.peek(stream, "last", _CHUNK) if await self.has(stream) else ()
        first = await self.peek(stream, "first") if last else ()
        return Span(first[0], last[-1].offset) if first and last else Span(None, -1)

    async def seek(self, start: Start, span: "Span") -> int:
        """Return the offset of the first message that `start` means, which may be yet to come."""
        match start:
            case "latest":
                return span.end + 1
            case "earliest":
                return span.start
            case str():
                return _after(start, span)
            case datetime():
                found = await self.peek(self.place.target, start) if span.first else ()
                return found[0].offset if found else span.end + 1

    async def history(self, stream: str, start: int, end: int) -> AsyncGenerator[Sequence[Message]]:
        """Yield the messages of a stream from the offset `start` to the offset `end`."""
        if start > end:
            return
        lane = await self.consume(stream, prefetch=_PREFETCH, offset=start)
        while start <= end:
            got = await lane.take_on()
            start = got[-1].offset + 1
            yield [message for message in got if message.offset <= end]


@asynccontextmanager
async def _linked(place: Place) -> AsyncGenerator[Link]:
    link = Link(place)
    try:
        await link.open()
        yield link
    finally:
        await link.close()


class Span(NamedTuple):
    """What a stream holds: its first message, and the offset of its last one."""

    first: Message | None
    end: int

    @property
    def start(self) -> int:
        return self.first.offset if self.first else 0


def _after(cursor: str, span: Span) -> int:
    if not (cursor == "-1" or cursor.isdecimal()):
        raise ValueError(f"{cursor!r:.80} is no cursor of RabbitMQ; expected an offset in its stream.")
    if not span.start - 1 <= int(cursor) <= span.end:
        message = f"What came after {cursor} is gone: the stream holds {span.start} to {span.end}."
        raise EventsExpired(message, str(span.start - 1))
    return int(cursor) + 1


# --- following ----------------------------------------------------------------------------------------------


class Stream:
    """The target's stream from an offset on. One that is not there yet is read from its birth.

    It is not declared here: what it keeps is for the first writer to say, and cannot be changed.
    """

    def __init__(self, link: Link, lane: Lane, *, born: bool) -> None:
        self._link = link
        self._lane = lane
        self._born = born

    async def take(self) -> Sequence[Message]:
        if not self._born:
            await self._lane.take()
            self._lane.tell(Channel.close)
            self._lane = await self._link.consume(self._link.place.target, prefetch=_PREFETCH, offset=0)
            self._born = True
        return await self._lane.take_on()


async def _stream(link: Link, offset: int) -> Stream:
    target = link.place.target
    if not await link.has(target):
        lane, _ = await link.hear(target, "topic")
        if not await link.has(target):
            return Stream(link, lane, born=False)
    return Stream(link, await link.consume(target, prefetch=_PREFETCH, offset=offset), born=True)


class Alone:
    """A `Subscription` to everything, by offset."""

    def __init__(self, stream: Stream, offset: int, since: datetime | None) -> None:
        self._stream = stream
        self._next = offset
        self._since = since

    @property
    def cursor(self) -> str:
        return str(self._next - 1)

    async def next(self) -> Sequence[Delivery]:
        wanted: Sequence[Message] = ()
        while not wanted:
            got = await self._stream.take()
            if got[0].offset > self._next:
                message = f"The stream was cut from {self._next} to {got[0].offset} before that was read."
                raise EventsExpired(message, str(got[0].offset - 1))
            self._next = got[-1].offset + 1
            wanted = _since(self._since, got)
        self._since = None
        return [Delivery(message.body, str(message.offset)) for message in wanted]

    async def settle(self, deliveries: Sequence[Delivery]) -> None: ...

    async def renew(self, deliveries: Sequence[Delivery]) -> None: ...

    async def release(self, deliveries: Sequence[Delivery]) -> None: ...


def _since(moment: datetime | None, messages: Sequence[Message]) -> Sequence[Message]:
    """Leave out what leads up to the moment: a stream is entered at a chunk, which holds earlier messages."""

    def early(message: Message) -> bool:
        event = message.event() if moment else None
        return moment is not None and event is not None and event.timestamp < moment

    return tuple(dropwhile(early, messages))


class Member:
    """A `Subscription` that shares a queue with others.

    What it has not settled belongs to its connection: the broker gives it to another member when that ends,
    however it ends. So there is nothing to renew.
    """

    cursor = None

    def __init__(self, lane: Lane, queue: str) -> None:
        self._lane = lane
        self._queue = queue
        self._held: dict[int, None] = {}

    async def next(self) -> Sequence[Delivery]:
        if not self._lane.tag:
            await self._lane.consume(self._queue, prefetch=_PREFETCH_GROUP)
        got = await self._lane.take()
        self._held.update(dict.fromkeys(message.tag for message in got))
        return [_handed_out(message) for message in got]

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        tags = self._drop(deliveries)
        oldest = next(iter(self._held), inf)
        together = [tag for tag in tags if tag < oldest]  # nothing up to there is held any more
        if together:
            self._lane.tell(Channel.basic_ack, together[-1], multiple=True)
        for tag in tags[len(together) :]:
            self._lane.tell(Channel.basic_ack, tag)

    async def renew(self, deliveries: Sequence[Delivery]) -> None: ...

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        if self._lane.tag:  # or else the broker gives them back to this member
            await self._lane.call(Channel.basic_cancel, self._lane.tag)
            self._lane.tag = ""
        for tag in self._drop(deliveries):
            self._lane.tell(Channel.basic_nack, tag, requeue=True)

    def _drop(self, deliveries: Sequence[Delivery]) -> list[int]:
        """Return the tags of those deliveries that are held, and hold them no more."""
        tags = sorted({cast("int", delivery.handle) for delivery in deliveries} & self._held.keys())
        for tag in tags:
            del self._held[tag]
        return tags


def _handed_out(message: Message) -> Delivery:
    """Return a group's delivery. The broker tells the offset only of what was copied from the stream."""
    copied = message.header("x-stream-offset") is not None
    cursor = str(message.offset) if copied else str(message.properties.message_id)
    attempts = 1 + int(cast("int", message.header("x-delivery-count") or 0))
    return Delivery(message.body, cursor, attempts, message.tag)


async def _found(link: Link, queue: str, start: Start) -> None:
    """Make the queue of a group, unless it exists, with what there is from `start` on in it.

    An exchange says that this was finished: whoever dies before is followed by another, who begins again.
    An exclusive queue is the lock: it goes when its owner does.
    """
    made, declare = f"{queue}.made", Channel.exchange_declare
    while not (await link.has(queue) and await link.grants(declare, made, but=_MISSING, passive=True)):
        if await link.grants(Channel.queue_declare, f"{queue}.making", but=_LOCKED, exclusive=True):
            await _fill(link, queue, start)
            await (await link.lane()).call(declare, made, "fanout", durable=True, internal=True)
        else:
            await asyncio.sleep(_LOCK_SECONDS)


async def _fill(link: Link, queue: str, start: Start) -> None:
    """Copy what the stream holds, let the queue have what is published, then copy what came in between.

    What is published goes through an exchange of the group's own, at which a second queue hears it too: that
    says which of what came in between the group has already.
    """
    target, lane = link.place.target, await link.lane()
    heard, ear = await link.hear(queue, "fanout")
    await lane.call(Channel.queue_declare, queue, durable=True, arguments={"x-queue-type": "quorum"})
    await lane.call(Channel.queue_purge, queue)
    await lane.call(Channel.queue_bind, queue, queue, "#")
    await lane.call(Channel.exchange_declare, target, "topic", durable=True)
    span = await link.span(target)
    begin = await link.seek(start, span)
    await _copy(link, queue, begin, span.end, start if isinstance(start, datetime) else None)
    await lane.call(Channel.exchange_bind, queue, target, "#")
    end = (await link.span(target)).end
    await heard.call(Channel.queue_declare, ear, passive=True)  # the answer comes after what it has heard
    known = {message.properties.message_id for message in heard.here()}
    await _copy(link, queue, max(begin, span.end + 1), end, None, known)
    heard.tell(Channel.close)


async def _copy(
    link: Link, queue: str, start: int, end: int, since: datetime | None, known: Set[object] = frozenset()
) -> None:
    lane = await link.lane()
    async for messages in link.history(link.place.target, start, end):
        wanted = _since(since, messages)
        since = None if wanted else since
        fresh = (message for message in wanted if message.properties.message_id not in known)
        await lane.publish(queue, [(message.properties, message.body) for message in fresh])


# --- the backend --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Run:
    """What is known of an execution while the stream is read through."""

    first: Message
    last: Message
    sequence: int
    events: int = 1

    def summary(self) -> Summary | None:
        first, last = self.first.event(), self.last.event()
        return summary(first, last, self.events) if first and last else None


def _count(runs: dict[str, Run], message: Message) -> None:
    execution, sequence = message.about()
    if execution is None:
        return
    run = runs.setdefault(execution, Run(message, message, sequence))
    if sequence > run.sequence:  # or else it was appended again
        run.last, run.sequence, run.events = message, sequence, run.events + 1


class Backend:
    """See `base.Backend`."""

    def __init__(self, url: str, target: str, retention: Retention) -> None:
        self._place = _place(url, target, retention)
        self._dead = f"{target}.dead"

    def __repr__(self) -> str:
        return f"{type(self).__module__}.Backend({self._place.shown!r}, {self._place.target!r})"

    def writer(self) -> Writer:
        return Writer(self._place)

    async def read(self, execution_id: str, after: int) -> AsyncGenerator[Sequence[bytes]]:
        """See `base.Backend.read`. Reads all that came since the execution began, if its id tells when."""
        began = begun(execution_id)
        async with _linked(self._place) as link:
            span = await link.span(self._place.target)
            offset = await link.seek(began - _SKEW if began else "earliest", span)
            stream = await _stream(link, offset)
            doubtful = 0 < offset == span.start
            while True:
                got = await stream.take()
                mine = [message for message in got if message.about()[0] == execution_id]
                if doubtful and (mine or got[-1].offset >= span.end):
                    doubtful = False
                    _check(execution_id, after, front=span.first, found=mine)
                if mine:
                    yield [message.body for message in mine]

    @asynccontextmanager
    async def follow(self, start: Start, group: Group | None) -> AsyncGenerator[Subscription]:
        """See `base.Backend.follow`. A group may be at work with 256 events at a time per member."""
        target = self._place.target
        async with _linked(self._place) as link:
            if group is None:
                offset = await link.seek(start, await link.span(target))
                since = start if isinstance(start, datetime) else None
                yield Alone(await _stream(link, offset), offset, since)
            else:
                queue = _named(f"{target}.{group.name}")
                await _found(link, queue, start)
                yield Member(await link.consume(queue, prefetch=_PREFETCH_GROUP), queue)

    async def executions(self, limit: int) -> Sequence[Summary]:
        """See `base.Backend.executions`. There is no index: this reads the whole stream."""
        runs: dict[str, Run] = {}
        async with _linked(self._place) as link:
            span = await link.span(self._place.target)
            async for messages in link.history(self._place.target, span.start, span.end):
                for message in messages:
                    _count(runs, message)
        latest = islice(reversed(runs.values()), limit)
        return [listed for run in latest if (listed := run.summary())]

    async def bury(self, letter: DeadLetter) -> None:
        """See `base.Backend.bury`."""
        properties = BasicProperties(content_type="application/json", delivery_mode=2)
        async with _linked(self._place) as link:
            lane = await link.lane()
            await lane.call(Channel.queue_declare, self._dead, durable=True, arguments=_DEAD_ARGUMENTS)
            await lane.publish(self._dead, [(properties, encode_letter(letter))])

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        """See `base.Backend.dead_letters`."""
        letters: list[DeadLetter] = []
        async with _linked(self._place) as link:
            span = await link.span(self._dead)
            start = max(span.start, span.end + 1 - limit)
            async for messages in link.history(self._dead, start, span.end):
                letters += [decode_letter(message.body) for message in messages]
        return letters[::-1]


def _check(execution_id: str, after: int, *, front: Message | None, found: Sequence[Message]) -> None:
    """Raise if events above `after` were cut off a stream that now begins at `front`."""
    began, oldest = begun(execution_id), front and front.event()
    if found:
        first = found[0].about()[1]
        if 0 != first > after + 1:
            raise EventsExpired(f"Events of {execution_id!r:.80} before {first} have been cut.", first)
    elif began and oldest and began < oldest.timestamp:
        raise EventsExpired(f"The events of {execution_id!r:.80} have been cut.")
