"""Threads for code that may block for as long as it likes: programs and gateways' hooks."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

_IDLE_SECONDS = 60.0

type _Work = Callable[[], None]


async def in_thread[T](call: Callable[[], T], *, name: str) -> T:
    """Return what `call` does in a thread of its own, in the caller's context.

    No pool has a limit here that blocked code could use up. The threads are daemons, so that what never
    returns does not keep the process from ending.

    Raises:
        RuntimeError: No thread can be started.
    """
    loop, outcome = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    here = contextvars.copy_context()

    def settle(result: T | None, error: BaseException | None) -> None:
        if not outcome.done():
            outcome.set_result(result) if error is None else outcome.set_exception(error)

    def work() -> None:
        threading.current_thread().name = name
        result, error = None, None
        try:
            result = here.run(call)
        except BaseException as raised:  # noqa: BLE001 - the caller's to handle
            error = RuntimeError(repr(raised)) if isinstance(raised, StopIteration) else raised
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, result, error)

    _threads.run(work)
    return await outcome


class _Threads:
    """Threads that are kept for a while: starting one would stop the loop until it runs."""

    def __init__(self) -> None:
        self._idle: list[SimpleQueue[_Work]] = []

    def run(self, work: _Work) -> None:
        """Have `work`, which raises nothing, done at once. RuntimeError: no thread can be started."""
        try:
            calls = self._idle.pop()
        except IndexError:
            calls = SimpleQueue[_Work]()
            threading.Thread(target=self._work, args=(calls,), daemon=True).start()
        calls.put(work)

    def _work(self, calls: SimpleQueue[_Work]) -> None:
        while True:
            try:
                work = calls.get(timeout=_IDLE_SECONDS)
            except Empty:
                with suppress(ValueError):  # somebody has just taken this one
                    self._idle.remove(calls)
                    return
                continue
            work()
            del work  # what it was about is not kept by an idle thread
            self._idle.append(calls)


_threads = _Threads()
