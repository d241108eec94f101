"""Connections to RabbitMQ by pika: `Line` is driven by the thread that uses it, `Link` by an event loop."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache, partial
from itertools import batched
from time import monotonic
from typing import Any, NamedTuple, cast
from uuid import uuid4

from pika import BasicProperties, frame, spec
from pika import exceptions as amqp
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.select_connection import IOLoop, SelectConnection
from pika.adapters.utils import connection_workflow as workflow
from pika.channel import Channel

from streamll.core.events import Event, decode
from streamll.errors import BadEvent, Refused, StreamllError, Unreachable
from streamll.transports._rabbitmq_place import MISSING, OTHERWISE, Place, code
from streamll.transports.base import Entry

logger = logging.getLogger("streamll")

_SLICE = 512  # at most two of these are unconfirmed: a stream is stored in chunks, which want to be full
_CLOSE_SECONDS = 2.0

type Offset = int | str | datetime
"""A place in a stream: a number, "first", "last" or a moment; the last two begin where a chunk does."""


# --- pika, quiet and closable -------------------------------------------------------------------------------

_ours: ContextVar[bool] = ContextVar("streamll_rabbitmq", default=False)


def _of_others(_: logging.LogRecord) -> bool:
    return not _ours.get()


# pika logs each failed connection several times at ERROR. Ours end in an exception that says it once.
for _name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "pika"]:
    logging.getLogger(_name).addFilter(_of_others)


@contextmanager
def calling(place: Place) -> Generator[None]:
    """Keep pika quiet, also in what it schedules meanwhile, and turn its errors into ours."""
    token = _ours.set(True)
    try:
        yield
    except StreamllError:
        raise
    except (amqp.AMQPError, workflow.AMQPConnectorException, OSError) as error:
        raise place.error(error) from error
    finally:
        _ours.reset(token)


def _farewell(connection: Any, *, polite: bool) -> None:
    """Begin to close a connection: in order if it is open and `polite`, or else without asking the server."""
    transport = connection._transport
    if not connection.is_closed and (transport is None or (polite and connection.is_open)):
        connection.close()  # which trips over itself (1.4.4) while AMQP is being negotiated
    elif transport is not None and transport._state == transport._STATE_ACTIVE:
        transport._initiate_abort(ConnectionAbortedError("given up"))


def ignore(*_: object) -> None:
    pass


# --- messages -----------------------------------------------------------------------------------------------


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


class Confirms:
    """What was published on a channel that the broker has not answered for yet."""

    def __init__(self) -> None:
        self.sent = 0
        self.open = set[int]()
        self.refused = False

    def expect(self, number: int) -> None:
        self.open.update(range(self.sent + 1, self.sent + number + 1))
        self.sent += number

    def heard(self, reply: Any) -> None:
        """Note an answer, which is about one message or about all up to it."""
        tag = reply.method.delivery_tag
        self.open -= {one for one in self.open if one <= tag} if reply.method.multiple else {tag}
        self.refused |= isinstance(reply.method, spec.Basic.Nack)


# --- on the calling thread ----------------------------------------------------------------------------------


class Line:
    """A connection with one confirming channel."""

    def __init__(self, place: Place) -> None:
        self.lost: BaseException | None = None
        self._place = place
        self._confirms = Confirms()
        self._blocked: str | None = None
        self._channel: Any = None
        self._loop: Any = IOLoop()
        self._connection: Any = SelectConnection(
            place.parameters, ignore, self._on_end, self._on_end, custom_ioloop=self._loop
        )
        self._connection.add_on_connection_blocked_callback(self._on_blocked)
        self._connection.add_on_connection_unblocked_callback(self._on_blocked)

    def open(self) -> None:
        """Connect, and declare what is written to: as it should be, or else as it is."""
        self.until(lambda: self._connection.is_open)
        try:
            self._declare(durable=True, arguments=self._place.arguments)
        except Refused as error:
            if code(error) != OTHERWISE:
                raise
            self.lost = None
            self._declare(passive=True)
            logger.warning("%s The log is used as it is, with the retention it was made with.", error)

    def _declare(self, **options: object) -> None:
        target, answers = self._place.target, list[object]()
        self._channel = self._connection.channel(on_open_callback=answers.append)
        self._channel.add_on_close_callback(self._on_end)
        self.until(lambda: len(answers) == 1)
        self._channel.exchange_declare(target, "topic", durable=True, callback=ignore)
        self._channel.queue_declare(target, **options, callback=ignore)
        self._channel.queue_bind(target, target, "#", callback=ignore)
        self._channel.confirm_delivery(self._confirms.heard, answers.append)
        self.until(lambda: len(answers) == 2)

    def append(self, entries: Sequence[Entry]) -> None:
        for piece in batched(entries, _SLICE, strict=False):
            frames = _frames(
                piece,
                number=self._channel.channel_number,
                exchange=self._place.target,
                max_bytes=self._connection.params.frame_max - 8,
            )
            # in one piece: a system call for each frame is what makes `basic_publish` slow
            self._connection._output_marshaled_frames([b"".join(frames)])
            self._confirms.expect(len(piece))
            self.until(lambda: len(self._confirms.open) <= _SLICE)
        self.until(lambda: not self._confirms.open)
        if self._confirms.refused:
            raise self._place.nack()

    def until(self, done: Callable[[], bool], seconds: float | None = None) -> None:
        """Let pika work until `done`."""
        seconds = self._place.seconds if seconds is None else seconds
        deadline = monotonic() + seconds
        alarm = self._loop.call_later(seconds, ignore)
        self._loop.activate_poller()
        try:
            while not done():
                if self.lost is not None:
                    raise self._place.error(self.lost)
                self._loop.poll()
                self._loop.process_timeouts()
                if monotonic() >= deadline and not done():
                    raise self._place.silence(self._blocked or "")
        finally:
            self._loop.deactivate_poller()
            self._loop.remove_timeout(alarm)

    def close(self) -> None:
        """Say goodbye, and hang up when nobody listens."""
        with suppress(StreamllError):
            _farewell(self._connection, polite=True)
            self.until(lambda: self._connection.is_closed, _CLOSE_SECONDS)
        self.hang_up()

    def hang_up(self) -> None:
        try:
            _farewell(self._connection, polite=False)
            self._loop.process_timeouts()
        finally:
            self._loop.close()

    def forget(self) -> None:
        """Close the sockets of this process alone: a shutdown would reach the parent's."""
        transport, poller = self._connection._transport, self._loop._poller
        mine = (transport and transport._sock, poller._r_interrupt, poller._w_interrupt)
        for socket in filter(None, mine):
            socket.close()

    def _on_end(self, _: object, reason: BaseException) -> None:
        self.lost = reason

    def _on_blocked(self, _: object, reply: Any) -> None:
        reason = getattr(reply.method, "reason", None)  # none when that is over
        self._blocked = reason and f": it takes nothing from publishers ({reason})"


# --- on an event loop ---------------------------------------------------------------------------------------


class _Awaited:
    """Something of pika's whose callbacks wake who waits for what they tell."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._lost: BaseException | None = None
        self._news = asyncio.Event()

    async def until(self, done: Callable[[], object], seconds: float | None) -> None:
        """Wait for something that a callback makes true."""
        try:
            async with asyncio.timeout(seconds):
                while not done():
                    if self._lost is not None:
                        raise self.place.error(self._lost)
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise self.place.silence() from None

    def _wake(self, *_: object) -> None:
        self._news.set()

    def _end(self, _: object, reason: BaseException) -> None:
        self._lost = reason
        self._wake()


class Lane(_Awaited):
    """A channel, with the messages that have come in on it."""

    def __init__(self, place: Place, connection: AsyncioConnection) -> None:
        super().__init__(place)
        self.tag = ""
        self._confirms = Confirms()
        self._inbox: list[Message] = []
        self.raw: Any = connection.channel(on_open_callback=self._wake)
        self.raw.add_on_close_callback(self._end)
        self.raw.add_on_cancel_callback(partial(self._end, reason=ConnectionError("the queue was deleted")))

    async def call(self, method: Callable[..., object], *values: object, **options: object) -> Any:
        """Call a method of pika's channel, and return what the broker answers."""
        answers: list[Any] = []

        def answered(reply: object) -> None:
            answers.append(reply)
            self._wake()

        self.tell(method, *values, **options, callback=answered)
        await self.until(lambda: answers, self.place.seconds)
        return answers[0]

    def tell(self, method: Callable[..., object], *values: object, **options: object) -> None:
        """Call a method of pika's channel that is not answered, or not waited for."""
        with calling(self.place):
            method(self.raw, *values, **options)

    async def consume(self, queue: str, *, prefetch: int, offset: Offset | None = None) -> "Lane":
        """Let messages of `queue` come in."""
        self.tag = uuid4().hex
        options = {} if offset is None else {"arguments": {"x-stream-offset": offset}}
        await self.call(Channel.basic_qos, prefetch_count=prefetch)
        await self.call(Channel.basic_consume, queue, self._on_message, consumer_tag=self.tag, **options)
        return self

    async def take(self) -> Sequence[Message]:
        """Wait for messages, and return all that are here."""
        await self.until(lambda: self._inbox, None)
        return self.here()

    async def take_on(self) -> Sequence[Message]:
        """Take messages of a stream, and have more of them sent."""
        got = await self.take()
        self.tell(Channel.basic_ack, got[-1].tag, multiple=True)
        return got

    def here(self) -> Sequence[Message]:
        """Return the messages that have come so far."""
        got, self._inbox = self._inbox, []
        return got

    async def publish(self, queue: str, messages: Sequence[Message]) -> None:
        """Put messages into a queue, and return when the broker has stored them."""
        if not self._confirms.sent:
            await self.call(Channel.confirm_delivery, self._on_confirm)
        self._confirms.expect(len(messages))
        for message in messages:
            self.tell(Channel.basic_publish, "", queue, message.body, message.properties)
        await self.until(lambda: not self._confirms.open, self.place.seconds)
        if self._confirms.refused:
            raise self.place.nack()

    def _on_message(self, _: object, delivery: Any, properties: BasicProperties, body: bytes) -> None:
        self._inbox.append(Message(delivery.delivery_tag, properties, body))
        self._wake()

    def _on_confirm(self, reply: Any) -> None:
        self._confirms.heard(reply)
        self._wake()


class Link(_Awaited):
    """A connection, and its channels."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        with calling(place):
            self.connection = AsyncioConnection(
                place.parameters, self._wake, self._end, self._end, asyncio.get_running_loop()
            )

    async def close(self) -> None:
        """Say goodbye, and hang up when nobody listens."""
        try:
            with suppress(Unreachable), calling(self.place):
                _farewell(self.connection, polite=True)
                await self.until(lambda: self._lost, _CLOSE_SECONDS)
        finally:
            if self._lost is None:
                _farewell(self.connection, polite=False)

    async def lane(self) -> Lane:
        with calling(self.place):
            lane = Lane(self.place, self.connection)
        await lane.until(lambda: lane.raw.is_open, self.place.seconds)
        return lane

    async def consume(self, queue: str, *, prefetch: int, offset: Offset | None = None) -> Lane:
        return await (await self.lane()).consume(queue, prefetch=prefetch, offset=offset)

    async def grants(self, method: Callable[..., object], name: str, *, but: int, **options: object) -> bool:
        """Call on a channel of its own; False if the broker closes that with the code `but`."""
        lane = await self.lane()
        try:
            await lane.call(method, name, **options)
        except StreamllError as error:
            if code(error) != but or "inaccessible" in str(error):  # 404 as well, while a node starts
                raise
            return False
        lane.tell(Channel.close)
        return True

    async def has(self, queue: str) -> bool:
        return await self.grants(Channel.queue_declare, queue, but=MISSING, passive=True)


@asynccontextmanager
async def linked(place: Place) -> AsyncGenerator[Link]:
    """Connect for as long as the context lasts."""
    link = Link(place)
    try:
        await link.until(lambda: link.connection.is_open, place.seconds)
        yield link
    finally:
        await link.close()
