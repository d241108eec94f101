"""What follows a call through threads and tasks: its execution, its instruments, its correlation ids.

A `Scope` rides in DSPy's own settings, because that is what DSPy carries into `dspy.Parallel`, `asyncify`
and its thread pools; a private `ContextVar` is empty there. Scopes are immutable: entering something binds
another one, leaving it restores the old one. The call tree is built from DSPy's call ids (`capture.py`).
"""

import itertools
import os
import threading
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Token
from dataclasses import dataclass, field
from time import perf_counter, time_ns
from typing import Any, Protocol, cast

from dspy.dsp.utils.settings import (
    dotdict,  # pyright: ignore[reportUnknownVariableType]
    thread_local_overrides,  # pyright: ignore[reportUnknownVariableType]
)

from streamll.core.events import Event, JsonValue

_KEY = "_streamll"

type EventFilter = Collection[str] | Callable[[Event], bool]
type Redact = Callable[[Event], Event | None]


class Outlet(Protocol):
    """Where events go: `put` never blocks and never raises."""

    def put(self, events: Sequence[Event]) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What one `configure` call says; None is unsaid. The newest layer that says something wins."""

    outlets: tuple[Outlet, ...] | None = None
    event_filter: EventFilter | None = None
    include_inputs: bool | None = None
    include_outputs: bool | None = None
    redact: Redact | None = None
    status: Any = None
    include_tracebacks: bool | None = None
    optimizer_tokens: bool | None = None

    def over(self, below: "Layer") -> "Layer":
        said = {name: value for name in Layer.__slots__ if (value := getattr(self, name)) is not None}
        return Layer(**({name: getattr(below, name) for name in Layer.__slots__} | said))


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Instrument:
    """What one `@instrument` or one `stream()` asks for; `fields` None means all of them."""

    outlets: tuple[Outlet, ...] = ()
    fields: frozenset[str] | None = frozenset()
    include_inputs: bool = True
    include_outputs: bool = True
    status: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """An instrument in force, for the module instance that brought it; `stream()` brings one without."""

    instrument: Instrument
    module: object = None

    def fields(self) -> frozenset[str] | None:
        """Fields to stream, as of now: a module may set `_streamll_stream_fields` while it runs."""
        dynamic = getattr(self.module, "__dict__", {}).get("_streamll_stream_fields")
        return self.instrument.fields if dynamic is None else frozenset(dynamic)


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """Everything that follows a call."""

    ids: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    layers: tuple[Layer, ...] = ()
    frames: tuple[Frame, ...] = ()
    execution: "Execution | None" = None
    quiet: bool = False  # inside an optimizer: no tokens
    routes: dict[str, Any] = field(default_factory=dict[str, Any])  # memo of `router.route`

    def __reduce__(self) -> tuple[type["Scope"], tuple[()]]:
        return Scope, ()  # what is in force here, sinks and all, is not in force where settings are loaded

    def __deepcopy__(self, memo: object) -> "Scope":
        return self

    def but(self, **changes: Any) -> "Scope":
        kept = {name: getattr(self, name) for name in ("ids", "layers", "frames", "execution", "quiet")}
        if not changes.keys() & {"layers", "frames"}:
            kept["routes"] = self.routes  # they depend on nothing else
        return Scope(**(kept | changes))


class _Ids:
    """Unique ids: random for the process, and a number. `uuid4` would cost ten times as much."""

    def __init__(self) -> None:
        self._process = os.urandom(8).hex()
        self._numbers = itertools.count()
        os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        self._process = os.urandom(8).hex()

    def __call__(self) -> str:
        return f"{self._process}{next(self._numbers):x}"


new_id = _Ids()


class Execution:
    """One append-only log. What is numbered and sent belongs to the log, the rest to the program."""

    __slots__ = (
        *(
            "about",
            "calls",
            "closed",
            "id",
            "last_route",
            "lock",
            "outlets",
            "root",
            "sequence",
            "started",
        ),
        *("stopped", "token", "totals"),
        "__weakref__",
    )

    def __init__(self, execution_id: str | None = None, about: Mapping[str, JsonValue] | None = None) -> None:
        # The id sorts by time, which a store can seek by.
        self.id = execution_id or f"{time_ns() // 1_000_000:012x}{new_id()}"
        self.about = about or {}  # what its first event says besides
        self.calls: dict[str, Call] = {}
        self.root: Call | None = None
        self.stopped: str | None = None  # why the program is to stop at its next call or token
        self.closed = False
        self.started = perf_counter()
        self.sequence = 0
        self.last_route: object = None
        self.outlets: dict[Outlet, None] = {}  # that were given any of it
        self.lock = threading.Lock()
        self.token: Token[Any] | None = None
        self.totals: dict[str, Any] = dict(_NO_TOTALS)

    def add(self, **amounts: float | None) -> None:
        with self.lock:
            for name, amount in amounts.items():
                self.totals[name] += amount or 0


_NO_TOTALS: Mapping[str, float] = {
    "lm_calls": 0,
    "tool_calls": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "cost_usd": 0.0,
    "unpriced_calls": 0,
    "cached_calls": 0,
    "corrections": 0,
}


class Call:
    """One call in the tree, from its start to its end."""

    __slots__ = (
        "adapter",
        "call_id",
        "execution",
        "instance",
        "kind",
        "lm",
        "module_name",
        "operation",
        "owner",
        "parent",
        "parent_id",
        "scope",
        "started",
    )

    def __init__(
        self,
        kind: str,
        call_id: str,
        execution: Execution,
        *,
        scope: Scope,
        parent: "Call | None",
        instance: object,
    ) -> None:
        self.kind = kind
        self.call_id = call_id
        self.execution = execution
        self.scope = scope
        self.parent = parent
        self.parent_id = parent.call_id if parent else None
        self.instance = instance
        self.owner: Call | None = parent.owner if parent else None
        self.module_name: str | None = parent.module_name if parent else None
        self.operation: str = ""
        self.started = perf_counter()
        self.adapter: Any = None
        self.lm: Any = None


EMPTY = Scope()


class Abandoned(BaseException):
    """Raised inside a program that is told to stop, at its next call or token. Not an `Exception`: ReAct and
    `dspy.Parallel` would catch that and carry on."""


def current() -> Scope:
    """Return the scope in force here; the empty one outside of everything."""
    return cast("Scope", thread_local_overrides.get().get(_KEY, EMPTY))


def bind(scope: Scope, **settings: object) -> Token[Any]:
    """Put `scope` (and DSPy settings) in force in this thread or task; `unbind` undoes it.

    Unlike `dspy.context` this does not copy the global settings, so a later `dspy.configure` is still seen.
    """
    overrides = cast("Any", dotdict(thread_local_overrides.get()))
    overrides.update(settings)
    overrides[_KEY] = scope
    return thread_local_overrides.set(overrides)


def unbind(token: Token[Any]) -> None:
    """Restore what was in force before `bind`."""
    restore(thread_local_overrides, token)


def restore(variable: Any, token: Token[Any]) -> None:
    """Reset `variable`; a token from another context is let go."""
    try:
        variable.reset(token)
    except ValueError:  # the generator or task that entered was closed from elsewhere
        return


@contextmanager
def bound(scope: Scope, **settings: object) -> Generator[Scope]:
    """Keep `scope` in force inside the `with`."""
    token = bind(scope, **settings)
    try:
        yield scope
    finally:
        unbind(token)


def distinct[T](items: Sequence[T]) -> tuple[T, ...]:
    """Return `items` without repetitions, in order."""
    return tuple(dict.fromkeys(items))
