"""Followers of a log in NATS: one who gets everything, and the members of a group, who share a consumer."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
from nats.aio.msg import Msg

from streamll.errors import EventsExpired, Refused, StreamllError
from streamll.transports._nats_feed import Feed, status_of
from streamll.transports._nats_log import Log
from streamll.transports._nats_wire import Wire, token
from streamll.transports.base import Delivery, Group, Start

_PAGE = 256


def follow_from(log: Log, start: Start, wire: Wire, inbox: str) -> int | None:
    """Have what comes after `start` sent to `inbox`; return the sequence before it, if it is known."""
    state = log.ensured(wire)
    start = str(state["last_seq"]) if start == "latest" else start
    at = int(start) if isinstance(start, str) and start != "earliest" else None
    if at is not None:
        _check_cursor(at, state)
    log.consume(wire, inbox, **_deliver(start))
    return at


def join(log: Log, start: Start, group: Group, wire: Wire, inbox: str) -> str:
    """Return the name of the group's consumer, which is made when it is not there."""
    name, wait = token(group.name), int(group.claim_after.total_seconds() * 1e9)
    known = f"CONSUMER.INFO.{log.stream}.{name}"
    create = f"CONSUMER.DURABLE.CREATE.{log.stream}.{name}"
    config = {"durable_name": name, "ack_policy": "explicit", "ack_wait": wait, "max_ack_pending": -1}
    config |= {"filter_subject": f"{log.prefix}.*.*", "max_deliver": -1, **_deliver(start)}
    log.ensured(wire)
    if (found := wire.ask(known)) is None:
        try:
            wire.ask(create, stream_name=log.stream, config=config)
        except Refused:  # another member was quicker, and began elsewhere
            if wire.ask(known) is None:
                raise
    elif found["config"]["ack_wait"] != wait:
        wire.ask(create, stream_name=log.stream, config=found["config"] | {"ack_wait": wait})
    return name


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


class Alone:
    """Follows everything; what it gets is contiguous, so a hole is what retention has cut."""

    def __init__(self, log: Log, feed: Feed, at: int | None) -> None:
        self._log = log
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
                    got.append(Delivery(await self._log.body(message), str(seq)))
                at, taken = seq, taken + 1
            self._at, self._next = at, messages[taken:]  # not before: who cancels loses nothing
        return got

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        return

    renew = release = settle


class Shared:
    """A member of a group. It asks for what there is; when there is nothing, for one, which it waits for."""

    cursor = None

    def __init__(self, log: Log, feed: Feed, durable: str) -> None:
        self._log = log
        self._feed = feed
        self._more = f"$JS.API.CONSUMER.MSG.NEXT.{log.stream}.{durable}"
        self._held: list[Msg] = []

    async def next(self) -> Sequence[Delivery]:
        while not self._held:
            await self._pull(batch=_PAGE, no_wait=True)
            if not self._held:
                beat = self._log.beat
                await self._pull(batch=1, expires=3 * beat, idle_heartbeat=beat)
        got = [
            Delivery(
                await self._log.body(one),
                str(one.metadata.sequence.stream),
                one.metadata.num_delivered,
                one.reply,
            )
            for one in self._held
        ]
        self._held = []
        return got

    async def _pull(self, **request: int) -> None:
        await self._feed.say([(self._more, msgspec.json.encode(request))], reply=self._feed.inbox)
        while len(self._held) < request["batch"]:
            messages = await self._feed.take()
            self._held += [one for one in messages if status_of(one) is None]
            if ends := [one for one in messages if status_of(one) is not None]:
                if status_of(ends[-1]) not in ("404", "408"):  # no messages, request timeout
                    raise self._log.place.trouble(f"the group's consumer is gone: {ends[-1].headers}")
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
