"""A group in RabbitMQ: a quorum queue that was founded with what the stream held, and its members."""

import asyncio
from collections.abc import Sequence
from math import inf
from typing import cast

from pika.channel import Channel

from streamll.transports._rabbitmq_place import LOCKED, MISSING
from streamll.transports._rabbitmq_streams import hear, history, seek, span
from streamll.transports._rabbitmq_wire import Lane, Link, Message
from streamll.transports.base import Delivery, Start

_PREFETCH = 256
_LOCK_SECONDS = 0.05


async def join(link: Link, queue: str, start: Start) -> "Member":
    """Become a member of the group that has this queue, and found it if nobody has.

    An exchange says that this was finished: whoever dies before is followed by another, who begins again.
    An exclusive queue is the lock: it goes when its owner does.
    """
    made, declare = f"{queue}.made", Channel.exchange_declare
    while not (await link.has(queue) and await link.grants(declare, made, but=MISSING, passive=True)):
        if await link.grants(Channel.queue_declare, f"{queue}.making", but=LOCKED, exclusive=True):
            await _found(link, queue, start)
            await (await link.lane()).call(declare, made, "fanout", durable=True, internal=True)
        else:
            await asyncio.sleep(_LOCK_SECONDS)
    return Member(await link.consume(queue, prefetch=_PREFETCH), queue)


async def _found(link: Link, queue: str, start: Start) -> None:
    """Copy what the stream holds, let the queue have what is published, then copy what came in between.

    What is published goes through an exchange of the group's own, at which a second queue hears it too: that
    says which of what came in between the group has already.
    """
    target, lane = link.place.target, await link.lane()
    heard, ear = await hear(link, queue, "fanout")
    await lane.call(Channel.queue_declare, queue, durable=True, arguments={"x-queue-type": "quorum"})
    await lane.call(Channel.queue_purge, queue)
    await lane.call(Channel.queue_bind, queue, queue, "#")
    await lane.call(Channel.exchange_declare, target, "topic", durable=True)
    before = await span(link, target)
    async for messages in history(link, target, await seek(link, start, before), before.end):
        await lane.publish(queue, messages)
    await lane.call(Channel.exchange_bind, queue, target, "#")
    after = await span(link, target)
    await heard.call(Channel.queue_declare, ear, passive=True)  # the answer comes after what it has heard
    known = {message.properties.message_id for message in heard.here()}
    async for messages in history(link, target, before.end + 1, after.end):
        await lane.publish(queue, [one for one in messages if one.properties.message_id not in known])
    heard.tell(Channel.close)


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
            await self._lane.consume(self._queue, prefetch=_PREFETCH)
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
