"""Which event goes to which sink.

The program's thread puts a fact (what happened, when, the data) on one queue and goes on. One thread turns
facts into events, in the order of their arrival, which is the order of the log, and hands each to the bounded
queues of the sinks that want it. Every sink has a worker of its own: one that hangs holds up nobody else.
"""

import asyncio
import atexit
import inspect
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Protocol, cast, runtime_checkable
from weakref import WeakValueDictionary

from streamll.core.context import Call, Frame, Layer, Outlet, Scope, distinct
from streamll.core.events import Event, JsonValue, TokenEvent
from streamll.core.values import jsonable

logger = logging.getLogger("streamll")

MAX_PENDING = 100_000
"""Events a sink's queue holds; past that the oldest go, counted."""
_BATCH = 256
_IDLE_SECONDS = 10.0
_EXIT_SECONDS = 5.0


@runtime_checkable
class HandlesEvents(Protocol):
    """What the router needs of a sink object; `sinks.BaseSink` is one."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def flush(self, timeout: float | None = None) -> bool: ...
    def handle_event(self, event: Event) -> object: ...


type Sink = HandlesEvents | Callable[[Event], object]


# --- configuration: layers, newest on top -------------------------------------------------------------------


class Configuration:
    """The process-wide layers, and what they add up to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._layers: tuple[Layer, ...] = ()
        self.effective = Layer()

    def push(self, layer: Layer) -> None:
        with self._lock:
            self._set((*self._layers, layer))

    def remove(self, layer: Layer) -> None:
        with self._lock:
            self._set(tuple(other for other in self._layers if other is not layer))

    def _set(self, layers: tuple[Layer, ...]) -> None:
        self._layers = layers
        self.effective = folded(Layer(), layers)


def folded(base: Layer, layers: Sequence[Layer]) -> Layer:
    for layer in layers:
        base = layer.over(base)
    return base


CONFIGURATION = Configuration()


# --- routes: who receives the events of a scope -------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """What the configuration and the instruments in force make of an event."""

    base: Layer
    outlets: tuple[Outlet, ...]
    include_inputs: bool
    include_outputs: bool
    status: tuple[Any, ...]
    layer: Layer
    memo: dict[str, bool] = field(default_factory=dict[str, bool])
    tokens: dict[Any, Mapping[str, "Route"]] = field(default_factory=dict[Any, Mapping[str, "Route"]])

    def wants(self, event_type: str) -> bool:
        """False when nobody would receive an event of this type: then it is not even taken down."""
        known = self.memo.get(event_type)
        if known is None:
            known = self.memo[event_type] = bool(self.outlets) and _passes(self.layer, event_type)
        return known

    def to(self, outlets: tuple[Outlet, ...]) -> "Route":
        return Route(self.base, outlets, self.include_inputs, self.include_outputs, self.status, self.layer)


def _passes(layer: Layer, event_type: str) -> bool:
    names = layer.event_filter
    return names is None or callable(names) or any(fnmatchcase(event_type, name) for name in names)


def _passes_any(layer: Layer) -> bool:
    return layer.event_filter is None or callable(layer.event_filter) or bool(layer.event_filter)


def route(scope: Scope) -> Route:
    """Return the route of `scope` under the configuration of this moment."""
    known = cast("Route | None", scope.routes.get("route"))
    if known is None or known.base is not CONFIGURATION.effective:
        known = scope.routes["route"] = _route(scope)
    return known


def _route(scope: Scope) -> Route:
    base = CONFIGURATION.effective
    layer = folded(base, scope.layers)
    instruments = [frame.instrument for frame in scope.frames]
    return Route(
        base=base,
        outlets=distinct([*_framed(scope.frames), *_shared(scope, layer)]) if _passes_any(layer) else (),
        include_inputs=layer.include_inputs is not False and all(i.include_inputs for i in instruments),
        include_outputs=layer.include_outputs is not False and all(i.include_outputs for i in instruments),
        status=tuple(s for s in (layer.status, *(i.status for i in instruments)) if s is not None),
        layer=layer,
    )


def _framed(frames: Sequence[Frame]) -> list[Outlet]:
    return [outlet for frame in frames for outlet in frame.instrument.outlets]


def _shared(scope: Scope, layer: Layer) -> tuple[Outlet, ...]:
    """The configured sinks; an instrumented program that nobody gave any streams to the terminal."""
    if layer.outlets is not None:
        return layer.outlets
    if not scope.frames or _framed(scope.frames):
        return ()
    return tuple(make() for make in _default)


def token_route(scope: Scope, name: str | None) -> Route | None:
    """Return who receives the tokens of the output field `name`; None when nobody does.

    Sinks of an instrument get the fields it names. Shared sinks get the fields that any instrument in force
    names, or all fields where no decorator says anything. `name` None is the text of a direct LM call.
    """
    whole = route(scope)
    asked = [(frame, frame.fields()) for frame in scope.frames]
    hit = [frame for frame, names in asked if names is None or (name in names if name else bool(names))]
    decorated = [frame for frame in scope.frames if frame.module is not None]
    shared = _shared(scope, whole.layer) if not decorated or set(decorated) & set(hit) else ()
    outlets = distinct([*_framed(hit), *shared])
    return whole.to(outlets) if outlets and whole.include_outputs and _passes(whole.layer, "token") else None


# --- sinks: a bounded queue and a worker each ---------------------------------------------------------------


class SinkOutlet:
    """A sink's queue and the thread that empties it, which ends when idle and starts again when needed."""

    def __init__(self, sink: Sink, *, limit: int = MAX_PENDING) -> None:
        self.sink = sink
        self.limit = limit
        self.dropped = 0
        self.failed = 0
        self._deliver = sink.handle_event if isinstance(sink, HandlesEvents) else sink
        self._events: deque[Event] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._worker: threading.Thread | None = None

    def put(self, events: Sequence[Event]) -> None:
        with self._changed:
            self._events.extend(events)
            if len(self._events) > self.limit:
                self._drop(len(self._events) - self.limit)
            if self._worker is None:
                self._worker = _start(self._work, f"streamll {type(self.sink).__name__}")
            self._changed.notify_all()

    def _drop(self, count: int) -> None:
        if not self.dropped:
            told = "%r is too slow: %d events wait; from here the oldest are dropped"
            logger.warning(told, self.sink, self.limit)
        self.dropped += count
        for _ in range(count):
            self._events.popleft()

    def flush(self, timeout: float | None) -> bool:
        """Wait until everything put so far is handled; False when `timeout` seconds were not enough."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            done = self._changed.wait_for(lambda: not self._events and not self._busy, timeout)
        return self._flush_sink(_left(deadline)) if done else False

    def _flush_sink(self, timeout: float | None) -> bool:
        if not isinstance(self.sink, HandlesEvents):
            return True
        try:
            return self.sink.flush(timeout) is not False
        except Exception as error:  # noqa: BLE001 - the sink's own code
            self._count_failure(error)
            return False

    def _work(self) -> None:
        with asyncio.Runner() as runner:
            while batch := self._next():
                for event in batch:
                    self._handle(event, runner)

    def _next(self) -> list[Event]:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._events, _IDLE_SECONDS):
                self._worker = None
                return []
            self._busy = True
            return [self._events.popleft() for _ in range(min(len(self._events), _BATCH))]

    def _handle(self, event: Event, runner: asyncio.Runner) -> None:
        try:
            if not getattr(self.sink, "is_running", True):
                cast("HandlesEvents", self.sink).start()
            result = self._deliver(event)
            if inspect.iscoroutine(result):
                runner.run(result)
        except Exception as error:  # noqa: BLE001 - the sink's own code
            self._count_failure(error)

    def _count_failure(self, error: Exception) -> None:
        self.failed += 1
        if self.failed & (self.failed - 1) == 0:  # 1, 2, 4, 8, ...: a line a doubling, not a line an event
            logger.warning("%r failed on %d event(s) so far: %s", self.sink, self.failed, _named(error))

    def after_fork(self) -> None:
        self._changed, self._worker, self._busy = threading.Condition(), None, False
        self._events.clear()  # the parent's worker delivers these


_outlets: WeakValueDictionary[tuple[int, str | None], SinkOutlet] = WeakValueDictionary()
"""By the sink's identity, which is its own as long as the outlet holds it: sinks may compare equal."""
_outlets_lock = threading.Lock()
_default: list[Callable[[], SinkOutlet]] = []


def outlet_for(sink: Sink) -> SinkOutlet:
    """Return the one outlet of `sink`, so that a sink configured twice gets an event once."""
    if not isinstance(sink, HandlesEvents) and not callable(sink):
        raise TypeError(
            f"{sink!r:.80} is no sink: expected a streamll.sinks.BaseSink or a callable taking an event."
        )
    owner = getattr(sink, "__self__", sink)  # `seen.append` is another object each time it is written
    key = (id(owner), getattr(sink, "__name__", None))
    with _outlets_lock:
        found = _outlets.get(key)
        if found is None:
            found = _outlets[key] = SinkOutlet(sink)
        return found


def set_default_sink(make: Callable[[], Sink]) -> None:
    """Say what an instrumented program streams to when nothing was configured."""
    _default[:] = [cache(lambda: outlet_for(make()))]


# --- the log: facts become events ---------------------------------------------------------------------------

TOKEN_KEYS = ("token", "token_index", "field")
"""What the data of a token consists of, when there is nothing special about it."""

type Fact = tuple[str, Call, int, Mapping[str, object], Route]
"""Event type, call, nanoseconds since the epoch, data, route."""


class Log:
    """The one queue of facts and the one thread that numbers them.

    Putting is an append, and a wake-up when the thread sleeps: it takes all there is before it sleeps again.
    """

    def __init__(self) -> None:
        self._facts: deque[Fact | Callable[[], object]] = deque()
        self._sleeping = False
        self._wake = threading.Lock()
        self._wake.acquire()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.lost = 0

    def put(self, event_type: str, call: Call, data: Mapping[str, object], to: Route) -> None:
        """Take down that `event_type` happened in `call`, now."""
        if len(self._facts) >= 2 * MAX_PENDING and event_type in ("token", "reasoning"):
            self._lose()
            return
        self._facts.append((event_type, call, time.time_ns(), data, to))
        if self._sleeping or self._thread is None:
            self._rouse()

    def _lose(self) -> None:
        """Drop a token: only when the process is starved of its processor; the program goes on."""
        self.lost += 1
        if self.lost == 1:
            logger.warning("%d facts wait to be events; from here tokens are dropped", len(self._facts))

    def after(self, call: Callable[[], object]) -> None:
        """Call `call` on the log's thread when all facts so far are with the sinks' queues."""
        self._facts.append(call)
        if self._sleeping or self._thread is None:
            self._rouse()

    def _rouse(self) -> None:
        self._sleeping = False
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = _start(self._work, "streamll log")
        with suppress(RuntimeError):  # another thread was first
            self._wake.release()

    def _work(self) -> None:
        while True:
            self._sleeping = True
            if not self._facts:
                self._wake.acquire()
            self._sleeping = False
            self._drain()

    def _drain(self) -> None:
        """Number what is there and hand it on, a batch an outlet."""
        batches: dict[Outlet, list[Event]] = {}
        facts = self._facts
        for _ in range(min(len(facts), _BATCH)):
            item = facts.popleft()
            try:
                if not callable(item):
                    self._add(batches, *item)
                    continue
                _hand_on(batches)
                item()
            except Exception:
                logger.exception("streamll lost an event")
        _hand_on(batches)

    def _add(
        self,
        batches: dict[Outlet, list[Event]],
        event_type: str,
        call: Call,
        stamp: int,
        data: Mapping[str, object],
        to: Route,
    ) -> None:
        event: Event | None = _event(event_type, call, stamp, data)
        if event is None:
            return
        if callable(to.layer.event_filter) and not to.layer.event_filter(event):
            return
        if to.layer.redact is not None:
            event = _redacted(event, to.layer.redact)
        if event is not None:
            for outlet in to.outlets:
                batches.setdefault(outlet, []).append(event)

    def flush(self, timeout: float | None, outlets: Sequence[SinkOutlet] | None = None) -> bool:
        """Wait until every fact so far is with the sinks (all, or `outlets`), and they have handled it."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._thread is not None and self._thread.is_alive():
            reached = threading.Event()
            self.after(reached.set)
            if not reached.wait(timeout):
                return False
        waiting = list(_outlets.values()) if outlets is None else outlets
        return all([outlet.flush(_left(deadline)) for outlet in waiting])

    def after_fork(self) -> None:
        self.__init__()
        for outlet in list(_outlets.values()):
            outlet.after_fork()


def _hand_on(batches: dict[Outlet, list[Event]]) -> None:
    for outlet, events in batches.items():
        outlet.put(events)
    batches.clear()


def _event(event_type: str, call: Call, stamp: int, data: Mapping[str, object]) -> Event | None:
    """Number a fact and make it an event; None when its execution has ended."""
    execution = call.execution
    sequence = execution.sequence
    if sequence < 0:  # a thread that outlived its program
        return None
    execution.sequence = -1 if event_type in ("execution_end", "execution_error") else sequence + 1
    token = event_type == "token"
    return (TokenEvent if token else Event)(
        event_id=f"{execution.id}-{sequence}",
        execution_id=execution.id,
        sequence=sequence,
        timestamp=_moment(stamp),
        event_type=event_type,
        call_id=call.call_id,
        parent_call_id=call.parent_id,
        module_name=call.module_name,
        operation=call.operation,
        data=cast("dict[str, JsonValue]", data if token and _is_plain(data) else jsonable(data)),
    )


def _is_plain(data: Mapping[str, object]) -> bool:
    """True when token data is JSON already, as it nearly always is."""
    return len(data) == len(TOKEN_KEYS) and cast("str", data["token"]).isascii()


def _moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


def _redacted(event: Event, redact: Callable[[Event], Event | None]) -> Event | None:
    try:
        return redact(event)
    except Exception as error:  # noqa: BLE001 - the user's function; what it could not clear does not leave
        logger.warning("redact failed on a %s event, which is withheld: %s", event.event_type, _named(error))
        return None


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _start(target: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


LOG = Log()
os.register_at_fork(after_in_child=LOG.after_fork)


def flush(timeout: float | None = None) -> bool:
    """Wait until every event so far has been handled by its sinks.

    Args:
        timeout: Seconds; None waits for ever.

    Returns:
        False when `timeout` passed first, or a sink said that it could not.
    """
    return LOG.flush(timeout)


def at_exit() -> None:
    flush(_EXIT_SECONDS)


atexit.register(at_exit)
