"""Recorded events once more, at the pace at which they happened."""

import time
from bisect import bisect_right
from collections.abc import Generator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise
from typing import NamedTuple

import msgspec

from streamll.core.context import new_id
from streamll.core.events import Event, decode
from streamll.errors import BadEvent

_BATCH = 512


class Recorded(NamedTuple):
    """An event of a recording, with the line it was read from."""

    event: Event
    line: bytes


def recording(lines: Iterable[bytes]) -> Sequence[Recorded]:
    """Return the events in `lines`; empty lines are skipped.

    Raises:
        BadEvent: A line is no event; the message says which.
    """
    found: list[Recorded] = []
    for number, line in enumerate(lines, 1):
        if body := line.strip():
            try:
                found.append(Recorded(decode(body), body))
            except BadEvent as error:
                raise BadEvent(f"line {number}: {error}") from error
    return found


def offsets(events: Sequence[Event], speed: float) -> Sequence[timedelta]:
    """Return when each event is due after the first one; a step back in time counts as none."""
    moments = [round(event.timestamp.timestamp() * 1e6) for event in events]
    gaps = (max(0, after - before) for before, after in pairwise(moments))
    return [timedelta(microseconds=round(passed / speed)) for passed in accumulate(gaps, initial=0)]


def paced(dues: Sequence[timedelta]) -> Generator[slice]:
    """Yield slices of what is due, each at its moment; what is due by then comes together.

    What delays the caller does not add up: every moment counts from the beginning.
    """
    moments = [due.total_seconds() for due in dues]
    began, at = time.monotonic(), 0
    while at < len(moments):
        time.sleep(max(0.0, began + moments[at] - time.monotonic()))
        passed = max(moments[at], time.monotonic() - began)
        end = bisect_right(moments, passed, at, min(at + _BATCH, len(moments)))
        yield slice(at, end)
        at = end


def moved(events: Sequence[Event], dues: Sequence[timedelta], now: datetime) -> Sequence[Event]:
    """Return `events` as they would be, happened they again from `now` on: other executions, other times."""
    ids: dict[str, str] = {}
    return [_moved(event, now + due, ids) for event, due in zip(events, dues, strict=True)]


def _moved(event: Event, moment: datetime, ids: dict[str, str]) -> Event:
    if event.execution_id not in ids:
        ids[event.execution_id] = f"{int(moment.timestamp() * 1000):012x}{new_id()}"
    execution_id = ids[event.execution_id]
    return msgspec.structs.replace(
        event,
        event_id=f"{execution_id}-{event.sequence}",
        execution_id=execution_id,
        timestamp=moment.astimezone(UTC),
    )
