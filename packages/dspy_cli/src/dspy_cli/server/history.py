"""Runs as their log has them: of any worker, while they go on or long after."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import msgspec
import streamll
from streamll.core.events import JsonValue
from streamll.errors import EventsExpired
from streamll.frames import frame
from streamll.transports.base import Summary

from dspy_cli.server.fleet import Fleet, worker_of
from dspy_cli.server.outcomes import HINTS, error_of, failed, status
from dspy_cli.server.problems import Problem
from dspy_cli.server.streaming import Show, StreamingCallback, Tap, event_stream_generator

_FIRST_SECONDS = 1.0
"""A log that gives no event for so long has none of that run."""
_CAUGHT_UP_SECONDS = 0.2
"""A log that gives nothing more for so long has given what there is."""


logger = logging.getLogger("dspy_cli")

_LATEST = 253_402_300_799  # the last second of the year 9999


class Listed(msgspec.Struct, kw_only=True):
    """One run in a list of runs."""

    id: str
    program: str
    status: str
    started: str
    seconds: float
    events: int


class Detail(Listed, kw_only=True):
    """One run in full."""

    inputs: JsonValue = None
    outputs: JsonValue = None
    error: JsonValue = None
    usage: Mapping[str, JsonValue] = {}


_USAGE = ("lm_calls", "tool_calls", "input_tokens", "output_tokens", "cost_usd")


def listed(summary: Summary) -> Listed:
    """Return what a list shows of an execution, one of our runs or another's."""
    return Listed(
        id=summary.execution_id,
        program=str(summary.context.get("served", summary.program)),
        status=status(summary.status != "running", summary.error or _code[summary.status]),
        started=summary.started.isoformat(),
        seconds=summary.seconds,
        events=summary.events,
    )


def queued(run_id: str) -> Listed:
    """Return what is known of a run that waits at another worker: it has no log before it begins."""
    started = datetime.fromtimestamp(min(int(run_id[:12], 16) // 1000, _LATEST), UTC)
    seconds = (datetime.now(UTC) - started).total_seconds()
    return Listed(
        id=run_id, program="", status="queued", started=started.isoformat(), seconds=seconds, events=0
    )


_code: Mapping[str, str | None] = {"running": None, "ok": None, "error": "program"}


@dataclass(eq=False)
class _Followed:
    """A run of another worker, read from the log once for all who watch it here."""

    callback: StreamingCallback
    after: int
    task: asyncio.Task[None] | None = None
    viewers: int = 0


@dataclass(eq=False)
class _Reading:
    """What the events of a run add up to."""

    first: streamll.Event | None = None
    last: streamll.Event | None = None
    count: int = 0
    inputs: JsonValue = None
    outputs: JsonValue = None
    has_outputs: bool = False
    roots: set[str] = field(default_factory=set[str])

    def add(self, events: Sequence[streamll.Event]) -> None:
        for event in events:
            self.first = self.first or event
            self.count += 1
            self.last = event
            if event.parent_call_id is None and event.event_type == "module_start" and self.inputs is None:
                self.inputs = event.data.get("inputs")
            elif event.parent_call_id is None and event.event_type == "module_end":
                self.outputs, self.has_outputs = _as_answered(event.data.get("outputs")), True


def _as_answered(outputs: JsonValue) -> JsonValue:
    """Return outputs in the shape of `Program.outputs`: what has no fields is under "output"."""
    return outputs if isinstance(outputs, dict) else {"output": outputs}


async def _next(
    batches: AsyncGenerator[Sequence[streamll.Event]], count: int, *, wait: bool = False
) -> Sequence[streamll.Event] | None:
    """Return the next batch, None after the last. TimeoutError: the log has given what there is."""
    seconds = _CAUGHT_UP_SECONDS if count else _FIRST_SECONDS
    async with asyncio.timeout(None if wait else seconds):
        return await anext(batches, None)


class Past:
    """A run that this worker knows from its log only."""

    def __init__(self, run_id: str, history: "History") -> None:
        self.id = run_id
        self._history = history

    async def result(self) -> object:
        """Return what `outputs` does: the object itself lived in another process."""
        return await self.outputs()

    async def outputs(self) -> JsonValue:
        """Wait for the run's end, and return what it returned.

        Raises:
            Problem: It failed, or was stopped, or its log is gone.
        """
        reading = await self._read()
        if reading.last is None:
            raise Problem(410, f"The log of run {self.id} is gone.", run=self.id)
        if reading.last.event_type != "execution_end":
            raise failed(self.id, *error_of(reading.last))
        return reading.outputs

    async def _read(self) -> _Reading:
        """Read to the end; what was lost in the queue of a worker that is gone has no log, and no end."""
        reading = asyncio.ensure_future(self._history.read(self.id, wait=True))
        try:
            while not reading.done():
                await asyncio.wait([reading], timeout=_FIRST_SECONDS)
                if not reading.done() and self._history.is_lost(self.id):
                    raise failed(self.id, "orphaned", HINTS["orphaned"])
            return reading.result()
        finally:
            reading.cancel()

    def frames(self, after: int = -1) -> AsyncGenerator[bytes]:
        """Yield the run's frames after a sequence."""
        return self._history.frames(self.id, after)

    async def events(self, after: int = -1) -> AsyncGenerator[streamll.Event]:
        """Yield the run's events after a sequence."""
        async with aclosing(self._history.fleet.log.read(self.id, after=after)) as events:
            async for event in events:
                yield self._history.show(event)

    def cancel(self) -> None:
        """Ask the worker that has it to stop it."""
        self._history.cancel(self.id)


class History:
    """All runs in the log.

    Args:
        fleet: Has the log, and knows which workers live.
        show: What viewers get of an event.
    """

    def __init__(self, fleet: Fleet, *, show: Show) -> None:
        self.fleet = fleet
        self.show = show
        self._followed: dict[str, _Followed] = {}
        self._asking: set[asyncio.Task[None]] = set()

    def past(self, run_id: str) -> Past:
        """Return the run, which need not exist."""
        return Past(run_id, self)

    def cancel(self, run_id: str) -> None:
        """Ask the worker that has the run to stop it."""
        asking = asyncio.create_task(self.fleet.cancel_elsewhere(run_id))
        self._asking.add(asking)
        asking.add_done_callback(self._asked)

    def _asked(self, asking: asyncio.Task[None]) -> None:
        self._asking.discard(asking)
        if not asking.cancelled() and (error := asking.exception()) is not None:
            logger.warning("a run of another worker could not be cancelled: %s", error)

    async def latest(self, limit: int) -> Sequence[Listed]:
        """Return the latest runs, newest first; those whose worker is gone are told so."""
        summaries = await self.fleet.log.executions(limit)
        orphaned = {s.execution_id for s in summaries if await self.fleet.closed_if_orphaned(s)}
        runs = [listed(summary) for summary in summaries]
        for run in runs:
            run.status = "orphaned" if run.id in orphaned else run.status
        return runs

    async def detail(self, run_id: str) -> Detail | None:
        """Return a run in full; None for one that nobody knows."""
        reading = await self.read(run_id)
        if reading.first is None or reading.last is None:
            return None
        last = reading.last
        ended, told = last.is_last, self.show(last).data
        return Detail(
            id=run_id,
            program=str(reading.first.data.get("served", reading.first.data.get("program"))),
            status=status(ended, error_of(last)[0] if last.event_type == "execution_error" else None),
            started=reading.first.timestamp.isoformat(),
            seconds=(last.timestamp - reading.first.timestamp).total_seconds(),
            events=reading.count,
            inputs=reading.inputs,
            outputs=reading.outputs if ended and last.event_type == "execution_end" else None,
            error=told.get("error") if ended else None,
            usage={name: told[name] for name in _USAGE if name in told},
        )

    async def read(self, run_id: str, *, wait: bool = False) -> _Reading:
        """Read a run's log: what there is of it, or, with `wait`, to its end."""
        reading, asked = _Reading(), datetime.now(UTC)
        async with aclosing(self._batches(run_id, -1)) as batches:
            with suppress(TimeoutError):
                while (batch := await _next(batches, reading.count, wait=wait)) is not None:
                    reading.add(batch)
                    if not wait and batch and batch[-1].timestamp > asked:
                        break  # a program that talks on would be read to its end
        return reading

    async def exists(self, run_id: str) -> bool:
        """True for a run in the log, or one that may wait at another worker."""
        if run_id in self._followed or self.may_exist(run_id):
            return True
        async with aclosing(self._batches(run_id, -1)) as batches:
            with suppress(TimeoutError):
                return bool(await _next(batches, 0) or await _next(batches, 0))
        return False

    def may_exist(self, run_id: str) -> bool:
        """True for a run whose worker lives: it may wait in its queue, and have no log yet."""
        return self.fleet.is_alive(worker_of(run_id)) and worker_of(run_id) != self.fleet.worker

    # --- watching ---

    async def frames(self, run_id: str, after: int = -1, *, tap: Tap | None = None) -> AsyncGenerator[bytes]:
        """Yield the frames of a run after a sequence; the log is read once for all who watch a run here."""
        followed = self._followed.get(run_id)
        if followed is None or after < followed.after:
            followed = self._follow(run_id, after)
        followed.viewers += 1
        try:
            stored = partial(self.stored, run_id)
            frames = event_stream_generator(followed.callback, after, stored=stored, tap=tap)
            async with aclosing(frames) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            followed.viewers -= 1
            if not followed.viewers and followed.task is not None:
                followed.task.cancel()
                if self._followed.get(run_id) is followed:
                    del self._followed[run_id]

    def _follow(self, run_id: str, after: int) -> _Followed:
        followed = _Followed(StreamingCallback(run_id, after=after, show=self.show), after)
        feeding = self._feed(followed.callback, run_id, after)
        followed.task = asyncio.create_task(feeding, name=f"follow {run_id}")
        self._followed[run_id] = followed
        return followed

    async def _feed(self, callback: StreamingCallback, run_id: str, after: int) -> None:
        reading = _Reading()
        try:
            async with aclosing(self._batches(run_id, after)) as batches:
                async for batch in batches:
                    if batch:
                        reading.add(batch)
                        shown = [self.show(event) for event in batch]
                        callback.add(shown, [frame(event) for event in shown])
                        await callback.wanted()
            whole = reading if reading.has_outputs else await self.read(run_id)
            if whole.last is not None and after <= whole.last.sequence:
                callback.last = whole.last  # which may be all that the viewers have seen
                callback.returned(whole.outputs)
        finally:
            callback.end()

    async def _batches(self, run_id: str, after: int) -> AsyncGenerator[Sequence[streamll.Event]]:
        """Yield what the log has; where its beginning was cut, from what is left."""
        try:
            async with aclosing(self.fleet.log.batches(run_id, after=after)) as batches:
                async for batch in batches:
                    yield batch
        except EventsExpired as expired:
            if not isinstance(expired.available, int):
                return
            async with aclosing(self.fleet.log.batches(run_id, after=expired.available - 1)) as batches:
                async for batch in batches:
                    yield batch

    async def stored(self, run_id: str, after: int) -> AsyncGenerator[tuple[int, bytes]]:
        """Yield frames after a sequence as the log has them, each with the sequence of its last event."""
        async with aclosing(self._batches(run_id, after)) as batches:
            async for batch in batches:
                if batch:
                    yield batch[-1].sequence, b"".join(frame(self.show(event)) for event in batch)

    def let_go(self) -> None:
        """End every stream of another worker's run: its viewers go on with a worker that stays."""
        for followed in self._followed.values():
            if followed.task is not None:
                followed.task.cancel()

    def beat(self) -> None:
        """Have idle viewers send a sign of life. What was lost in the queue of a worker that is gone has no
        log to end it."""
        for run_id, followed in self._followed.items():
            if followed.task is not None and followed.callback.last is None and self.is_lost(run_id):
                followed.task.cancel()
            followed.callback.beat()

    def is_lost(self, run_id: str) -> bool:
        """True for a run whose worker is gone."""
        return self.fleet.is_shared and self.fleet.is_gone(worker_of(run_id))
