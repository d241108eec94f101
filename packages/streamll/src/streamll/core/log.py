"""The log: facts become events.

The program's thread puts a fact (what happened, when, the data) on one queue and goes on. One thread turns
facts into events, in the order of their arrival, which is the order of the log, and hands each to the bounded
queues of the sinks that want it.
"""

import atexit
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from time import time_ns
from typing import cast

from streamll.core import outlets
from streamll.core.context import Call, Outlet
from streamll.core.events import LAST, Event, JsonValue, TokenEvent, with_data
from streamll.core.outlets import (
    MAX_PENDING,
    OwnOutlet,
    SinkOutlet,
    all_outlets,
    left,
    named,
    start_thread,
)
from streamll.core.router import Route
from streamll.core.values import jsonable

logger = logging.getLogger("streamll")

_MAX_FACTS = 2 * MAX_PENDING
_BATCH = 1024
_EXIT_SECONDS = 5.0
_PAUSE_SECONDS = 0.001
_BURST = 8
"""Facts at once: from here it is a burst, in which the program and this thread would fight for the
interpreter; so this thread pauses, and takes more at a time. Below, an event is on its way at once."""

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
        self._sleeping = True
        self._wake = threading.Lock()
        self._wake.acquire()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.lost = 0

    def put(self, event_type: str, call: Call, data: Mapping[str, object], to: Route) -> None:
        """Take down that `event_type` happened in `call`, now."""
        facts = self._facts
        if len(facts) >= _MAX_FACTS and event_type in ("token", "reasoning"):
            self._lose()
            return
        facts.append((event_type, call, time_ns(), data, to))
        if self._sleeping:
            self._rouse()

    def _lose(self) -> None:
        """Drop a token: only when the process is starved of its processor; the program goes on."""
        self.lost += 1
        if self.lost == 1:
            logger.warning("%d facts wait to be events; from here tokens are dropped", len(self._facts))

    def after(self, call: Callable[[], object]) -> None:
        """Call `call` on the log's thread when all facts so far are with the sinks' queues."""
        self._facts.append(call)
        if self._sleeping:
            self._rouse()

    def _rouse(self) -> None:
        self._sleeping = False
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._begin():
                    return
        with suppress(RuntimeError):  # another thread was first
            self._wake.release()

    def _begin(self) -> bool:
        try:
            self._thread = start_thread(self._work, "streamll log")
        except RuntimeError:  # no thread can be started now: the next fact tries again
            self._sleeping = True
        return self._thread is not None

    def _work(self) -> None:
        while True:
            self._sleeping = True
            if not self._facts:
                self._wake.acquire()
            self._sleeping = False
            if self._drain() >= _BURST:
                time.sleep(_PAUSE_SECONDS)

    def _drain(self) -> int:
        """Number what is there and hand it on, a batch an outlet; returns how much it was."""
        batches: dict[Outlet, list[Event]] = {}
        facts = self._facts
        number = min(len(facts), _BATCH)
        for _ in range(number):
            item = facts.popleft()
            try:
                if not callable(item):
                    self._add(batches, *item)
                    continue
                _hand_on(batches)
                item()
            except BaseException:  # of a value, of a filter, ours: the next event is not to blame
                logger.exception("streamll lost an event")
        _hand_on(batches)
        return number

    def _add(
        self,
        batches: dict[Outlet, list[Event]],
        event_type: str,
        call: Call,
        stamp: int,
        data: Mapping[str, object],
        to: Route,
    ) -> None:
        event = _event(event_type, call, stamp, data)
        if event is None:
            return
        execution, shown = call.execution, _shown(event, to)
        if to is not execution.last_route:
            execution.last_route = to
            execution.outlets.update(dict.fromkeys(to.outlets))
        if shown is not None:
            for outlet in to.outlets:
                batches.setdefault(outlet, []).append(shown)
        elif not event.is_last:
            execution.sequence = event.sequence  # nobody saw the number: the next event has it
        if event.is_last:
            for outlet in execution.outlets.keys() - to.outlets:
                batches.setdefault(outlet, []).append(_closing(event))

    def flush(self, timeout: float | None, outlets: Sequence[SinkOutlet | OwnOutlet] | None = None) -> bool:
        """Wait until every fact so far is with the sinks (all, or `outlets`), and they have handled it."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._thread is not None and self._thread.is_alive():
            reached = threading.Event()
            self.after(reached.set)
            if not reached.wait(timeout):
                return False
        waiting = all_outlets() if outlets is None else outlets
        return all([outlet.flush(left(deadline)) for outlet in waiting])

    def after_fork(self) -> None:
        self.__init__()
        outlets.after_fork()
        for outlet in all_outlets():
            outlet.after_fork()


def _closing(event: Event) -> Event:
    """Return the end of a log for a sink of an inner module: it is told how it ended, not what of."""
    error = event.data.get("error")
    kept = (
        {name: error[name] for name in ("type", "code") if name in error} if isinstance(error, dict) else None
    )
    return with_data(event, {**event.data, "error": kept} if kept else event.data)


def _shown(event: Event, to: Route) -> Event | None:
    """Return what the sinks get of `event`: None when a predicate or `redact` withholds it."""
    if callable(to.layer.event_filter) and not to.layer.event_filter(event):
        return None
    return event if to.layer.redact is None else _redacted(event, to.layer.redact)


def _hand_on(batches: dict[Outlet, list[Event]]) -> None:
    for outlet, events in batches.items():
        try:
            outlet.put(events)
        except Exception:  # no thread can be started, or the loop is gone: the other sinks go on
            logger.exception("streamll lost %d event(s) of %r", len(events), outlet)
    batches.clear()


def _event(event_type: str, call: Call, stamp: int, data: Mapping[str, object]) -> Event | None:
    """Number a fact and make it an event; None when its execution has ended."""
    execution = call.execution
    sequence = execution.sequence
    if sequence < 0:  # a thread that outlived its program
        return None
    is_token = event_type == "token"
    execution.sequence = -1 if event_type in LAST else sequence + 1
    # A token's data is JSON already, as nearly always; two in three events are tokens.
    plain = (
        is_token
        and len(data) == len(TOKEN_KEYS)
        and type(text := data.get("token")) is str
        and text.isascii()
    )
    return (TokenEvent if is_token else Event)(
        event_id=f"{execution.id}-{sequence}",
        execution_id=execution.id,
        sequence=sequence,
        timestamp=datetime.fromtimestamp(stamp / 1e9, UTC),
        event_type=event_type if is_token else _name(event_type),
        call_id=call.call_id,
        parent_call_id=call.parent_id,
        module_name=call.module_name and _name(call.module_name),
        operation=_name(call.operation),
        data=cast("dict[str, JsonValue]", data if plain else jsonable(data)),
    )


@lru_cache(maxsize=1024)
def _name(name: str) -> str:
    """Return a name as Unicode text, which a program's own names need not be."""
    return name if type(name) is str and name.isascii() else str(jsonable(name))


def _redacted(event: Event, redact: Callable[[Event], Event | None]) -> Event | None:
    try:
        return redact(event)
    except Exception as error:  # noqa: BLE001 - the user's function; what it could not clear does not leave
        logger.warning("redact failed on a %s event, which is withheld: %s", event.event_type, named(error))
        return None


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
    """Bring the sinks what is under way, and let them see to it."""
    deadline = time.monotonic() + _EXIT_SECONDS
    LOG.flush(_EXIT_SECONDS, ())
    for outlet in all_outlets():
        outlet.last_call(max(0.0, deadline - time.monotonic()))


atexit.register(at_exit)


def flush_on_sigterm() -> None:
    """Let a process that nobody taught to end gracefully lose nothing when it is told to.

    Only where SIGTERM would kill it on the spot: a handler of the program or its server stays as it is.
    """
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, _terminated)


def _terminated(_signal: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the second one kills
    # Not here: this interrupts the main thread anywhere, maybe with a lock in its hands.
    start_thread(_leave, "streamll leaves")


def _leave() -> None:
    at_exit()
    os.kill(os.getpid(), signal.SIGTERM)
