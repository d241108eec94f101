"""stream(): any number of calls at once, everything that happens, the program's own result and errors."""

import asyncio
import subprocess
import sys
import threading
import time
from contextlib import aclosing
from typing import Any

import dspy
import pytest
import streamll
from conftest import Seen
from scripted import Script, chat, lm, needs_engines
from streamll import Event
from streamll.core.events import ResultEvent
from streamll.errors import NotAProgram
from test_tree import check_log

REASONED = chat(reasoning="Because it is.", answer="Paris")


class QA(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generate = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str) -> Any:
        return self.generate(question=question)


class AsyncQA(QA):
    async def aforward(self, question: str) -> Any:
        return await self.generate.acall(question=question)


async def everything(program: dspy.Module, **inputs: Any) -> list[Event]:
    return [event async for event in streamll.stream(program, **inputs)]


def text(events: list[Event], field: str) -> str:
    return "".join(
        str(e.data["token"]) for e in events if e.event_type == "token" and e.data["field"] == field
    )


@pytest.mark.parametrize("program", [QA(), AsyncQA(), dspy.ChainOfThought("question -> answer")])
async def test_it_yields_everything_and_ends_with_the_prediction(program: dspy.Module) -> None:
    with dspy.context(lm=lm(REASONED)):
        events = await everything(program, question="?")

    check_log(events)
    assert (text(events, "reasoning"), text(events, "answer")) == ("Because it is.", "Paris")
    assert isinstance(events[-1], ResultEvent)
    assert events[-1].prediction.answer == "Paris"  # pyright: ignore


async def test_a_result_that_is_no_prediction_works() -> None:
    class Length(dspy.Module):
        def forward(self, question: str) -> int:
            return len(question)

    events = await everything(Length(), question="four")

    assert [getattr(e, "prediction", None) for e in events][-1] == 4


@pytest.mark.parametrize("program", [QA(), AsyncQA()])
async def test_many_calls_at_once_on_one_program_and_again(program: dspy.Module) -> None:
    def echo(prompt: str) -> str:
        return chat(reasoning="r", answer=prompt.rpartition("[[ ## question ## ]]")[2].split()[0] * 9)

    async def one(number: int) -> None:
        events = await everything(program, question=f"q{number}.")
        check_log(events)
        assert text(events, "answer") == f"q{number}." * 9

    with dspy.context(lm=lm(echo, seconds_a_chunk=0.0005)):
        for _ in range(2):
            await asyncio.gather(*(one(number) for number in range(40)))


async def test_exceptions_are_the_programs_own_after_the_events_that_tell() -> None:
    class Broken(dspy.Module):
        def forward(self) -> None:
            raise LookupError("mine")

    events: list[Event] = []

    async def read() -> None:
        async for event in streamll.stream(Broken()):
            events.append(event)  # noqa: PERF401 - the loop raises

    with pytest.raises(LookupError, match="mine"):
        await read()

    check_log(events)
    assert events[-1].event_type == "execution_error"


async def test_a_program_that_never_runs_raises_too() -> None:
    class Empty(dspy.Module):
        pass

    with pytest.raises(AttributeError):
        await everything(Empty())


@needs_engines  # over HTTP the provider writes on until it notices
@pytest.mark.parametrize("program", [QA(), AsyncQA()])
async def test_leaving_early_stops_the_program_and_not_the_caller(program: dspy.Module) -> None:
    model = lm(chat(reasoning="word " * 2000, answer="never"), seconds_a_chunk=0.001)

    with dspy.context(lm=model):
        async with aclosing(streamll.stream(program, question="?")) as events:
            async for event in events:
                if event.event_type == "token":
                    break
        script: Script = model.engine
        chunks = script.chunks
        await asyncio.sleep(0.1)

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert script.chunks - chunks <= 5


@needs_engines
def test_leaving_early_lets_the_interpreter_exit() -> None:
    code = """
import asyncio, dspy, streamll, streamll.local
async def main():
    with dspy.context(lm=streamll.local.lm()):
        async for event in streamll.stream(dspy.Predict("question -> answer"), question="Why?"):
            if event.event_type == "token":
                break
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")


async def test_the_loop_keeps_turning_while_a_sync_program_runs() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticker = asyncio.create_task(tick())
    with dspy.context(lm=lm(REASONED, seconds_a_chunk=0.01)):
        await everything(QA(), question="?")
    ticker.cancel()

    assert ticks > 50


async def test_events_come_while_the_model_writes() -> None:
    with dspy.context(lm=lm(chat(reasoning="word " * 30, answer="x"), seconds_a_chunk=0.005)):
        arrived = [(e.event_type, time.monotonic()) async for e in streamll.stream(QA(), question="?")]

    first = next(when for kind, when in arrived if kind == "token")
    assert arrived[-1][1] - first > 0.1


async def test_it_asks_for_every_field_even_of_an_instrumented_program(seen: Seen) -> None:
    program = streamll.instrument(type("Named", (QA,), {}), stream_fields=["answer"])

    with dspy.context(lm=lm(REASONED)):
        events = await everything(program(), question="?")

    assert text(events, "reasoning") == "Because it is."
    assert {e.data["field"] for e in seen.of("token")} == {"answer"}


@pytest.mark.parametrize("withheld", [{"event_filter": {"token"}}, {"redact": lambda event: None}], ids=str)
async def test_the_result_comes_even_when_its_event_is_withheld(withheld: dict[str, Any]) -> None:
    with streamll.configure(**withheld), dspy.context(lm=lm(REASONED)):
        events = await everything(QA(), question="?")

    assert {e.event_type for e in events[:-1]} <= {"token"}
    assert events[-1].prediction.answer == "Paris"  # pyright: ignore


async def test_it_takes_programs_only() -> None:
    with pytest.raises(NotAProgram, match=r"takes a dspy\.Module"):
        streamll.stream(lambda: None)  # pyright: ignore


async def test_inside_a_trace_it_is_an_execution_of_its_own(seen: Seen) -> None:
    with dspy.context(lm=lm(REASONED)), streamll.trace("request"):
        events = await everything(QA(), question="?")

    check_log(events)
    check_log(seen.settled())
    assert len({e.execution_id for e in seen}) == 2


class Words(dspy.streaming.StatusMessageProvider):
    def tool_start_status_message(self, instance: Any, inputs: Any) -> str:
        return f"Searching {inputs['kwargs']['query']}…"

    def tool_end_status_message(self, outputs: Any) -> str:
        return f"Found {outputs}."

    def module_start_status_message(self, instance: Any, inputs: Any) -> str | None:
        return f"Starting {type(instance).__name__}" if isinstance(instance, dspy.ReAct) else None

    def module_end_status_message(self, outputs: Any) -> str | None:
        return None

    def lm_start_status_message(self, instance: Any, inputs: Any) -> str | None:
        return "Thinking…"

    def lm_end_status_message(self, outputs: Any) -> str | None:
        raise RuntimeError("a provider may fail")


def search(query: str) -> str:
    """Look it up."""
    return f"{query}!"


@pytest.mark.parametrize("how", ["stream", "configure", "thread"])
async def test_status_messages_reach_the_user(seen: Seen, how: str) -> None:
    step = chat(next_thought="t", next_tool_name="search", next_tool_args='{"query": "x"}')
    done = chat(next_thought="t", next_tool_name="finish", next_tool_args="{}")
    agent = dspy.ReAct("question -> answer", tools=[search])
    model = lm(step, done, REASONED)

    with dspy.context(lm=model):
        if how == "stream":
            events = [e async for e in streamll.stream(agent, status_message_provider=Words(), question="?")]
        else:
            with streamll.configure(status_message_provider=Words()):
                await dspy.asyncify(agent)(question="?") if how == "thread" else agent(question="?")
            events = list(seen.settled())

    told = [e.data["message"] for e in events if e.event_type == "status"]
    assert told[:4] == ["Starting ReAct", "Thinking…", "Searching x…", "Found x!."]
    check_log(events)


async def test_programs_run_in_threads_of_their_own() -> None:
    inside, barrier = [], threading.Barrier(50)

    class Meet(dspy.Module):
        def forward(self) -> str:
            barrier.wait(20)
            inside.append(threading.current_thread().name)
            return "met"

    await asyncio.gather(*(everything(Meet()) for _ in range(50)))

    assert len(inside) == 50
