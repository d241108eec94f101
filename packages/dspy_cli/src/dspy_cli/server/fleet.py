"""What processes that share an event log tell each other: who lives, what to cancel, which run a key began.

All of it is events, in logs beside the first: beats of workers and requests to cancel in `<target>_control`,
claims of idempotency keys in `<target>_claims`, where the first one stored has it. So what keeps events is
all that replicas have to share.
"""

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from time import monotonic, time_ns

import streamll
from streamll.core.events import JsonValue
from streamll.errors import StreamllError
from streamll.sinks import Retention
from streamll.transports.base import Summary

from dspy_cli.server.outcomes import HINTS

logger = logging.getLogger("dspy_cli")

_BEATS_PER_LEASE = 3
_KEPT = Retention(age=timedelta(hours=1), abandoned=timedelta(hours=1))
_CLAIMS_REMEMBERED = 10_000
_CLAIMS_KEPT = Retention(age=timedelta(hours=24), abandoned=timedelta(hours=24))
_SWEPT = 1_000
_ID = re.compile(r"[0-9a-f]{29,128}")


def made(
    execution_id: str, event_type: str, data: Mapping[str, JsonValue], *, sequence: int = 0
) -> streamll.Event:
    """Return an event that no program sends: the server's own word on a run."""
    return streamll.Event(
        event_id=f"{execution_id}-{sequence}",
        execution_id=execution_id,
        sequence=sequence,
        timestamp=datetime.now(UTC),
        event_type=event_type,
        data=dict(data),
    )


def ending(run_id: str, sequence: int, program: str, code: str) -> streamll.Event:
    """Return the event that closes the log of a run from outside."""
    error: JsonValue = {"type": code.capitalize(), "code": code, "message": HINTS[code], "hint": HINTS[code]}
    return made(
        run_id,
        "execution_error",
        {"program": program, "worker": worker_of(run_id), "error": error},
        sequence=sequence,
    )


def worker_of(run_id: str) -> str:
    """Return the worker that a run's id names: time, 12 digits; worker, 16; a number. Of any other id, ""."""
    return run_id[12:28] if _ID.fullmatch(run_id) else ""


class Fleet:
    """One worker's view of all that share the log at `url`.

    Args:
        url: Of the log; `memory:` is shared with nobody.
        target: Name of the log.
        lease_seconds: A worker that is silent for so long is gone, and its runs are orphaned.
        cancel: Called with the id of a run that another worker's client wants stopped.
    """

    def __init__(self, url: str, target: str, lease_seconds: float, cancel: Callable[[str], object]) -> None:
        self.worker = os.urandom(8).hex()
        self.log = streamll.EventLog(url, target)
        self.lease_seconds = lease_seconds
        self.is_shared = not url.startswith("memory:")
        self._url, self._control_target = url, f"{target}_control"
        self._control = streamll.EventLog(url, self._control_target, retention=_KEPT)
        self._claims = streamll.EventLog(url, f"{target}_claims", retention=_CLAIMS_KEPT)
        self._writing = asyncio.Lock()
        self._cancel = cancel
        self._numbers = 0
        self._claimed: dict[str, tuple[str, str]] = {}
        self._is_cut_off = False
        self._seen: dict[str, float] = {}
        self._caught_up = asyncio.Event()
        self._deaf_until = 0.0

    def new_id(self) -> str:
        """Return the id of a new run: it sorts by time, and names this worker."""
        self._numbers += 1
        return f"{time_ns() // 1_000_000:012x}{self.worker}{self._numbers:x}"

    async def live(self) -> None:
        """Beat, listen, and close the logs of runs whose worker is gone, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat())
            tasks.create_task(self._listen())
            tasks.create_task(self._sweep())

    # --- workers ---

    @property
    def is_cut_off(self) -> bool:
        """True while this worker cannot tell the others that it lives."""
        return self._is_cut_off

    async def _beat(self) -> None:
        while True:
            await self._try_to_tell("worker_beat", {"worker": self.worker})
            await asyncio.sleep(self.lease_seconds / _BEATS_PER_LEASE)

    async def leave(self) -> None:
        """Say that this worker is gone on purpose, so that nobody waits for its lease to end."""
        await self._try_to_tell("worker_left", {"worker": self.worker})

    async def _tell(self, event_type: str, data: Mapping[str, JsonValue]) -> None:
        async with self._writing:
            await asyncio.to_thread(self._control.append, [made(self.new_id(), event_type, data)])

    async def _try_to_tell(self, event_type: str, data: Mapping[str, JsonValue]) -> None:
        try:
            await self._tell(event_type, data)
        except StreamllError as error:
            if not self._is_cut_off:
                logger.warning("%s could not be told to the other workers: %s", event_type, error)
            self._is_cut_off = True

    async def _listen(self) -> None:
        consumer = streamll.EventConsumer(
            self._url, self._control_target, start="earliest", dead_letters=False
        )
        async for event in consumer:
            self._hear(event)

    def _hear(self, event: streamll.Event) -> None:
        match event.event_type:
            case "worker_beat":
                self._heard_of(str(event.data["worker"]), event.timestamp)
            case "worker_left":
                self._seen[str(event.data["worker"])] = float("-inf")
            case "run_cancel":
                self._cancel(str(event.data["run"]))
            case _:
                pass

    def _heard_of(self, worker: str, when: datetime) -> None:
        """Note that a worker lives. What was told before we listened is as old as it says."""
        if worker == self.worker:
            if self._is_cut_off or (self._caught_up.is_set() and self._is_deaf()):
                self._is_cut_off = False  # the others may have been, too, and are given time to say so
                self._deaf_until = monotonic() + self.lease_seconds
            self._caught_up.set()
        age = 0.0 if self._caught_up.is_set() else (datetime.now(UTC) - when).total_seconds()
        self._seen[worker] = max(self._seen.get(worker, float("-inf")), monotonic() - max(age, 0.0))

    def is_alive(self, worker: str) -> bool:
        """True for a worker heard of within its lease."""
        heard = self._seen.get(worker, float("-inf"))
        return worker == self.worker or monotonic() - heard < self.lease_seconds

    def is_gone(self, worker: str) -> bool:
        """True for a worker that is silent. Who did not hear itself either cannot tell: the log was away."""
        return not (self.is_alive(worker) or self._is_deaf() or monotonic() < self._deaf_until)

    def _is_deaf(self) -> bool:
        heard = self._seen.get(self.worker)
        return self._is_cut_off or heard is None or monotonic() - heard > self.lease_seconds

    async def _sweep(self) -> None:
        """Close the logs of runs whose worker is gone: once at the start, then whenever one goes."""
        await self._caught_up.wait()
        swept = False
        while True:
            gone = {worker for worker in self._seen if self.is_gone(worker)}
            if (gone or not swept) and await self.close_orphans():
                swept = True
                self._seen = {worker: when for worker, when in self._seen.items() if worker not in gone}
            await asyncio.sleep(self.lease_seconds / _BEATS_PER_LEASE)

    async def close_orphans(self) -> bool:
        """Close the logs of all runs that are open and whose worker is gone; False when the log is away."""
        try:
            for summary in await self.log.executions(_SWEPT):
                await self.closed_if_orphaned(summary)
        except StreamllError as error:
            logger.warning("orphaned runs could not be looked for: %s", error)
            return False
        return True

    async def closed_if_orphaned(self, summary: Summary) -> bool:
        """Close the log of a run whose worker is gone. Two that do so store one event, under one sequence."""
        worker = summary.context.get("worker")
        if summary.status != "running" or not isinstance(worker, str) or not self.is_gone(worker):
            return False
        program = str(summary.context.get("served", summary.program))
        await self.append(ending(summary.execution_id, summary.events, program, "orphaned"))
        return True

    async def append(self, *events: streamll.Event) -> None:
        """Store events of the server's own in the log of runs."""
        async with self._writing:
            await asyncio.to_thread(self.log.append, events)

    # --- cancelling, claiming ---

    async def cancel_elsewhere(self, run_id: str) -> None:
        """Ask the worker that has the run to stop it.

        Raises:
            StreamllError: The log is away, and nobody was asked.
        """
        await self._tell("run_cancel", {"run": run_id})

    async def claim(self, key: str, run_id: str, said: str) -> tuple[str, str]:
        """Claim an idempotency key; returns the run that has it, and what was said when it was claimed."""
        if key in self._claimed:
            return self._claimed[key]
        claim = hashlib.sha256(key.encode()).hexdigest()
        async with self._writing:
            await asyncio.to_thread(
                self._claims.append, [made(claim, "run_claim", {"run": run_id, "said": said})]
            )
        async with aclosing(self._claims.read(claim)) as events:
            first = await anext(events)
        self._claimed[key] = found = str(first.data["run"]), str(first.data["said"])
        if len(self._claimed) > _CLAIMS_REMEMBERED:
            del self._claimed[next(iter(self._claimed))]
        return found

    def knows(self, key: str) -> bool:
        """True for a key that was claimed, as this worker has seen."""
        return key in self._claimed
