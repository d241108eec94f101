"""The stored log of executions: append to it, read one, list them, from any process."""

import asyncio
import logging
import weakref
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

from streamll.core.events import Event, decode, encode
from streamll.errors import BadEvent, Unreachable
from streamll.transports import Retention, open_backend
from streamll.transports.base import (
    DEFAULT_TARGET,
    DeadLetter,
    Entry,
    Summary,
    Writer,
    backoff,
    without_password,
)

logger = logging.getLogger("streamll")


class EventLog:
    """A log kept by a backend, chosen by URL.

    Args:
        url: `memory:`, `sqlite:///events.db`, `redis://`, `rediss://`, `amqp://`, `amqps://`, `nats://`.
        target: Name of the log there, the same as the sink's.
        retention: What `append` keeps; readers need not know.

    Raises:
        BadUrl: The URL names no backend.
        MissingExtra: The backend's client is not installed.
    """

    def __init__(self, url: str, target: str = DEFAULT_TARGET, *, retention: Retention | None = None) -> None:
        self.url = url
        self.target = target
        self.backend = open_backend(url, target, retention=retention)
        self._writer: Writer | None = None

    def __repr__(self) -> str:
        return f"EventLog({without_password(self.url)!r}, {self.target!r})"

    def append(self, events: Iterable[Event]) -> None:
        """Store events, in order; returns when the backend has acknowledged them.

        Raises:
            Unreachable: The server is away. Appending the same events again stores none twice.
            Refused: It does not let us.
        """
        if self._writer is None:
            self._writer = self.backend.writer()
            weakref.finalize(self, self._writer.close)
        self._writer.append([Entry(event, encode(event)) for event in events])

    def close(self) -> None:
        """Let go of the connection that `append` made."""
        if self._writer is not None:
            self._writer.close()

    async def read(self, execution_id: str, *, after: int = -1) -> AsyncGenerator[Event]:
        """Yield the events of an execution, each once and in order, while it runs or long after.

        Ends when the execution has ended. An execution that is not there yet is waited for. When the
        connection breaks, it is made again and reading goes on where it was.

        Args:
            execution_id: Of the events; `executions` lists what there is.
            after: The last sequence already seen; -1 is none.

        Raises: What `batches` raises.
        """
        async with aclosing(self.batches(execution_id, after=after)) as batches:
            async for events in batches:
                for event in events:
                    yield event

    async def batches(self, execution_id: str, *, after: int = -1) -> AsyncGenerator[Sequence[Event]]:
        """Yield what `read` yields, as many events at a time as are there.

        The first batch is empty: the server is there, and what it has comes next.

        Raises:
            EventsExpired: Retention has cut events after `after`.
            Unreachable: The server cannot be reached at the first try.
            Refused: It does not let us.
        """
        attempt, connected = 0, False
        while True:
            try:
                async with aclosing(self.backend.read(execution_id, after)) as batches:
                    async for bodies in batches:
                        attempt, connected = 0, True
                        events = [event for event in _events(bodies) if event.execution_id == execution_id]
                        fresh: list[Event] = []
                        for event in events:
                            if event.sequence > after:
                                after = event.sequence
                                fresh.append(event)
                        if fresh or not bodies:
                            yield fresh
                        if any(event.is_last for event in events):
                            return
            except Unreachable as error:
                if not connected:
                    raise
                attempt += 1
                if attempt == 1:
                    logger.warning(
                        "reading %s from %r broke off, trying again: %s", execution_id, self, error
                    )
                await asyncio.sleep(backoff(attempt))

    async def executions(self, limit: int = 20) -> Sequence[Summary]:
        """Return the latest executions, newest first."""
        return await self.backend.executions(limit)

    async def dead_letters(self, limit: int = 20) -> Sequence[DeadLetter]:
        """Return what consumers of this log could not handle, newest first."""
        return await self.backend.dead_letters(limit)


def _events(bodies: Sequence[bytes]) -> Iterable[Event]:
    for body in bodies:
        try:
            yield decode(body)
        except BadEvent as error:
            logger.warning("skipped what is no event: %s", error)
