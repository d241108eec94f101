"""A stream of RabbitMQ: from where to where it goes, what is in it, and following it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from datetime import datetime
from typing import NamedTuple

from pika.channel import Channel

from streamll.errors import EventsExpired, Unreachable
from streamll.transports._rabbitmq_wire import Lane, Link, Message, Offset, ignore
from streamll.transports.base import Delivery, Start

_PREFETCH = 1000
_CHUNK = 60_000  # more messages than a chunk has


class Span(NamedTuple):
    """What a stream holds: its first message, and the offset of its last one."""

    first: Message | None
    end: int

    @property
    def start(self) -> int:
        return self.first.offset if self.first else 0


async def span(link: Link, stream: str) -> Span:
    """Return where a stream begins and ends, at the time of asking; one that is not there is empty."""
    last = await _peek(link, stream, "last", _CHUNK) if await link.has(stream) else ()
    first = await _peek(link, stream, "first") if last else ()
    return Span(first[0], last[-1].offset) if first and last else Span(None, -1)


async def _peek(link: Link, stream: str, offset: Offset, prefetch: int = 1) -> Sequence[Message]:
    """Return the messages there are at a place of a stream; none if there are none yet.

    Nothing says that a stream is empty. But joining a second consumer asks the stream's process, which by
    then has told the channel what the first one may have: that is sent before the next answer.
    """
    lane = await link.consume(stream, prefetch=prefetch, offset=offset)
    await lane.call(Channel.basic_consume, stream, ignore, arguments={"x-stream-offset": "next"})
    await lane.call(Channel.basic_qos, prefetch_count=prefetch)
    lane.tell(Channel.close)
    return lane.here()


async def near(link: Link, moment: datetime, held: Span) -> int:
    """Return where the chunk of the moment begins: a stream is entered at a chunk."""
    found = await _peek(link, link.place.target, moment) if held.first else ()
    return found[0].offset if found else held.end + 1


async def seek(link: Link, start: Start, held: Span) -> int:
    """Return the offset of the first message that `start` means, which may be yet to come."""
    match start:
        case "latest":
            return held.end + 1
        case "earliest":
            return held.start
        case str():
            return _after(start, held)
        case datetime():
            chunk = await near(link, start, held)
            async with aclosing(history(link, link.place.target, chunk, held.end)) as pages:
                late = (one.offset async for page in pages for one in page if not _before(start, one))
                return await anext(late, held.end + 1)


def _before(moment: datetime, message: Message) -> bool:
    event = message.event()
    return event is not None and event.timestamp < moment


def _after(cursor: str, held: Span) -> int:
    if not (cursor == "-1" or cursor.isdecimal()):
        raise ValueError(f"{cursor!r:.80} is no cursor of RabbitMQ; expected an offset in its stream.")
    if not held.start - 1 <= int(cursor) <= held.end:
        message = f"What came after {cursor} is gone: the stream holds {held.start} to {held.end}."
        raise EventsExpired(message, str(held.start - 1))
    return int(cursor) + 1


async def history(link: Link, stream: str, start: int, end: int) -> AsyncGenerator[Sequence[Message]]:
    """Yield the messages of a stream from the offset `start` to the offset `end`."""
    if start > end:
        return
    lane = await link.consume(stream, prefetch=_PREFETCH, offset=start)
    try:
        while start <= end:
            got = await lane.take_on()
            start = got[-1].offset + 1
            yield [message for message in got if message.offset <= end]
    finally:
        with suppress(Unreachable):  # is told by `take_on`, if it matters
            lane.tell(Channel.close)


async def entered(link: Link, offset: int) -> Lane:
    """Return a channel with what the target's stream has from `offset` on; waits until there is a stream.

    It is not declared here: what it keeps is for the first writer to say, and cannot be changed.
    """
    target = link.place.target
    if not await link.has(target):
        heard, _ = await hear(link, target, "topic")
        while not await link.has(target):
            await heard.take()
        heard.tell(Channel.close)
    return await link.consume(target, prefetch=_PREFETCH, offset=offset)


async def hear(link: Link, exchange: str, kind: str) -> tuple[Lane, str]:
    """Return a channel on which all comes in that is published from now on, and the queue of that."""
    lane = await link.lane()
    ear = (await lane.call(Channel.queue_declare, "", exclusive=True, auto_delete=True)).method.queue
    await lane.call(Channel.exchange_declare, exchange, kind, durable=True)
    await lane.call(Channel.queue_bind, ear, exchange, "#")
    return await lane.consume(ear, prefetch=0), ear


class Alone:
    """A `Subscription` to everything, by offset."""

    def __init__(self, link: Link, lane: Lane | None, offset: int) -> None:
        self._link = link
        self._lane = lane
        self._next = offset

    @property
    def cursor(self) -> str:
        return str(self._next - 1)

    async def next(self) -> Sequence[Delivery]:
        self._lane = self._lane or await entered(self._link, self._next)
        got = await self._lane.take_on()
        if got[0].offset > self._next:
            message = f"The stream was cut from {self._next} to {got[0].offset} before that was read."
            raise EventsExpired(message, str(got[0].offset - 1))
        self._next = got[-1].offset + 1
        return [Delivery(message.body, str(message.offset)) for message in got]

    async def settle(self, deliveries: Sequence[Delivery]) -> None: ...

    renew = release = settle
