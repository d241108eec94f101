"""Sinks: a bounded queue and a worker each, so that one that hangs or raises is nobody else's business."""

import asyncio
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, cast, runtime_checkable
from weakref import WeakValueDictionary

from streamll.core.events import Event

logger = logging.getLogger("streamll")

MAX_PENDING = 100_000
"""Events a sink's queue holds; past that the oldest go, counted."""
_BATCH = 256
_IDLE_SECONDS = 10.0


@runtime_checkable
class HandlesEvents(Protocol):
    """What the router needs of a sink object; `sinks.BaseSink` is one."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def flush(self, timeout: float | None = None) -> bool: ...
    def handle_event(self, event: Event) -> object: ...


type Sink = HandlesEvents | Callable[[Event], object]


@runtime_checkable
class OwnOutlet(Protocol):
    """A sink with a queue and a worker of its own, that needs none of ours."""

    def put(self, events: Sequence[Event]) -> None: ...
    def flush(self, timeout: float | None = None) -> bool: ...
    def last_call(self, timeout: float) -> None: ...
    def after_fork(self) -> None: ...


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
                self._worker = start_thread(self._work, f"streamll {type(self.sink).__name__}")
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
        return self._flush_sink(left(deadline)) if done else False

    def last_call(self, timeout: float) -> None:
        """Handle what waits, as far as the interpreter's end allows."""
        self.flush(timeout)

    def _flush_sink(self, timeout: float | None) -> bool:
        if not isinstance(self.sink, HandlesEvents):
            return True
        try:
            return self.sink.flush(timeout) is not False
        except Exception as error:  # noqa: BLE001 - the sink's own code
            self._count_failure(error)
            return False

    def _work(self) -> None:
        runner = asyncio.Runner()  # makes a loop only if the sink is async
        try:
            while batch := self._next():
                for event in batch:
                    self._handle(event, runner)
        finally:
            runner.close()

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
        except BaseException as error:  # noqa: BLE001 - the sink's own code, and this thread must go on
            self._count_failure(error)

    def _count_failure(self, error: BaseException) -> None:
        self.failed += 1
        if self.failed & (self.failed - 1) == 0:  # 1, 2, 4, 8, ...: a line a doubling, not a line an event
            logger.warning("%r failed on %d event(s) so far: %s", self.sink, self.failed, named(error))

    def after_fork(self) -> None:
        self._changed, self._worker, self._busy = threading.Condition(), None, False
        self._events.clear()  # the parent's worker delivers these


_outlets: WeakValueDictionary[tuple[int, str | None], SinkOutlet | OwnOutlet] = WeakValueDictionary()
"""By the sink's identity, which is its own as long as the outlet holds it: sinks may compare equal."""
_outlets_lock = threading.Lock()


def outlet_for(sink: Sink) -> SinkOutlet | OwnOutlet:
    """Return the one outlet of `sink`, so that a sink configured twice gets an event once."""
    if isinstance(sink, type):
        raise TypeError(f"{sink.__name__} is a class; a sink is an instance of it: {sink.__name__}(...).")
    if not isinstance(sink, HandlesEvents) and not callable(sink):
        raise TypeError(
            f"{sink!r:.80} is no sink: expected a streamll.sinks.BaseSink or a callable on an event."
        )
    owner = getattr(sink, "__self__", sink)  # `seen.append` is another object each time it is written
    key = (id(owner), getattr(sink, "__name__", None))
    with _outlets_lock:
        found = _outlets.get(key)
        if found is None:
            found = _outlets[key] = sink if isinstance(sink, OwnOutlet) else SinkOutlet(sink)
        return found


def after_fork() -> None:
    """Make the lock anew: in the parent, another thread may have held it."""
    global _outlets_lock
    _outlets_lock = threading.Lock()


def all_outlets() -> list[SinkOutlet | OwnOutlet]:
    with _outlets_lock:
        return list(_outlets.values())


def left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def start_thread(target: Callable[[], None], name: str) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread
