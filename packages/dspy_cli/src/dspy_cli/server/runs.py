"""Runs: started, queued, timed and stopped on this worker; `history` looks up all that share the log."""

import asyncio
import hashlib
import json
import logging
import math
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Set
from contextlib import ExitStack, suppress
from functools import partial
from time import perf_counter
from typing import Any, Protocol, cast

import msgspec
import streamll
from pydantic import BaseModel
from streamll.core.events import JsonValue
from streamll.errors import Unreachable
from streamll.sinks import TransportSink
from streamll.transports.base import DEFAULT_TARGET

from dspy_cli.project.config import ServerSettings
from dspy_cli.project.programs import Program
from dspy_cli.server.fleet import Fleet, ending, made, worker_of
from dspy_cli.server.history import Detail, History, Listed, Past, queued
from dspy_cli.server.outcomes import error_of, failed, status
from dspy_cli.server.problems import Problem
from dspy_cli.server.run import Returned, Run, acalled, called
from dspy_cli.server.streaming import StreamingCallback, Tap, Watching, event_stream_generator
from dspy_cli.threads import in_thread

logger = logging.getLogger("dspy_cli")

_RECENT = 64
"""Runs whose frames are kept after their end: the log may not have the last ones yet."""
_MOST_LISTED = 1000
_STOP_SECONDS = 1.0
_FLUSH_SECONDS = 5.0
_LOST_SECONDS = 2.0
"""How long the last event may take to arrive when the program has returned: a filter may withhold it."""


class Observer(Watching, Protocol):
    """Who counts runs and viewers; `Metrics` is one."""

    def run_queued(self, program: str) -> None: ...
    def run_started(self, program: str) -> None: ...
    def run_ended(
        self, program: str, status: str, seconds: float, totals: Mapping[str, Any], *, began: bool
    ) -> None: ...
    def first_token(self, program: str, seconds: float) -> None: ...


# --- room ---------------------------------------------------------------------------------------------------


class Room:
    """How many runs of one program go on at once, and how many wait for that."""

    def __init__(self, settings: ServerSettings) -> None:
        self._places = asyncio.Semaphore(settings.concurrency)
        self._settings = settings
        self._taken = 0
        self._usual_seconds = 1.0

    def take(self, program: str) -> None:
        """Take up room, to go on or to wait for that. Raises 429 when there is none."""
        going, waiting = self._settings.concurrency, self._settings.queue
        if self._taken >= going + waiting:
            seconds = max(1, min(60, math.ceil((waiting + 1) / going * self._usual_seconds)))
            raise Problem(
                429,
                f"{going} runs of {program} are going on and {waiting} wait; try again in {seconds} s.",
                headers={"retry-after": str(seconds)},
            )
        self._taken += 1

    def leave(self) -> None:
        """Give back what was taken."""
        self._taken -= 1

    async def __aenter__(self) -> None:
        await self._places.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._places.release()

    def took(self, seconds: float) -> None:
        """Note how long a run took: what `Retry-After` is estimated from."""
        self._usual_seconds += 0.2 * (seconds - self._usual_seconds)


# --- runs ---------------------------------------------------------------------------------------------------


class Runs:
    """The runs of this worker, and their log.

    Args:
        events: URL of the log; shared by all workers and replicas that serve the same programs.
        settings: Limits.
        observer: Is told of each run's steps.
        target: Name of the log.
    """

    def __init__(
        self, events: str, settings: ServerSettings, *, observer: Observer, target: str = DEFAULT_TARGET
    ) -> None:
        self.settings = settings
        self.sink = TransportSink(events, target)
        self.fleet = Fleet(events, target, settings.lease_seconds, self._cancel_here)
        self.history = History(self.fleet, show=self.show)
        self.live: dict[str, Run] = {}
        self.is_draining = False
        self._draining: asyncio.Task[None] | None = None
        self._recent: OrderedDict[str, Run] = OrderedDict()
        self._rooms: dict[str, Room] = {}
        self.observer = observer

    def show(self, event: streamll.Event) -> streamll.Event:
        """Return what a viewer gets of an event: errors without the program's own words, unless debugging."""
        error = event.data.get("error")
        if self.settings.debug or not isinstance(error, dict) or "message" not in error:
            return event
        kept = {name: value for name, value in error.items() if name != "traceback"}
        told = {**kept, "message": "withheld: serve with --debug to see it"}
        return streamll.with_data(event, {**event.data, "error": told})

    # --- starting ---

    async def start(
        self, program: Program, inputs: Mapping[str, object], *, key: str | None = None
    ) -> "Run | Past":
        """Start a run, which goes on by itself; it may have to wait for room.

        Args:
            program: What to call.
            inputs: Its keyword arguments.
            key: Starts a run once: the run that the same key started before, here or elsewhere, is returned.

        Raises:
            Problem: 429 there is no room to wait; 503 the server is going down; 422 the key was used with
                other inputs.
        """
        if self.is_draining:
            raise Problem(503, "The server is being stopped; try another one.", headers={"retry-after": "5"})
        room = self._rooms.setdefault(program.name, Room(self.settings))
        run_id = self.fleet.new_id()
        if key is not None and self.fleet.knows(_claim(program, key)):  # which needs no room
            earlier = await self._claimed(program, inputs, key, run_id)
            if earlier is not None:
                return earlier
        room.take(program.name)
        with ExitStack() as unused:
            unused.callback(room.leave)
            if key is not None and (earlier := await self._claimed(program, inputs, key, run_id)):
                return earlier
            run = self._new(run_id, program, inputs)
            unused.pop_all()
        self.observer.run_queued(program.name)
        # Eager: what is cancelled before its first step would not come to its end.
        loop = asyncio.get_running_loop()
        run.task = asyncio.Task(self._carry(run, room), loop=loop, name=f"run {run_id}", eager_start=True)
        return run

    async def _claimed(
        self, program: Program, inputs: Mapping[str, object], key: str, run_id: str
    ) -> "Run | Past | None":
        said = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=_plain).encode()).hexdigest()
        winner, first_said = await self.fleet.claim(_claim(program, key), run_id, said)
        if first_said != said:
            raise Problem(422, f"The Idempotency-Key {key!r:.80} was used with other inputs; use a new one.")
        if winner == run_id:
            return None
        if self.get(winner) is None and not await self.history.exists(winner) and self.get(winner) is None:
            raise Problem(410, "The run that this Idempotency-Key began is lost; use a new one.", run=winner)
        return self.get(winner) or self.history.past(winner)

    def get(self, run_id: str) -> Run | None:
        """Return a run of this worker that goes on, or ended a moment ago."""
        return self.live.get(run_id) or self._recent.get(run_id)

    async def claim(self, key: str) -> bool:
        """Return True to the first in the fleet that asks for `key`."""
        mine = self.fleet.new_id()
        return (await self.fleet.claim(key, mine, ""))[0] == mine

    # --- looking up ---

    async def latest(
        self, limit: int, *, program: str | None = None, status: str | None = None
    ) -> list[Listed]:
        """Return the latest runs of all workers, newest first; this worker's own as they are now."""
        wanted = limit if program is None and status is None else _MOST_LISTED
        stored = {run.id: run for run in await self.history.latest(wanted)}
        found = {run.id: _listed(run) for run in self._recent.values()}  # the log may not have them yet
        found |= stored | {run.id: _listed(run) for run in self.live.values()}
        runs = sorted(found.values(), key=lambda run: run.started, reverse=True)
        return [run for run in runs if program in (None, run.program) and status in (None, run.status)][
            :limit
        ]

    async def detail(self, run_id: str) -> Detail:
        """Return a run in full. Raises a 404 `Problem` for one that nobody knows."""
        run = self.get(run_id)
        detail = await self._stored(run_id, run)
        if detail is None:
            if run is None and not self.history.may_exist(run_id):
                raise _unknown(run_id)
            detail = Detail(**msgspec.structs.asdict(_listed(run) if run else queued(run_id)))
        if run is not None:
            detail.status = run.status
        return detail

    async def _stored(self, run_id: str, run: Run | None) -> Detail | None:
        """Return a run in full as the log has it; None where it has none yet, or is away."""
        if run is not None and run.status == "queued":
            return None
        with suppress(*([] if run is None else [Unreachable])):
            return await self.history.detail(run_id)

    async def must_exist(self, run_id: str) -> None:
        """Raise a 404 `Problem` for a run that nobody knows."""
        if self.get(run_id) is None and not await self.history.exists(run_id):
            raise _unknown(run_id)

    def frames(self, run_id: str, after: int = -1, *, tap: Tap | None = None) -> AsyncGenerator[bytes]:
        """Yield the frames of a run after a sequence, wherever and whenever it ran."""
        run = self.get(run_id)
        if run is None:
            return self.history.frames(run_id, after, tap=tap)
        stored = partial(self.history.stored, run_id)
        return event_stream_generator(run.callback, after, stored=stored, tap=tap)

    def _new(self, run_id: str, program: Program, inputs: Mapping[str, object]) -> Run:
        callback = StreamingCallback(run_id, show=self.show)
        execution = streamll.execution(
            run_id, sinks=[callback, self.sink], served=program.name, worker=worker_of(run_id)
        )
        run = self.live[run_id] = Run(program, inputs, callback, execution)
        return run

    # --- going on ---

    async def _carry(self, run: Run, room: Room) -> None:
        """Bring a run from the queue to its end."""
        answer = Returned(error=asyncio.CancelledError())
        try:
            async with room:
                run.status = "running"
                self.observer.run_started(run.program.name)
                answer = await self._call(run)
                room.took(perf_counter() - run.began)
        except asyncio.CancelledError:
            if run.status == "queued":
                self._tell_of_never(run)
        except RuntimeError as error:  # no thread can be started
            logger.error("%s of %s could not be started: %s", run.id, run.program.name, error)
            run.settle(Returned(error=_no_thread(run.id)))
            run.stopped = "interrupted"
            self._tell_of_never(run)
        finally:
            run.can_interrupt = False
            room.leave()
            await self._finish(run, answer)

    async def _call(self, run: Run) -> Returned:
        loop = asyncio.get_running_loop()
        timeout = self.settings.timeout_seconds
        timer = loop.call_later(timeout, run.cancel, "timeout") if timeout else None
        try:
            if run.program.is_async:
                return await acalled(run)
            return await in_thread(partial(called, run), name=f"run {run.id}")
        finally:
            if timer is not None:
                timer.cancel()

    async def _finish(self, run: Run, answer: Returned) -> None:
        began = run.status == "running"
        if answer.error is None:
            run.callback.returned(answer.outputs)
            run.status = "ok"  # to who has the answer it is over
            run.settle(answer)
        await self._last_event(run)
        code, hint = error_of(run.callback.last)
        if answer.error is not None and run.stopped is None:
            logger.error("%s of %s failed", run.id, run.program.name, exc_info=answer.error)
            said = str(answer.error) if self.settings.debug else None
            run.settle(Returned(error=failed(run.id, code, hint, error=said)))
        run.status = status(True, None if answer.error is None else run.stopped or code)
        self._retire(run, began=began)

    async def _last_event(self, run: Run) -> None:
        """Wait for the end of the run's log, which a filter of the program's own may withhold."""
        try:
            async with asyncio.timeout(_LOST_SECONDS):
                while not run.callback.ended:
                    await run.callback.changed()
        except TimeoutError:
            run.callback.end()

    def _retire(self, run: Run, *, began: bool) -> None:
        totals = run.callback.last.data if run.callback.last else {}
        name, run.seconds = run.program.name, perf_counter() - run.began
        self.observer.run_ended(name, run.status, run.seconds, totals, began=began)
        if run.callback.first_token is not None:
            self.observer.first_token(name, run.callback.first_token - run.began)
        self._recent[run.id] = self.live.pop(run.id)
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    def _tell_of_never(self, run: Run) -> None:
        """Write the log of a run whose program never began."""
        about: dict[str, JsonValue] = {"program": run.program.name, "served": run.program.name}
        start = made(run.id, "execution_start", {**about, "worker": worker_of(run.id)})
        events = [start, ending(run.id, 1, run.program.name, run.stopped or "cancelled")]
        self.sink.put(events)
        run.callback.put(events)

    # --- stopping ---

    async def cancel(self, run_id: str) -> bool:
        """Stop a run, wherever it is; False when it is none of ours, and the others were asked."""
        if self._cancel_here(run_id):
            return True
        await self.fleet.cancel_elsewhere(run_id)
        return False

    def _cancel_here(self, run_id: str) -> bool:
        run = self.live.get(run_id)
        if run is not None:
            run.cancel()
        return run is not None

    def begin_to_drain(self) -> None:
        """Take no new runs, and let what goes on come to its end; `drain` waits for that."""
        if not self.is_draining:
            self.is_draining = True
            self.history.let_go()
            self._draining = asyncio.create_task(self._drain())

    async def drain(self) -> None:
        """Wait for the runs' end; what does not come to it in `shutdown_seconds` is marked as interrupted."""
        self.begin_to_drain()
        if self._draining is not None:
            await self._draining

    async def _drain(self) -> None:
        await self._all_ended(self.settings.shutdown_seconds)
        for run in list(self.live.values()):
            run.cancel("interrupted")
        await self._all_ended(_STOP_SECONDS)
        for run in list(self.live.values()):
            logger.warning("%s of %s does not stop and is left", run.id, run.program.name)
            run.execution.close("interrupted")
        await asyncio.to_thread(streamll.flush, _FLUSH_SECONDS)

    async def _all_ended(self, seconds: float) -> None:
        if going := [run.task for run in self.live.values() if run.task is not None]:
            await asyncio.wait(going, timeout=seconds)

    async def keep_alive(self) -> None:
        """Send every idle viewer a sign of life, from one timer, until cancelled."""
        while True:
            await asyncio.sleep(self.settings.heartbeat_seconds)
            for run in (*self.live.values(), *self._recent.values()):
                run.callback.beat()
            self.history.beat()


def _listed(run: Run) -> Listed:
    return Listed(
        id=run.id,
        program=run.program.name,
        status=run.status,
        started=run.started.isoformat(),
        seconds=perf_counter() - run.began if run.seconds is None else run.seconds,
        events=run.callback.newest + 1,
    )


def _claim(program: Program, key: str) -> str:
    return f"{program.name}\n{key}"


def _no_thread(run_id: str) -> Problem:
    detail = "The machine has no thread left to run it in; try again."
    return Problem(503, detail, headers={"retry-after": "5"}, run=run_id)


def _plain(value: object) -> object:
    """Return an input as what is the same in every process; a set's order is not."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    return sorted(map(repr, cast("Set[object]", value))) if isinstance(value, Set) else repr(value)


def _unknown(run_id: str) -> Problem:
    return Problem(404, f"There is no run {run_id!r:.80}; GET /runs lists those there are.", run=run_id)
