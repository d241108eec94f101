"""One run: a call of a program that goes on whoever watches, and what it came to."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, NamedTuple

import dspy
import streamll
from streamll.core.events import JsonValue

from dspy_cli.project.programs import Program
from dspy_cli.server.outcomes import HINTS, Status, Stop, failed
from dspy_cli.server.problems import Problem
from dspy_cli.server.streaming import StreamingCallback, event_stream_generator


class Returned(NamedTuple):
    """What a program returned, as it is and as JSON; or what it raised."""

    value: object = None
    outputs: JsonValue = None
    error: BaseException | None = None


class Run:
    """One call of a program, which goes on whoever watches."""

    def __init__(
        self,
        program: Program,
        inputs: Mapping[str, object],
        callback: StreamingCallback,
        execution: streamll.execution,
    ) -> None:
        self.id = execution.id
        self.program = program
        self.inputs = inputs
        self.callback = callback
        self.execution = execution
        self.status: Status = "queued"
        self.started = datetime.now(UTC)
        self.began = perf_counter()
        self.seconds: float | None = None
        self.stopped: Stop | None = None
        self.task: asyncio.Task[None] | None = None
        self.can_interrupt = True
        self.answer: asyncio.Future[Returned] = asyncio.get_running_loop().create_future()

    async def result(self) -> object:
        """Return what the program returned.

        Raises:
            Problem: It failed or was stopped; the document says how, without the program's own words.
        """
        return (await self._answered()).value

    async def outputs(self) -> JsonValue:
        """Return what the program returned, as JSON. Raises what `result` raises."""
        return (await self._answered()).outputs

    async def _answered(self) -> Returned:
        answer = await asyncio.shield(self.answer)
        if isinstance(answer.error, Problem):
            raise answer.error
        return answer

    def settle(self, answer: Returned) -> None:
        """Give the answer, unless there is one: a run that was stopped has it before its program ends."""
        if not self.answer.done():
            self.answer.set_result(answer)

    def cancel(self, code: Stop = "cancelled") -> None:
        """Stop the program at its next LM call, tool call or token; in the queue, it never starts."""
        if self.answer.done():
            return
        self.stopped = code
        self.execution.stop(code)
        self.settle(Returned(error=failed(self.id, code, HINTS[code])))
        awaits = self.program.is_async or self.status == "queued"
        if self.task is not None and self.can_interrupt and awaits:
            self.task.cancel()

    def frames(self, after: int = -1) -> AsyncGenerator[bytes]:
        """Yield the run's frames after a sequence. Raises `Behind` when they are only in the log."""
        return event_stream_generator(self.callback, after)

    async def events(self, after: int = -1) -> AsyncGenerator[streamll.Event]:
        """Yield the run's events after a sequence, as they come."""
        async with aclosing(self.frames(after)) as chunks:
            async for chunk in chunks:
                for one in chunk.split(b"\n\n"):
                    if one.startswith(b"id: ") and b"\nevent: prediction\n" not in one:
                        yield streamll.decode(one.partition(b"\ndata: ")[2])


# --- calling ------------------------------------------------------------------------------------------------


def called(run: Run) -> Returned:
    """Call a program on a worker thread, where DSPy's context is made again."""
    try:
        with dspy.context(**_context(run)), run.execution, run.callback.observing():
            value = run.program.module(**run.inputs)
        return Returned(value, run.program.outputs(value))
    except BaseException as error:  # noqa: BLE001 - the program's own; a future refuses some of them
        return Returned(error=error)


async def acalled(run: Run) -> Returned:
    """Call a program with an `aforward` of its own on the loop."""
    try:
        with dspy.context(**_context(run)), run.execution, run.callback.observing():
            value = await run.program.module.acall(**run.inputs)
        return Returned(value, run.program.outputs(value))
    except BaseException as error:  # noqa: BLE001 - the program's own, cancelled or not
        return Returned(error=error)


def _context(run: Run) -> dict[str, Any]:
    return {} if run.program.lm is None else {"lm": run.program.lm}
