"""Events in a NATS JetStream stream: `<prefix>.<program>.<execution_id>`, a message an event.

The stream is named after the target and `prefix` too, except that the default target's is `streamll`. What a
name of NATS cannot hold is written `=2E`. An event above the server's `max_payload` is an empty message whose
header `Streamll-Parts` lists the sequences of its parts, which are stored under `<its subject>.part`.
Beside the stream are two small ones: `<name>_dead` keeps dead letters, `<name>_expired` says what was cut.

Writing, and asking the server, needs no event loop: it is a blocking socket. Listening is nats-py's.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from secrets import token_hex

from streamll.core.events import Event, decode, encode
from streamll.errors import EventsExpired
from streamll.transports._nats_feed import listening
from streamll.transports._nats_followers import Alone, Shared, follow_from, join
from streamll.transports._nats_log import Log, event_of
from streamll.transports._nats_place import place_of
from streamll.transports._nats_wire import Wire
from streamll.transports._nats_writer import Writer
from streamll.transports.base import (
    DeadLetter,
    Group,
    Retention,
    Start,
    Subscription,
    Summary,
    decode_letter,
    encode_letter,
    summary,
)

_DEAD_LETTERS = 10_000


class Backend:
    """A log in a NATS server with JetStream: `nats://[user:password@ or token@]host[:4222][?timeout=10]`."""

    def __init__(self, url: str, target: str, retention: Retention) -> None:
        self.log = Log(place_of(url), target)
        self._retention = retention

    def __repr__(self) -> str:
        return f"{type(self).__module__}.Backend({self.log.place.shown!r}, {self.log.stream!r})"

    def writer(self) -> Writer:
        return Writer(self.log, self._retention)

    async def read(self, execution_id: str, after: int) -> AsyncGenerator[Sequence[bytes]]:
        log = self.log
        expired, prepare = log.expired(execution_id), partial(_read_from, log, execution_id)
        async with listening(log.place, prepare, expired) as (feed, cut):
            if cut is not None and after < cut.sequence:
                raise _expired(execution_id)
            if cut is not None and cut.is_last:
                yield [encode(cut)]
            yield ()
            while True:
                messages = await feed.take()
                bodies = [await log.body(one) for one in messages if one.subject != expired]
                if bodies:
                    yield bodies
                if len(bodies) < len(messages):
                    raise _expired(execution_id)

    @asynccontextmanager
    async def follow(self, start: Start, group: Group | None) -> AsyncGenerator[Subscription]:
        log = self.log
        if group is None:
            async with listening(log.place, partial(follow_from, log, start)) as (feed, at):
                yield Alone(log, feed, at)
            return
        async with listening(log.place, partial(join, log, start, group)) as (feed, durable):
            shared = Shared(log, feed, durable)
            try:
                yield shared
            finally:
                await shared.leave()

    async def executions(self, limit: int) -> Sequence[Summary]:
        return await asyncio.to_thread(self._executions, limit)

    def _executions(self, limit: int) -> Sequence[Summary]:
        log = self.log
        with log.wire() as wire:
            runs = log.runs(wire)
            earliest = runs[-limit].began if limit < len(runs) else None
            runs = [run for run in runs if earliest is None or run.began >= earliest]
            ends = wire.stored(log.stream, [log.last_of(run) for run in runs])
            subjects = [subject for run in runs for subject in run.events]
            asked = [{"seq": 1, "next_by_subj": subject} for subject in subjects]
            starts = dict(zip(subjects, wire.stored(log.stream, asked), strict=True))
        listed = [
            summary(first, last, run.number)
            for run, end in zip(runs, ends, strict=True)
            if (first := event_of(min(filter(None, map(starts.get, run.events)), default=None)))
            and (last := event_of(end))
        ]
        return sorted(listed, key=lambda one: one.started, reverse=True)[:limit]

    async def bury(self, letter: DeadLetter) -> None:
        await asyncio.to_thread(self._bury, encode_letter(letter))

    def _bury(self, body: bytes) -> None:
        stream, subject = f"{self.log.stream}_dead", f"{self.log.prefix}_dead"
        with self.log.wire() as wire:
            wire.ensured(stream, subjects=[subject, f"{subject}.part"], max_msgs=_DEAD_LETTERS)
            wire.publish([wire.message(subject, token_hex(16), body)])

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        return await asyncio.to_thread(self._dead_letters, limit)

    def _dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        letters: list[DeadLetter] = []
        stream = f"{self.log.stream}_dead"
        with self.log.wire() as wire:
            if (info := wire.ask(f"STREAM.INFO.{stream}")) is None:
                return letters
            first, last = info["state"]["first_seq"], info["state"]["last_seq"]
            while len(letters) < limit and last >= first:
                page = [{"seq": seq} for seq in range(last, max(first, last - limit + 1) - 1, -1)]
                found = wire.stored(stream, page)
                letters += [decode_letter(one.body) for one in found if one and "." not in one.subject]
                last -= limit
        return letters[:limit]


def _read_from(log: Log, execution_id: str, wire: Wire, inbox: str) -> Event | None:
    """Have an execution sent to `inbox`; return what was left in its place if it was cut."""
    log.ensured(wire)
    last = {"last_by_subj": log.expired(execution_id)}
    cut = wire.stored(f"{log.stream}_expired", [last])[0]
    log.consume(wire, inbox, filter_subject=log.all_of(execution_id), deliver_policy="all")
    return decode(cut.body) if cut else None


def _expired(execution_id: str) -> EventsExpired:
    return EventsExpired(f"{execution_id!r:.80} was cut by retention; read executions sooner, or keep more")
