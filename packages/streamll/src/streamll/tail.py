"""The events of a log that somebody asked for: one execution, the newest one, or all there are."""

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from streamll.consumer import EventConsumer
from streamll.core.events import Event
from streamll.eventlog import EventLog
from streamll.sinks import TerminalSink
from streamll.transports.base import Start

_PATIENCE_SECONDS = 2.0

type Tell = Callable[[str], object]
"""Says something about the reading to the person who waits for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What to read of a log.

    Attributes:
        execution_id: Read this execution, from its beginning to its end.
        newest: Read the newest execution, in the same way.
        start: Without either, where to begin to follow everything.
        types: Event types or patterns, of which one has to fit; none is all.
        where: What `event.data` has to hold, in words: a string as it is, anything else as JSON.
    """

    execution_id: str | None = None
    newest: bool = False
    start: Start = "latest"
    types: Sequence[str] = ()
    where: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def follows(self) -> bool:
        """Whether reading goes on until somebody ends it."""
        return self.execution_id is None and not self.newest

    def fits(self, event: Event) -> bool:
        """Return whether the filters let `event` through."""
        data = event.data
        is_of_type = not self.types or any(fnmatchcase(event.event_type, one) for one in self.types)
        return is_of_type and all(k in data and _in_words(data[k]) == v for k, v in self.where.items())


def _in_words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


async def events(log: EventLog, wanted: Wanted, *, tell: Tell) -> AsyncGenerator[Event]:
    """Yield what is wanted of `log`, each event once; `tell` hears what is being waited for.

    Raises:
        EventsExpired: Retention has cut what comes next.
        Unreachable: The server cannot be reached at the first try.
        Refused: It does not let us.
    """
    execution_id = await _newest(log, tell) if wanted.newest else wanted.execution_id
    found = _all(log, wanted.start) if execution_id is None else _one(log, execution_id, tell)
    async with aclosing(found):
        async for event in found:
            if wanted.fits(event):
                yield event


async def _newest(log: EventLog, tell: Tell) -> str:
    """Return the id of the newest execution, or of the first one there will be."""
    if listed := await log.executions(1):
        return listed[0].execution_id
    tell(f"No execution in {log.target!r} yet; waiting for the first one.")
    async with aclosing(_all(log, "earliest")) as found:
        return (await anext(found)).execution_id


async def _one(log: EventLog, execution_id: str, tell: Tell) -> AsyncGenerator[Event]:
    said = f"Nothing of execution {execution_id!r} in {log.target!r} yet; waiting for it."
    waiting = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, tell, said)
    try:
        async with aclosing(log.read(execution_id)) as found:
            async for event in found:
                waiting.cancel()
                yield event
    finally:
        waiting.cancel()


async def _all(log: EventLog, start: Start) -> AsyncGenerator[Event]:
    await log.executions(1)  # a consumer waits for a server that is away; a person wants to know at once
    async with EventConsumer(log.url, log.target, start=start, dead_letters=False) as consumer:
        while (event := await consumer.consume_one(None)) is not None:
            yield event


# --- showing them -------------------------------------------------------------------------------------------


@contextmanager
def shown(wanted: Wanted) -> Generator[Callable[[Event], object]]:
    """Show events on stdout as `TerminalSink` does; a filter by type leaves out what makes a tree: lines."""
    sink = TerminalSink(token_format="lines" if wanted.types else None)
    try:
        yield sink.handle_event
    finally:
        sink.stop()


async def each(log: EventLog, wanted: Wanted, put: Callable[[Event], object], *, tell: Tell) -> None:
    """Call `put` with each event that is wanted, as it comes.

    Raises:
        StreamllError: As `events`.
    """
    async with aclosing(events(log, wanted, tell=tell)) as found:
        async for event in found:
            put(event)


async def each_to_stdout(
    log: EventLog, wanted: Wanted, put: Callable[[Event], object], *, tell: Tell
) -> None:
    """Do as `each` for a `put` that writes to stdout, as long as somebody reads that.

    Raises:
        BrokenPipeError: Nobody does any more.
        StreamllError: As `events`.
    """
    async with _while_read():
        await each(log, wanted, put, tell=tell)


@asynccontextmanager
async def _while_read() -> AsyncGenerator[None]:
    """Raise BrokenPipeError as soon as the reader of a pipe leaves, also while there is nothing to write.

    The end of a pipe that is written to counts as readable once nobody has the other end.
    """
    pipe, loop, reading = _stdout_pipe(), asyncio.get_running_loop(), asyncio.timeout(None)
    if pipe is not None:

        def left() -> None:
            loop.remove_reader(pipe)
            reading.reschedule(loop.time())

        loop.add_reader(pipe, left)
    try:
        async with reading:
            yield
    except TimeoutError:
        if reading.expired():
            raise BrokenPipeError from None
        raise
    finally:
        if pipe is not None:
            loop.remove_reader(pipe)


def _stdout_pipe() -> int | None:
    """Return the descriptor of stdout if it is a pipe or a socket; Windows has no way to wait for those."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return None
    mode = os.fstat(descriptor).st_mode
    is_pipe = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
    return descriptor if is_pipe and sys.platform != "win32" else None
