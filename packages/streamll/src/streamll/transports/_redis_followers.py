"""Followers of the firehose in Redis: one who sees everything, and members of a group who share it."""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

from streamll.errors import StreamllError
from streamll.transports._redis_places import NOTHING, Rows, expired, gap, id_of, milliseconds, rows_of
from streamll.transports._redis_scripts import Keys, Value
from streamll.transports._redis_server import Link
from streamll.transports.base import Delivery, Group, Page

_PAGE = 512
_SUSPECT = 3  # at the third attempt
_CLAIM_SECONDS = 1.0  # Redis does not wake anybody for what became claimable

logger = logging.getLogger("streamll")


class Alone:
    """A follower that sees everything."""

    def __init__(self, link: Link, keys: Keys, block: int, cursor: str) -> None:
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
            if lost := expired(self.cursor, cut, log):
                raise lost
            if rows := rows_of(found):
                self.cursor = rows[-1][0].decode()
                return [Delivery(fields[1], entry_id.decode()) for entry_id, fields in rows]

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        return

    renew = release = settle


class Member:
    """A member of a group. What it holds is claimed by others when it has been idle, as Redis calls it."""

    cursor = None

    def __init__(self, link: Link, spare: Link, keys: Keys, block: int, group: Group) -> None:
        self._link = link
        self._spare = spare  # `next` may be waiting on the other one
        self._keys = keys
        self._block = block
        self._group = group
        self._idle = milliseconds(group.claim_after)
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
            deliveries = [Delivery(fields[1], entry_id.decode()) for entry_id, fields in rows_of(found)]
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
        # Members died of one of the others, perhaps: the next one shall not take its neighbours with it.
        chosen = [row for row in pending if row[3] < _SUSPECT - 1] or pending[:1]
        if len(chosen) < len(pending):
            self._claim_at = 0.0
        pending = chosen
        attempts = {cast("bytes", row[0]): cast("int", row[3]) for row in pending}
        gone = [entry_id for entry_id in attempts if id_of(entry_id) <= id_of(cut or NOTHING)]
        if gone:
            logger.warning("%d events of group %r were cut before they were settled", len(gone), group.name)
            await self._link.ask(("XACK", log, group.name, *gone))
        claim = ("XCLAIM", log, group.name, group.consumer, self._idle, *attempts)
        (rows,) = await self._link.ask(claim)
        # Who crashed, or left while it held something, is forgotten here; who is alive comes back by reading.
        await self._link.ask(*(self._keys.leave(group.name, owner) for owner in {row[1] for row in pending}))
        found = cast("Rows", [row for row in rows if row])  # Redis 6.2 has None for what was deleted
        return [Delivery(fields[1], name.decode(), attempts[name] + 1) for name, fields in found]

    async def _tell(self, behind: bytes, deliveries: Sequence[Delivery]) -> None:
        """Raise what the group missed, in one of its members, which gives back what it just got."""
        (first,) = await self._spare.ask(("HDEL", self._keys.behind, self._group.name))
        if first:
            await self.release(deliveries)
            raise gap(self._keys.log, behind)

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            ids = (delivery.cursor for delivery in deliveries)
            await self._spare.ask(("XACK", self._keys.log, self._group.name, *ids))

    async def renew(self, deliveries: Sequence[Delivery]) -> None:
        await self._hold(deliveries)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        for attempts in {delivery.attempts for delivery in deliveries}:
            its = [delivery for delivery in deliveries if delivery.attempts == attempts]
            await self._hold(its, "TIME", 1, "RETRYCOUNT", attempts - 1)  # idle since 1970, and not counted

    async def _hold(self, deliveries: Sequence[Delivery], *since: Value) -> None:
        if deliveries:
            ids = (delivery.cursor for delivery in deliveries)
            mine = (self._keys.log, self._group.name, self._group.consumer, 0)
            await self._spare.ask(("XCLAIM", *mine, *ids, *since, "JUSTID"))
