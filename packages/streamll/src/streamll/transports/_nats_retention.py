"""What a log in NATS lets go of: executions that are over, and what is left in the place of each."""

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import inf
from time import monotonic

from streamll.core.events import Event, encode
from streamll.transports._nats_log import Log, Run, event_of
from streamll.transports._nats_wire import Wire
from streamll.transports.base import Retention

_TOMBSTONES = 100_000
_TOMBSTONE_AGES = 7  # a tombstone stays that many times as long as its execution did
_OLDEST = 10_000  # executions a writer keeps in mind
_CUTS = 256  # executions a round
_TRIM_SECONDS = 0.2
_TRIM_SHARE = 0.2  # of the writer's time


class Trimmer:
    """Cuts executions that are over, oldest first, while they are too old or the log is too big."""

    def __init__(self, log: Log, limit: Retention) -> None:
        self._log = log
        self._limit = limit
        self._oldest: deque[Run] = deque()
        self._listing = 0.0
        self._messages = self._bytes = 0.0
        self._next = inf if limit.age is limit.events is limit.bytes is None else 0.0

    def stop(self) -> None:
        """Keep everything from here on."""
        self._next = inf

    def trim(self, wire: Wire) -> None:
        """Cut for a moment, if it is time to."""
        began = monotonic()
        if began < self._next:
            return
        state = self._log.ensured(wire)
        self._messages, self._bytes = state["messages"], state["bytes"]
        if listed := began >= self._listing:
            self._list(wire)
        while monotonic() < began + _TRIM_SECONDS:
            if picked := self._picked():
                self._cut(wire, picked)
            elif listed or self._oldest:
                break
            else:
                self._list(wire)
                listed = True
        ended = monotonic()
        self._next = ended + max(1, (ended - began) / _TRIM_SHARE)

    def _list(self, wire: Wire) -> None:
        """Learn anew what there is, which costs microseconds for each execution."""
        self._oldest = deque(self._log.runs(wire)[:_OLDEST])
        age = self._limit.age or timedelta.max
        self._listing = monotonic() + min(600, max(1, age.total_seconds() / 10))

    def _picked(self) -> list[Run]:
        """Take the oldest executions that may have to go."""
        picked: list[Run] = []
        messages, size, now = self._messages, self._bytes, datetime.now(UTC)
        while self._oldest and len(picked) < _CUTS:
            run = self._oldest[0]
            if not self._too_big(messages, size) and not self._too_old(now - run.began):
                break
            size -= size * run.number / max(1, messages)
            messages -= run.number
            picked.append(self._oldest.popleft())
        return picked

    def _too_big(self, messages: float, size: float) -> bool:
        events, bytes_ = self._limit.events, self._limit.bytes
        return (events is not None and messages > events) or (bytes_ is not None and size > bytes_)

    def _too_old(self, silence: timedelta) -> bool:
        return self._limit.age is not None and silence >= self._limit.age

    def _cut(self, wire: Wire, picked: Sequence[Run]) -> None:
        log, now = self._log, datetime.now(UTC)
        cut: list[str] = []
        tombstones: list[tuple[str, str, bytes]] = []
        ends = wire.stored(log.stream, [log.last_of(run) for run in picked])
        for run, end in zip(picked, ends, strict=True):
            last, silence = event_of(end), now - (end.time if end else run.began)
            over = (last is not None and last.is_last) or silence >= self._limit.abandoned
            if not over or not (self._too_old(silence) or self._too_big(self._messages, self._bytes)):
                continue  # it is met again when all are listed again
            self._bytes -= self._bytes * run.number / max(1, self._messages)
            self._messages -= run.number
            cut += run.subjects
            if last is not None:
                tombstones.append((log.expired(last.execution_id), "", encode(_tombstone(last, now))))
        if tombstones:
            self._entomb(wire, tombstones)
        wire.ask_all(f"STREAM.PURGE.{log.stream}", [{"filter": subject} for subject in cut])

    def _entomb(self, wire: Wire, tombstones: Sequence[tuple[str, str, bytes]]) -> None:
        log, age = self._log, self._limit.age
        seconds = max(_TOMBSTONE_AGES * age, timedelta(hours=1)).total_seconds() if age else 0
        limits = {"max_msgs_per_subject": 1, "max_msgs": _TOMBSTONES, "max_age": int(seconds * 1e9)}
        wire.ensured(f"{log.stream}_expired", subjects=[f"{log.prefix}_expired.*"], **limits)
        wire.publish(tombstones)


def _tombstone(last: Event, now: datetime) -> Event:
    """Return what is left of an execution: how far it went, and whether it ended."""
    return Event(
        event_id=last.event_id,
        execution_id=last.execution_id,
        sequence=last.sequence,
        timestamp=now,
        event_type="gap",
        data={"reason": "expired", "ended": last.is_last},
    )
