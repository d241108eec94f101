"""`stream`: one call as an async iterator of its events; `execution`: a call under your id, to your sinks."""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import Token
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, Self, cast

import dspy

from streamll.core import capture, context, hooks
from streamll.core.context import Execution, Frame, Instrument, Outlet
from streamll.core.events import Event, ResultEvent, rebuilt
from streamll.core.log import LOG
from streamll.core.outlets import HandlesEvents, Sink, outlet_for
from streamll.core.values import jsonable
from streamll.errors import ConsumerTooSlow, NotAProgram

MAX_BEHIND = 100_000
"""Events that may wait for a slow reader."""

type Stopped = Literal["cancelled", "timeout", "interrupted"]
"""Why a program was told to stop: the `code` of the error that ends its log."""


class execution:
    """Give the next program call, inside the `with`, an id of your choosing and sinks of its own.

    `with streamll.execution(sinks=[sink]) as execution: program(question=q)`. The call must be the outermost
    one; its events go to `sinks` with the tokens of every field, besides the configured sinks.

    Args:
        execution_id: Unique; made if None. Ids that sort by time (12 hexadecimal digits of milliseconds since
            the epoch, then 16 or more) let a store find the execution faster.
        sinks: `BaseSink`s, callables, or objects with a `put(events)`, which is handed batches on the log's
            own thread and must neither block nor raise.
        status_message_provider: A `dspy.streaming.StatusMessageProvider`; its words become `status` events.
        about: Put into the data of `execution_start`, and so into what `EventLog.executions` tells.
    """

    def __init__(
        self,
        execution_id: str | None = None,
        /,
        *,
        sinks: Iterable[Sink | Outlet] = (),
        status_message_provider: Any = None,
        **about: object,
    ) -> None:
        hooks.install()
        self._execution = Execution(execution_id, cast("dict[str, Any]", jsonable(about)))
        outlets = tuple(map(_outlet, sinks))
        self._frame = Frame(Instrument(outlets=outlets, fields=None, status=status_message_provider))
        self._token: Token[Any] | None = None

    @property
    def id(self) -> str:
        """Id of the execution."""
        return self._execution.id

    def stop(self, code: Stopped = "cancelled") -> None:
        """Make the program stop at its next call or token; `code` is why, in its last event."""
        self._execution.stopped = self._execution.stopped or code

    def close(self, code: Stopped = "interrupted") -> None:
        """End the log now, of a program that does not stop: what it still does is not told."""
        self.stop(code)
        capture.close(self._execution, code)

    def __enter__(self) -> Self:
        scope = context.current()
        # Another execution's sinks are not told of this one; a decorated module's are.
        decorated = [frame for frame in scope.frames if frame.module is not None]
        self._token = context.bind(scope.but(frames=(*decorated, self._frame), execution=self._execution))
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            context.unbind(self._token)


def _outlet(sink: Sink | Outlet) -> Outlet:
    return outlet_for(sink) if isinstance(sink, HandlesEvents) or callable(sink) else sink


def stream(
    program: dspy.Module, /, *, status_message_provider: Any = None, **inputs: Any
) -> AsyncGenerator[Event]:
    """Run `program(**inputs)` and yield every event of it as it happens.

    Any number of calls may run at once, on one program. A program with an `aforward` of its own runs on this
    loop, any other in a thread of its own. The event that ends the log is a `ResultEvent`: what the program
    returned is its `prediction`. Leaving early (`contextlib.aclosing` makes that prompt) stops the program at
    its next call or token.

    Args:
        program: Any `dspy.Module`, instrumented or not.
        status_message_provider: A `dspy.streaming.StatusMessageProvider`; its words become `status` events.
        inputs: The program's arguments.

    Raises:
        NotAProgram: `program` is no `dspy.Module`.
        ConsumerTooSlow: The reader fell 100,000 events behind; the program is stopped.
        Exception: Whatever the program raises, unchanged, after the events that tell of it.
    """
    if not isinstance(cast("object", program), dspy.Module):
        raise NotAProgram(
            f"streamll.stream() was given {program!r:.80}; it takes a dspy.Module and its inputs."
        )
    hooks.install()
    return _stream(program, inputs, status_message_provider)


async def _stream(program: dspy.Module, inputs: dict[str, Any], status: Any) -> AsyncGenerator[Event]:
    mailbox = _Mailbox()
    with execution(sinks=[mailbox], status_message_provider=status) as running:
        run = asyncio.create_task(_run(program, inputs, mailbox))
    sequence, ended = -1, False
    try:
        while (event := await mailbox.get()) is not None:
            own = event.execution_id == running.id
            ended = own and event.event_type == "execution_end"
            sequence = event.sequence if own else sequence
            yield rebuilt(event, ResultEvent, prediction=await run) if ended else event
        result = await run
        if not ended:  # a filter or `redact` withheld the end; the caller still gets what was returned
            yield _end(running.id, sequence + 1, result)
    finally:
        if not run.done():
            running.stop()
            run.cancel()
            await asyncio.wait([run])


def _end(execution_id: str, sequence: int, result: object) -> ResultEvent:
    return ResultEvent(
        event_id=f"{execution_id}-{sequence}",
        execution_id=execution_id,
        sequence=sequence,
        timestamp=datetime.now(UTC),
        event_type="execution_end",
        prediction=result,
    )


async def _run(program: dspy.Module, inputs: dict[str, Any], mailbox: "_Mailbox") -> object:
    """Return what the program returns; then, and not before its last event, close the mailbox."""
    try:
        if _is_async(program):
            return await program.acall(**inputs)
        return await _in_thread(partial(program, **inputs))
    finally:
        LOG.after(mailbox.close)


def _is_async(program: dspy.Module) -> bool:
    """True for an `aforward` the user wrote. DSPy's own have a `forward` too, which works with every LM."""
    aforward = getattr(type(program), "aforward", None)
    return aforward is not None and (
        not aforward.__module__.startswith("dspy.") or not hasattr(type(program), "forward")
    )


async def _in_thread(function: Callable[[], object]) -> object:
    """Run `function` in a thread of its own with this task's context: a pool would limit the calls."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[tuple[object, BaseException | None]] = loop.create_future()

    def settle(result: object, raised: BaseException | None) -> None:
        if not outcome.done():
            outcome.set_result((result, raised))

    def work() -> None:
        result, raised = None, None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - carried to the caller
            raised = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, result, raised)

    # Not a daemon: killed inside a native library at interpreter exit, it would take the process down. It
    # ends at its next call or token once nobody reads.
    context_here = contextvars.copy_context()
    threading.Thread(target=context_here.run, args=(work,), name="streamll program").start()
    result, raised = await outcome
    if raised is not None:
        raise raised
    return result


class _Mailbox:
    """Events from the log's thread to the loop that reads them: one wake-up a burst, not one an event."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._events: deque[Event | None] = deque()
        self._overflowed = False

    def put(self, events: Sequence[Event | None]) -> None:
        if len(self._events) >= MAX_BEHIND:
            self._overflowed = True
            return
        self._events.extend(events)
        if len(self._events) <= len(events):  # the reader had taken all there was, and may wait
            with suppress(RuntimeError):  # the loop is closed: nobody reads
                self._loop.call_soon_threadsafe(self._ready.set)

    def close(self) -> None:
        self.put([None])

    async def get(self) -> Event | None:
        """Return the next event, None after the last."""
        while not self._events:
            self._ready.clear()
            if not self._events:
                await self._ready.wait()
        if self._overflowed:
            raise ConsumerTooSlow(
                f"The reader of streamll.stream() is {MAX_BEHIND:,} events behind; read faster."
            )
        return self._events.popleft()
