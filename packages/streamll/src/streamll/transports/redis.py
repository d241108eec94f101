"""Events in Redis 6.2 or later: a stream of everything, the firehose, and one for each execution.

The firehose's key is the target, its entries have one field, `event`. In the stream of an execution an
entry is what came in one batch, an event a line, under the id of the last one's sequence + 1: so a reader
resumes by sequence, and what is appended again is known to be there.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import cast

from streamll.core.events import decode
from streamll.errors import EventsExpired, Unreachable
from streamll.transports._redis_followers import Alone, Member
from streamll.transports._redis_places import Rows, check_whole, expired, id_of, lines, place, rows_of
from streamll.transports._redis_scripts import Command, Keys
from streamll.transports._redis_server import Link, Server
from streamll.transports._redis_writer import Writer
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

_BATCHES = 64  # of an execution's events, each what a writer sent at once
_DEAD_LETTERS = 10_000


class Backend:
    """A log in Redis: `redis://[user:password@]host:port/db`, `rediss://` with TLS, or a node of a cluster.

    What the URL's query may say is up to redis-py, and `timeout`: the seconds after which a server that does
    not answer is given up, 10 unless said.
    """

    def __init__(self, url: str, target: str, retention: Retention) -> None:
        self._server = Server(url)
        self._keys = Keys(target)
        self._retention = retention
        self._block = max(1, round(self._server.timeout * 500))  # half the timeout: the server answers first

    def __repr__(self) -> str:
        return f"Backend({self._server.shown!r}, {self._keys.log!r})"

    def writer(self) -> Writer:
        return Writer(self._server, self._keys, self._retention)

    @asynccontextmanager
    async def _link(self) -> AsyncGenerator[Link]:
        link = Link(self._server)
        try:
            yield link
        finally:
            await link.close()

    async def read(self, execution_id: str, after: int) -> AsyncGenerator[Sequence[bytes]]:
        key = self._keys.execution(execution_id)
        async with self._link() as link:
            (newest,) = await link.ask(("XREVRANGE", key, "+", "-", "COUNT", 1))
            known = 0
            for entry_id, (_, body, *_) in cast("Rows", newest):
                known = id_of(entry_id)[0]
                if known <= after + 1:
                    yield lines(body)[-1:]
            yield ()  # connected: from here on a connection that breaks is made again
            seen = f"{min(after + 1, known)}-0"  # the end may come before what was asked for
            while True:
                read = ("XREAD", "COUNT", _BATCHES, "BLOCK", self._block, "STREAMS", key, seen)
                if rows := rows_of(*await link.ask(read)):
                    check_whole(rows, after, execution_id)
                    yield [line for _, fields in rows for line in lines(fields[1])]
                    seen = rows[-1][0].decode()
                    after = id_of(seen)[0] - 1

    @asynccontextmanager
    async def follow(self, start: Start, group: Group | None) -> AsyncGenerator[Subscription]:
        async with self._link() as link:
            get_cut = ("GET", self._keys.cut)
            cut, newest = await link.ask(get_cut, ("XREVRANGE", self._keys.log, "+", "-", "COUNT", 1))
            after = place(start, newest[0][0] if newest else cut, cut)
            lost = expired(after, cut, self._keys.log)
            if group is not None:
                async with self._joined(link, group, after, lost) as member:
                    yield member
            elif lost:
                raise lost
            else:
                yield Alone(link, self._keys, self._block, after)

    @asynccontextmanager
    async def _joined(
        self, link: Link, group: Group, after: str, lost: EventsExpired | None
    ) -> AsyncGenerator[Subscription]:
        """Make the group unless it is there, and leave it in the end unless something is still to settle."""
        (unmade,) = await link.ask(self._keys.join(group.name, after, must_exist=lost is not None))
        if unmade and lost:
            raise lost
        async with self._link() as spare:
            member, reachable = Member(link, spare, self._keys, self._block, group), True
            try:
                yield member
            except Unreachable:
                reachable = False
                raise
            finally:
                await member.leave(reachable=reachable)

    async def executions(self, limit: int) -> Sequence[Summary]:
        async with self._link() as link:
            (names,) = await link.ask(("ZREVRANGE", self._keys.started, 0, max(limit, 0) - 1))
            asked = [command for name in names[:limit] for command in self._about(name)]
            replies = await link.ask(*asked) if asked else []
        found = zip(replies[::3], replies[1::3], replies[2::3], strict=True)
        return [
            summary(decode(lines(first[0][1][1])[0]), decode(lines(last[0][1][1])[-1]), int(events))
            for first, last, events in found
            if first and events
        ]

    def _about(self, execution_id: bytes) -> Sequence[Command]:
        key = self._keys.execution(execution_id.decode())
        ends = (("XRANGE", key, "-", "+", "COUNT", 1), ("XREVRANGE", key, "+", "-", "COUNT", 1))
        return (*ends, ("HGET", self._keys.events, execution_id))

    async def bury(self, letter: DeadLetter) -> None:
        bound = ("MAXLEN", "~", _DEAD_LETTERS)
        async with self._link() as link:
            await link.ask(("XADD", self._keys.dead, *bound, "*", "letter", encode_letter(letter)))

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        async with self._link() as link:
            (rows,) = await link.ask(("XREVRANGE", self._keys.dead, "+", "-", "COUNT", limit))
        return [decode_letter(fields[1]) for _, fields in cast("Rows", rows)]
