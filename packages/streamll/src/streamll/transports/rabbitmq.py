"""RabbitMQ: a topic exchange that anybody may bind a queue to, and a stream queue that keeps what it gets.

Exchange and stream are called as the target; a group is a quorum queue `<target>.<group>`, dead letters are a
stream `<target>.dead`. The routing key is `<event type>.<module or operation>`: `token.#` is all tokens.
Needs RabbitMQ 3.9, for streams, and no plugin: everything goes over AMQP 0-9-1.

A stream is cut from the front, whole segments at a time: `Retention.age` and `.bytes` hold roughly, `.events`
and `.abandoned` not at all, and an execution that has not ended is cut like any other.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from pika import BasicProperties
from pika.channel import Channel

from streamll.errors import EventsExpired, Unreachable
from streamll.transports._rabbitmq_groups import join
from streamll.transports._rabbitmq_place import TRIES, Place, is_unfinished, named, place
from streamll.transports._rabbitmq_streams import Alone, entered, history, near, seek, span
from streamll.transports._rabbitmq_wire import Line, Message, calling, linked
from streamll.transports.base import (
    DeadLetter,
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
)

_SKEW = timedelta(seconds=30)  # how far the clocks of a program and of the broker may be apart
_DEAD_ARGUMENTS: Mapping[str, object] = {
    "x-queue-type": "stream",  # and no classic queue: everybody sees all letters, and nobody takes them away
    "x-max-length-bytes": 64_000_000,
    "x-stream-max-segment-size-bytes": 16_000_000,
}


class Writer:
    """See `base.Writer`; what it promises, `Line` does."""

    pace = 0.0

    def __init__(self, place: Place) -> None:
        self._place = place
        self._line: Line | None = None

    def append(self, entries: Sequence[Entry]) -> None:
        self.rest()  # notices a connection that the server has cut meanwhile
        for left in reversed(range(TRIES)):
            try:
                with calling(self._place):
                    return self._store(entries)
            except BaseException as error:
                self._end(Line.hang_up)
                if not (left and is_unfinished(error)):
                    raise

    def _store(self, entries: Sequence[Entry]) -> None:
        if self._line is None:
            self._line = Line(self._place)
            self._line.open()
        self._line.append(entries)

    def rest(self) -> None:
        if self._line is not None:
            with suppress(Exception), calling(self._place):
                self._line.until(lambda: False, 0)  # answers what has come in, and sends heartbeats
            if self._line.lost is not None:
                self._end(Line.hang_up)

    def close(self) -> None:
        self._end(Line.close)

    def abandon(self) -> None:
        self._end(Line.forget)

    def _end(self, how: Callable[[Line], None]) -> None:
        line, self._line = self._line, None
        if line is not None:
            with suppress(Exception), calling(self._place):
                how(line)


class Backend:
    """See `base.Backend`."""

    def __init__(self, url: str, target: str, retention: Retention) -> None:
        self._place = place(url, target, retention)
        self._dead = f"{target}.dead"

    def __repr__(self) -> str:
        return f"{type(self).__module__}.Backend({self._place.shown!r}, {self._place.target!r})"

    def writer(self) -> Writer:
        return Writer(self._place)

    async def read(self, execution_id: str, after: int) -> AsyncGenerator[Sequence[bytes]]:
        """See `base.Backend.read`. Reads all that came since the execution began, if its id tells when."""
        began = begun(execution_id)
        async with linked(self._place) as link:
            yield ()
            held = await span(link, self._place.target)
            offset = await near(link, began - _SKEW, held) if began else held.start
            lane = await entered(link, offset)
            doubtful = 0 < offset == held.start
            while True:
                got = await lane.take_on()
                mine = [message for message in got if message.about()[0] == execution_id]
                if doubtful and (mine or got[-1].offset >= held.end):
                    doubtful = False
                    _check(execution_id, after, front=held.first, found=mine)
                if mine:
                    yield [message.body for message in mine]

    @asynccontextmanager
    async def follow(self, start: Start, group: Group | None) -> AsyncGenerator[Subscription]:
        """See `base.Backend.follow`. A group may be at work with 256 events at a time per member."""
        target = self._place.target
        async with linked(self._place) as link:
            if group is None:
                held = await span(link, target)
                offset = await seek(link, start, held)
                yield Alone(link, await entered(link, offset) if held.first else None, offset)
            else:
                yield await join(link, named(f"{target}.{group.name}"), start)

    async def executions(self, limit: int) -> Sequence[Summary]:
        """See `base.Backend.executions`. There is no index: this reads the whole stream."""
        runs: dict[str, _Run] = {}
        async with linked(self._place) as link:
            held = await span(link, self._place.target)
            async for messages in history(link, self._place.target, held.start, held.end):
                for message in messages:
                    _count(runs, message)
        latest = islice(reversed(runs.values()), limit)
        return [listed for run in latest if (listed := run.summary())]

    async def bury(self, letter: DeadLetter) -> None:
        """See `base.Backend.bury`."""
        properties = BasicProperties(content_type="application/json", delivery_mode=2)
        message = Message(0, properties, encode_letter(letter))
        for left in reversed(range(TRIES)):
            try:
                async with linked(self._place) as link:
                    lane, declare = await link.lane(), Channel.queue_declare
                    await lane.call(declare, self._dead, durable=True, arguments=_DEAD_ARGUMENTS)
                    return await lane.publish(self._dead, [message])
            except Unreachable as error:
                if not (left and is_unfinished(error)):
                    raise

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        """See `base.Backend.dead_letters`."""
        letters: list[DeadLetter] = []
        async with linked(self._place) as link:
            held = await span(link, self._dead)
            start = max(held.start, held.end + 1 - limit)
            async for messages in history(link, self._dead, start, held.end):
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


@dataclass(slots=True)
class _Run:
    """What is known of an execution while the stream is read through."""

    first: Message
    last: Message
    sequence: int
    events: int = 1

    def summary(self) -> Summary | None:
        first, last = self.first.event(), self.last.event()
        return summary(first, last, self.events) if first and last else None


def _count(runs: dict[str, _Run], message: Message) -> None:
    execution, sequence = message.about()
    if execution is None:
        return
    run = runs.setdefault(execution, _Run(message, message, sequence))
    if sequence > run.sequence:  # or else it was appended again
        run.last, run.sequence, run.events = message, sequence, run.events + 1
