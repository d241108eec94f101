"""instrument, trace, emit, configure, set_context: who is told, about what, with which ids."""

import asyncio
import copy
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest
import streamll
from conftest import Seen
from scripted import chat, lm
from streamll.errors import NotAProgram
from test_tree import check_log

MODEL = chat(reasoning="Because.", answer="Paris")


class Plain(dspy.Module):
    def __init__(self) -> None:
        self.generate = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str) -> Any:
        return self.generate(question=question)


def instrumented(**options: Any) -> type[Plain]:
    return streamll.instrument(**options)(type("Program", (Plain,), {}))


def ask(program: dspy.Module, **settings: Any) -> Any:
    with dspy.context(lm=lm(MODEL), **settings):
        return program(question="?")


# --- instrument


def test_it_returns_the_class_and_the_prediction_as_usual() -> None:
    program = type("Program", (Plain,), {})

    assert streamll.instrument(program, sinks=[Seen().append]) is program
    assert ask(program()).answer == "Paris"


def test_it_decorates_with_and_without_parentheses() -> None:
    assert isinstance(streamll.instrument(type("A", (Plain,), {})), type)
    assert isinstance(streamll.instrument()(type("B", (Plain,), {})), type)


@pytest.mark.parametrize("given", [int, "QA", dspy.Predict("q -> a")])
def test_it_refuses_what_is_no_program_class(given: Any) -> None:
    with pytest.raises(NotAProgram, match=r"goes on a dspy\.Module subclass"):
        streamll.instrument(given)


@pytest.mark.parametrize("given", [[3], "events.jsonl", [None]])
def test_a_sink_must_take_events(given: Any) -> None:
    with pytest.raises(TypeError, match=r"is no sink: expected a streamll\.sinks\.BaseSink or a callable"):
        streamll.configure(given)


def test_a_sink_is_no_class() -> None:
    with pytest.raises(TypeError, match="JsonlSink is a class; a sink is an instance of it"):
        streamll.configure([streamll.sinks.JsonlSink])


def test_a_field_that_no_predictor_has_is_told_once(seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    program = instrumented(stream_fields=["resoning", "answer"])

    ask(program())
    ask(program())

    (line,) = [r.getMessage() for r in caplog.records if r.name == "streamll"]
    assert line == (
        "Program: no predictor has an output field ['resoning'] to stream; there are ['answer', 'reasoning']"
    )


def test_a_modules_sinks_hold_for_everything_inside_in_any_thread() -> None:
    seen = Seen()
    program = instrumented(sinks=[seen.append], stream_fields=["answer"])

    class Fan(dspy.Module):
        def forward(self, question: str) -> Any:
            with streamll.trace("fan") as step:
                step.emit("fanned", count=2)
            return dspy.Parallel(num_threads=2, disable_progress_bar=True)(
                [(Plain(), {"question": question})] * 2
            )

    fan = streamll.instrument(Fan, sinks=[seen.append], stream_fields=["answer"])
    ask(program())
    ask(fan())

    assert {"trace_start", "fanned", "trace_end", "lm_start", "tool_start"} - set(seen.types()) == {
        "tool_start"
    }
    assert seen.text("answer") == "Paris" * 3
    check_log(seen)


def test_a_module_without_sinks_does_not_report_to_anothers() -> None:
    seen = Seen()
    streamll.configure([])
    ask(instrumented(sinks=[seen.append])())
    before = len(seen.settled())

    ask(instrumented()())
    ask(Plain())

    assert len(seen.settled()) == before


def test_a_sink_configured_twice_gets_an_event_once(seen: Seen) -> None:
    program = instrumented(sinks=[seen.append, seen.append], stream_fields=["answer"])

    ask(program())

    check_log(seen.settled())
    assert seen.text("answer") == "Paris"


def test_subclasses_of_instrumented_classes_work_decorated_or_not(seen: Seen) -> None:
    base = instrumented(stream_fields=["answer"])
    child = streamll.instrument(type("Child", (base,), {}), stream_fields=["reasoning"])

    ask(type("Undecorated", (base,), {})())
    ask(child())

    check_log(seen.settled())
    assert seen.text("answer") == "ParisParis"
    assert seen.text("reasoning") == "Because."


def test_fields_may_change_while_the_program_runs(seen: Seen) -> None:
    class Adaptive(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.predict = dspy.Predict("question -> answer")

        def forward(self, question: str) -> Any:
            self._streamll_stream_fields = ["answer"] if len(question) > 50 else []
            return self.predict(question=question)

    program = streamll.instrument(Adaptive)()
    with dspy.context(lm=lm(MODEL)):
        program(question="short")
        assert not seen.of("token")
        program(question="long " * 20)

    assert seen.text("answer") == "Paris"


def test_copies_run_their_own_predictors_and_report(seen: Seen) -> None:
    program = instrumented(stream_fields=["answer"])()

    for clone in (copy.deepcopy(program), program.deepcopy(), copy.copy(program)):
        clone.generate.predict.signature = clone.generate.predict.signature.with_instructions("Mine.")
        ask(clone)

    prompts = [str(e.data["messages"]) for e in seen.of("lm_start")]
    assert ["Mine." in prompt for prompt in prompts] == [True] * 3
    assert seen.text("answer") == "Paris" * 3


def test_an_instance_has_its_predictors_while_it_streams(seen: Seen) -> None:
    names: list[Any] = []

    class Curious(Plain):
        def forward(self, question: str) -> Any:
            names.extend(name for name, _ in self.named_predictors())
            return super().forward(question)

    ask(streamll.instrument(Curious, stream_fields=["answer"])())

    assert names == ["generate.predict"]


def test_positional_arguments_are_named(seen: Seen) -> None:
    with dspy.context(lm=lm(MODEL)):
        Plain()("What?")

    assert seen.of("module_start")[0].data["inputs"] == {"question": "What?"}
    assert seen.of("module_end")[-1].data["outputs"] == {"reasoning": "Because.", "answer": "Paris"}


def test_forward_is_not_called_directly(seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    ask(instrumented()())

    assert "discouraged" not in caplog.text


# --- configure


def test_configure_takes_effect_at_once_and_replaces() -> None:
    first, second = Seen(), Seen()

    streamll.configure([first.append])
    ask(Plain())
    streamll.configure([second.append])
    ask(Plain())

    check_log(first.settled())
    check_log(second)
    assert len(first) == len(second) > 0


def test_configure_as_with_undoes_exactly_its_own_change() -> None:
    outer, inner = Seen(), Seen()
    streamll.configure([outer.append])

    with streamll.configure([inner.append]):
        ask(Plain())
    ask(Plain())

    assert len(outer.settled()) == len(inner.settled()) > 0


def test_configure_as_with_in_two_threads_does_not_mix() -> None:
    def work(name: str) -> Seen:
        seen = Seen()
        with streamll.configure([seen.append]), streamll.set_context(name=name):
            ask(Plain())
        return seen.settled()

    with ThreadPoolExecutor(2) as pool:
        logs = list(pool.map(work, ["a", "b"] * 4))

    for log, name in zip(logs, ["a", "b"] * 4, strict=True):
        check_log(log)
        assert {e.data["name"] for e in log} == {name}


@pytest.mark.parametrize(
    ("event_filter", "kept"),
    [
        (set(), set()),
        ({"lm_*"}, {"lm_start", "lm_end"}),
        (["token"], {"token"}),
        (lambda event: event.event_type == "module_end", {"module_end"}),
    ],
)
def test_only_what_passes_the_filter_arrives(seen: Seen, event_filter: Any, kept: set[str]) -> None:
    with streamll.configure(event_filter=event_filter):
        ask(Plain())

    assert set(seen.types()) == kept


def test_nothing_configured_is_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    code = """
        import dspy, streamll
        from scripted import chat, lm
        @streamll.instrument(stream_fields=["answer"])
        class QA(dspy.Module):
            def __init__(self): self.predict = dspy.Predict("question -> answer")
            def forward(self, question): return self.predict(question=question)
        dspy.configure(lm=lm(chat(answer="Machine learning is a subset"), size=6))
        QA()("What?")
    """
    printed = python(code)

    lines = [line for line in printed.splitlines() if line.startswith("[TOKEN]")]
    assert len(lines) > 1
    assert lines[0] == '[TOKEN] answer: "Machi"'


def python(code: str) -> str:
    """Run a program of its own and return what it printed."""
    path = [p for p in sys.path if p.endswith("tests")]
    code = f"import sys; sys.path[:0] = {path!r}\n{textwrap.dedent(code)}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_an_interrupted_program_still_ends_its_log() -> None:
    printed = python("""
        import sys, os, dspy, streamll
        def tell(e): print(e.event_type, e.data.get("error", {}).get("code"), flush=True)
        streamll.configure([tell])
        import threading, time
        def work():
            with streamll.trace("step"):
                time.sleep(60)
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.3)
    """)

    assert printed.splitlines() == [
        "execution_start None",
        "trace_start None",
        "trace_error abandoned",
        "execution_error interrupted",
    ]


def test_events_are_flushed_at_exit() -> None:
    printed = python("""
        import time, streamll
        def slow(event):
            time.sleep(0.1)
            print(event.event_type, flush=True)
        streamll.configure([slow])
        streamll.emit("hello")
    """)

    assert "hello" in printed.splitlines()
    assert printed.splitlines()[-1] == "execution_end"


# --- set_context


def test_ids_are_in_every_event(seen: Seen) -> None:
    with streamll.set_context(conversation_id="conv_123"), streamll.set_context(request_id="r"):
        ask(Plain())

    assert {(e.data["conversation_id"], e.data["request_id"]) for e in seen.settled()} == {("conv_123", "r")}
    assert "token" in seen.types()


def test_ids_go_at_the_end_of_the_with() -> None:
    seen = Seen()
    streamll.configure([seen.append])

    def job(user: str | None) -> None:
        if user:
            with streamll.set_context(user=user):
                ask(Plain())
        else:
            ask(Plain())

    with ThreadPoolExecutor(1) as pool:
        pool.submit(job, "alice").result()
        before = len(seen.settled())
        pool.submit(job, None).result()

    assert {e.data.get("user") for e in seen[:before]} == {"alice"}
    assert {e.data.get("user") for e in seen.settled()[before:]} == {None}


def test_ids_set_at_once_hold_for_this_task_and_what_it_calls(seen: Seen) -> None:
    async def handler(user: str) -> None:
        streamll.set_context(user=user)
        with dspy.context(lm=lm(MODEL)):
            await dspy.asyncify(Plain())(question="?")

    async def main() -> None:
        await asyncio.gather(handler("a"), handler("b"))

    asyncio.run(main())

    by_execution = {e.execution_id: e.data["user"] for e in seen.settled()}
    assert sorted(map(str, by_execution.values())) == ["a", "b"]
    assert all(e.data["user"] == by_execution[e.execution_id] for e in seen)


def test_ids_reach_parallel_workers(seen: Seen) -> None:
    with streamll.set_context(user="alice"), dspy.context(lm=lm(MODEL)):
        Plain().batch([dspy.Example(question="?").with_inputs("question")] * 8, num_threads=4)

    assert {e.data.get("user") for e in seen.settled()} == {"alice"}


def test_a_setting_made_later_is_still_seen(seen: Seen) -> None:
    streamll.set_context(user="alice")
    before = dspy.settings.num_threads

    dspy.configure(num_threads=before + 1)
    try:
        assert dspy.settings.num_threads == before + 1
    finally:
        dspy.configure(num_threads=before)


# --- emit, trace


def test_a_trace_is_a_step_with_its_children(seen: Seen) -> None:
    class Rag(dspy.Module):
        def forward(self) -> str:
            with streamll.trace("retrieval", index="docs") as step:
                step.emit("docs_found", data={"count": 3}, more=True)
                Plain()(question="?")
            streamll.emit("progress", {"done": 1.0})
            return "ok"

    with dspy.context(lm=lm(MODEL)):
        Rag()()

    (start,) = seen.of("trace_start")
    assert (start.operation, start.data["index"], start.module_name) == ("retrieval", "docs", "Rag")
    (found,) = seen.of("docs_found")
    assert (found.call_id, found.data) == (start.call_id, {"count": 3, "more": True})
    assert seen.of("module_start")[1].parent_call_id == start.call_id
    assert seen.of("progress")[0].data == {"done": 1.0}
    check_log(seen)


async def test_an_outermost_trace_is_an_execution(seen: Seen) -> None:
    async with streamll.trace("import") as step:
        step.emit("row", n=1)
        ask(Plain())

    assert len({e.execution_id for e in seen.settled()}) == 1
    check_log(seen)


def test_an_emit_alone_is_an_execution(seen: Seen) -> None:
    streamll.emit("ping", {"n": 1})

    check_log(seen.settled())
    assert seen.of("ping")[0].data == {"n": 1}


def test_a_trace_that_raises_tells_and_raises(seen: Seen) -> None:
    with pytest.raises(ZeroDivisionError), streamll.trace("maths"):
        _ = 1 / 0

    assert seen.of("trace_error")[0].data["error"]["type"] == "ZeroDivisionError"  # pyright: ignore
    check_log(seen)


def test_tracebacks_only_on_request(seen: Seen) -> None:
    for asked in (None, True):
        with streamll.configure(include_tracebacks=asked), pytest.raises(KeyError), streamll.trace("x"):
            raise KeyError("k")

    errors: list[Any] = [e.data["error"] for e in seen.of("trace_error")]
    assert ["traceback" in error for error in errors] == [False, True]
    assert "KeyError" in errors[1]["traceback"]


def test_without_a_listener_nothing_is_taken_down() -> None:
    with streamll.trace("nobody") as step:
        step.emit("hears")
        streamll.emit("this")


def test_the_callback_is_one_object_and_registers_itself() -> None:
    callback = streamll.dspy_callback()

    assert streamll.dspy_callback() is callback is copy.deepcopy(callback)
    assert sum(c is callback for c in dspy.settings.callbacks) == 1


def test_the_sink_of_an_inner_module_is_told_how_the_execution_ended(seen: Seen) -> None:
    inner_seen = Seen()

    @streamll.instrument(sinks=[inner_seen.append])
    class Inner(dspy.Module):
        def forward(self) -> str:
            return "fine"

    class Outer(dspy.Module):
        def __init__(self) -> None:
            self.inner = Inner()

        def forward(self) -> str:
            self.inner()
            raise ValueError("the secret of the outer program")

    with pytest.raises(ValueError, match="secret"):
        Outer()()

    assert inner_seen.types() == ["module_start", "module_end", "execution_error"]
    assert inner_seen[-1].event_id == seen[-1].event_id
    assert "secret" in str(seen[-1].data)
    assert "secret" not in str(inner_seen[-1].data)
