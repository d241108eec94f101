"""What a hostile review found once, and must not find again."""

import asyncio
import enum
import threading
import time
from typing import Any

import dspy
import pytest
import streamll
from conftest import Seen
from scripted import chat, lm, needs_engines
from streamll.core import context, describe, hooks
from streamll.core.values import jsonable
from test_tree import check_log


class Unspeakable(Exception):
    def __str__(self) -> str:
        return self.missing  # pyright: ignore


class Echo(dspy.Module):
    def forward(self, question: str) -> str:
        return question


@pytest.mark.parametrize(
    "text", ["a" * 400_000, "这是一个没有空格的长回复" * 30_000, '{"a":1},' * 50_000, ":" * 400_000]
)
def test_scrubbing_a_long_message_takes_no_time(text: str) -> None:
    began = time.perf_counter()
    describe.scrubbed(text)
    short = time.perf_counter()
    describe.scrubbed(text[:10_000])

    assert short - began < 10 * (time.perf_counter() - short) + 0.2


def test_an_exception_that_cannot_be_told_still_ends_the_log(seen: Seen) -> None:
    with pytest.raises(Unspeakable), streamll.trace("first"):
        raise Unspeakable
    Echo()(question="healthy")

    check_log(seen.settled())
    assert len({e.execution_id for e in seen}) == 2


def test_a_base_exception_in_a_value_or_a_sink_stops_nobody_else(seen: Seen) -> None:
    class Panics:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    def leaves(_: streamll.Event) -> None:
        raise SystemExit

    with streamll.configure([leaves, seen.append]):
        streamll.emit("shown", {"value": Panics()})
        streamll.emit("after")

    assert seen.of("shown")[0].data == {"value": "<Panics: unreadable, KeyboardInterrupt>"}
    assert seen.of("after")


def test_hooks_are_installed_once_by_many_threads() -> None:
    barrier, wrapped = threading.Barrier(8), dspy.Module.__call__

    def configure() -> None:
        barrier.wait(5)
        hooks.install()

    threads = [threading.Thread(target=configure) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert dspy.Module.__call__ is wrapped


async def test_a_stream_inside_a_streamed_program_is_its_own() -> None:
    class Outer(dspy.Module):
        async def aforward(self) -> str:
            async for _ in streamll.stream(Echo(), question="inner"):
                pass
            streamll.emit("later")
            return "outer"

    events = [event async for event in streamll.stream(Outer())]

    check_log(events)
    assert len({e.execution_id for e in events}) == 1
    assert [getattr(e, "prediction", None) for e in events if e.is_last] == ["outer"]


async def test_what_a_finished_stream_left_running_goes_on() -> None:
    tasks: list[asyncio.Task[Any]] = []

    class Leaves(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.predict = dspy.Predict("question -> answer")

        async def aforward(self) -> str:
            tasks.append(asyncio.create_task(self.later()))
            return "done"

        async def later(self) -> Any:
            await asyncio.sleep(0.1)
            return await self.predict.acall(question="?")

    with dspy.context(lm=lm(chat(answer="late"))):
        events = [event async for event in streamll.stream(Leaves())]

    assert events[-1].is_last
    assert (await tasks[0]).answer == "late"


async def test_a_trace_closed_from_another_task_ends_its_log(seen: Seen) -> None:
    async def steps() -> Any:
        with streamll.trace("request"):
            yield 1
            yield 2

    generator = steps()
    await asyncio.create_task(anext(generator))
    await asyncio.create_task(generator.aclose())

    assert seen.types()[-2:] == ["trace_error", "execution_error"]


async def test_a_stream_does_not_swallow_a_timeout() -> None:
    class Slow(dspy.Module):
        async def aforward(self) -> None:
            streamll.emit("begun")
            try:
                await asyncio.sleep(30)
            finally:
                await asyncio.sleep(0.5)

    events = streamll.stream(Slow())
    await anext(events)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await events.aclose()


def test_an_evaluations_table_has_no_private_input(seen: Seen) -> None:
    devset = [dspy.Example(question="SECRET", answer="a").with_inputs("question")]
    evaluate = dspy.Evaluate(devset=devset, metric=lambda *_: 1.0, num_threads=1, display_progress=False)

    class Constant(dspy.Module):
        def forward(self, question: str) -> str:
            return "a"

    with streamll.configure(include_inputs=False):
        evaluate(Constant())

    assert "evaluate_end" in seen.types()
    assert not [e for e in seen if "SECRET" in str(e.data)]


class Mood(str, enum.Enum):  # noqa: UP042 - what programs write
    GOOD = "good"


def test_odd_scalars_are_shown() -> None:
    assert jsonable({"mood": Mood.GOOD, "n": 10**5000}) == {"mood": "good", "n": "<int of 16,610 bits>"}


def test_names_need_not_be_unicode(seen: Seen) -> None:
    with streamll.trace("op\ud800"):
        streamll.emit("ev\udc80")

    assert all(streamll.decode(streamll.encode(e)) == e for e in seen.settled())


def test_a_value_that_refuses_every_question_does_not_hurt(seen: Seen) -> None:
    class Proxy:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("not bound")

    streamll.emit("proxied", {"value": Proxy()})

    assert "value" in seen.of("proxied")[0].data


def test_a_large_container_beside_a_module_costs_nothing(seen: Seen) -> None:
    class Program(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.corpus = list(range(10**6))
            self.sub = Echo()

        def forward(self) -> str:
            return self.sub(question="?")

    Program()()

    assert [e.module_name for e in seen.of("module_start")] == ["Program", "sub"]


def test_a_predicate_leaves_no_gap(seen: Seen) -> None:
    with streamll.configure(event_filter=lambda event: event.event_type != "module_start"):
        Echo()(question="?")

    assert [e.sequence for e in seen.settled()] == list(range(len(seen)))


@pytest.mark.parametrize("name", ["execution_end", "token", "lm_start"])
def test_a_users_event_has_a_name_of_its_own(seen: Seen, name: str) -> None:
    with pytest.raises(ValueError, match="an event type of streamll's own"), streamll.trace("step") as step:
        step.emit(name)

    check_log(seen.settled())


def test_one_pattern_is_a_filter_too(seen: Seen) -> None:
    with streamll.configure(event_filter="lm_*"), dspy.context(lm=lm(chat(answer="a"))):
        dspy.Predict("question -> answer")(question="?")

    assert seen.types() == ["lm_start", "lm_end"]


async def test_any_input_name_can_be_streamed() -> None:
    class Review(dspy.Module):
        def forward(self, program: str) -> str:
            return program

    events = [event async for event in streamll.stream(Review(), program="x")]

    assert events[-1].is_last


def test_flushing_while_sinks_come_and_go() -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            with streamll.configure([Seen().append]):
                pass

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        assert all(streamll.flush(5) for _ in range(200))
    finally:
        stop.set()
        thread.join()
    assert context.current() is context.EMPTY


@needs_engines
def test_an_lm_class_with_a_call_of_its_own_is_seen_once(seen: Seen) -> None:
    class Mine(dspy.LM):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    model = lm(chat(answer="Paris"))
    with dspy.context(lm=Mine("mine/model", engine=model.engine, cache=False)):
        dspy.Predict("question -> answer")(question="?")

    assert seen.types().count("lm_start") == 1
    assert seen.text("answer") == "Paris"
    check_log(seen)
