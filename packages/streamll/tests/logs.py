"""Events for tests of transports, and short ways to read them back."""

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from os import urandom
from time import time_ns
from typing import Any

from streamll import Event, TokenEvent

_moments = count()

NAMES: list[str] = []
"""Made by this test, to be forgotten by the servers after it."""


def new_name(prefix: str = "t") -> str:
    """Return a name nobody used before: tests share their servers."""
    NAMES.append(f"{prefix}_{urandom(6).hex()}")
    return NAMES[-1]


def new_execution(ago: timedelta = timedelta()) -> str:
    """Return an execution id as the program's would be."""
    return f"{time_ns() // 1_000_000 - int(ago.total_seconds() * 1000):012x}{urandom(8).hex()}0"


def event(execution_id: str, sequence: int, event_type: str = "token", **data: Any) -> Event:
    kind = TokenEvent if event_type == "token" else Event
    fields: dict[str, Any] = {"token": f"t{sequence} ", "token_index": sequence, "field": "answer"}
    return kind(
        event_id=f"{execution_id}-{sequence}",
        execution_id=execution_id,
        sequence=sequence,
        timestamp=datetime.now(UTC) + timedelta(microseconds=next(_moments) % 1000),
        event_type=event_type,
        call_id="c1",
        module_name="QA.predict",
        operation="Predict",
        data=(fields if event_type == "token" else {}) | data,
    )


def run_of(tokens: int, execution_id: str | None = None, *, ended: bool = True, **ids: Any) -> list[Event]:
    """Return the whole log of an execution with `tokens` tokens between its start and its end."""
    name = execution_id or new_execution()
    events = [
        event(name, 0, "execution_start", program="QA", **ids),
        *(event(name, number + 1, **ids) for number in range(tokens)),
    ]
    return [*events, event(name, tokens + 1, "execution_end", program="QA", **ids)] if ended else events


async def taken[T](source: AsyncGenerator[T], number: int) -> list[T]:
    """Return the next `number` items of `source`, and leave it open."""
    return [await anext(source) for _ in range(number)]


async def all_of[T](source: AsyncGenerator[T]) -> list[T]:
    return [item async for item in source]


def sequences(events: Sequence[Event]) -> list[int]:
    return [event.sequence for event in events]
