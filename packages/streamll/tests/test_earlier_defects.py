"""What was wrong with the implementations before this one: a test a defect, so that none is built again.

The ids are those of the study that found them: R is about the release, E, T and F are about the code.
"""

import asyncio
import copy
import gc
import io
import json
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
import pytest
import streamll
from conftest import Seen
from scripted import chat, lm
from streamll import Event, TokenEvent
from streamll.sinks import BaseSink, TerminalSink

REASONED = chat(reasoning="Because it is.", answer="Paris")


class QA(dspy.Module):
    def __init__(self) -> None:
        self.generate = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str) -> Any:
        return self.generate(question=question)

    async def aforward(self, question: str) -> Any:
        return await self.generate.acall(question=question)


def instrumented(base: type[dspy.Module] = QA, **options: Any) -> Any:
    """Return an instrumented subclass of `base`; the class itself is left alone."""
    return streamll.instrument(**options)(type(f"Watched{base.__name__}", (base,), {}))


def ask(program: dspy.Module, model: dspy.LM | None = None, question: str = "?", **settings: Any) -> Any:
    with dspy.context(lm=model or lm(REASONED), **settings):
        return program(question=question)


def echo(prompt: str) -> str:
    question = prompt.rpartition("[[ ## question ## ]]")[2].split()[0]
    return chat(reasoning=f"About {question}.", answer=f"{question} " * 10)


def python(code: str, *, at: Path) -> str:
    """Run a program of its own in the directory `at` and return what it printed."""
    paths = [str(at), *(p for p in sys.path if p.endswith("tests"))]
    code = f"import sys; sys.path[:0] = {paths!r}\n{textwrap.dedent(code)}"
    script = at / f"main_{len(list(at.iterdir()))}.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, cwd=at)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- published, and never worked ----------------------------------------------------------------------------


class AsyncSink(BaseSink):
    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen()

    async def handle_event(self, event: Event) -> None:
        await asyncio.sleep(0)
        self.seen.append(event)


@pytest.mark.parametrize("how", ["sync call", "inside a running loop", "trace"])
def test_R1_an_async_sink_gets_every_event(how: str) -> None:
    sink = AsyncSink()

    async def main() -> None:
        ask(program)

    program = instrumented(sinks=[sink])()
    match how:
        case "sync call":
            ask(program)
        case "trace":
            with streamll.configure([sink]), streamll.trace("step"):
                pass
        case _:
            asyncio.run(main())

    types = sink.seen.types()
    assert (types[0], types[-1]) == ("execution_start", "execution_end")


def test_R2_configure_without_with_takes_effect() -> None:
    seen = Seen()

    streamll.configure([seen.append])
    ask(QA())

    assert "lm_end" in seen.types()


def test_R3_dspy_callback_is_a_function_and_works_in_either_spelling(seen: Seen) -> None:
    before = dict(dspy.settings.config)

    try:
        dspy.configure(callback=streamll.dspy_callback())
        ask(QA())
        dspy.configure(callbacks=[*before["callbacks"], streamll.dspy_callback()])
        ask(QA())
    finally:
        dspy.configure(callback=None, callbacks=before["callbacks"])

    assert Counter(seen.types())["lm_start"] == 2


# --- what was told, and where -------------------------------------------------------------------------------


def search(query: str) -> str:
    """Look it up."""
    return f"found {query}"


def react_replies() -> list[str]:
    return [
        chat(next_thought="I look.", next_tool_name="search", next_tool_args='{"query": "x"}'),
        chat(next_thought="I know.", next_tool_name="finish", next_tool_args="{}"),
        REASONED,
    ]


class Agent(dspy.Module):
    def __init__(self) -> None:
        self.agent = dspy.ReAct("question -> answer", tools=[search])

    def forward(self, question: str) -> Any:
        return self.agent(question=question)


def test_E1_everything_inside_reports_not_only_the_outermost_module() -> None:
    seen = Seen()

    ask(instrumented(Agent, sinks=[seen.append])(), lm(*react_replies()))

    starts = Counter(kind for kind in seen.types() if kind.endswith("_start"))
    assert starts["lm_start"] == 3
    assert starts["tool_start"] == 2
    assert starts["adapter_format_start"] == starts["adapter_parse_start"] == 3
    assert starts["module_start"] > 4


def test_E1b_E17_inputs_are_named_and_outputs_structured(seen: Seen) -> None:
    with dspy.context(lm=lm(REASONED)):
        QA()("Where?")

    assert seen.of("module_start")[0].data["inputs"] == {"question": "Where?"}
    assert seen.of("module_end")[-1].data["outputs"] == {"reasoning": "Because it is.", "answer": "Paris"}


def test_E1c_every_event_names_its_module_and_its_execution(seen: Seen) -> None:
    ask(instrumented(stream_fields=["answer"])())

    assert len({e.execution_id for e in seen.settled()}) == 1
    assert all(e.execution_id for e in seen)
    assert {e.module_name for e in seen} == {"WatchedQA", "generate", "generate.predict"}
    assert {e.module_name for e in seen.of("token")} == {"generate.predict"}


def test_T1_E2_no_markup_in_tokens_and_each_under_its_own_field(seen: Seen) -> None:
    ask(instrumented(stream_fields=["answer", "reasoning"])(), lm(REASONED, size=3))

    tokens = [e for e in seen.settled() if isinstance(e, TokenEvent)]
    assert not [t.token for t in tokens if "[[" in t.token or "##" in t.token]
    assert seen.text("reasoning") == "Because it is."
    assert seen.text("answer") == "Paris"


def test_E3_a_second_call_of_a_predictor_streams_from_index_0(seen: Seen) -> None:
    class Twice(QA):
        def forward(self, question: str) -> Any:
            super().forward(question)
            return super().forward(question)

    ask(instrumented(Twice, stream_fields=["answer"])())

    by_call: dict[str | None, list[int]] = {}
    for token in seen.of("token"):
        by_call.setdefault(token.call_id, []).append(token.data["token_index"])  # pyright: ignore
    assert len(by_call) == 2
    assert all(indexes == list(range(len(indexes))) for indexes in by_call.values())
    assert seen.text("answer") == "ParisParis"


def test_E8_a_sink_that_is_shared_and_the_modules_own_gets_events_once(seen: Seen) -> None:
    ask(instrumented(sinks=[seen.append], stream_fields=["answer"])())

    assert set(Counter(e.event_id for e in seen.settled()).values()) == {1}


def test_E9_traces_reach_the_modules_sinks_under_one_id() -> None:
    seen = Seen()

    class Retrieving(QA):
        def forward(self, question: str) -> Any:
            with streamll.trace("retrieval") as step:
                step.emit("docs_found", data={"count": 3})
            return super().forward(question)

    ask(instrumented(Retrieving, sinks=[seen.append])())

    step = seen.of("trace_start", "docs_found", "trace_end")
    assert [e.event_type for e in step] == ["trace_start", "docs_found", "trace_end"]
    assert len({(e.execution_id, e.call_id) for e in step}) == 1


def test_E10_tokens_carry_the_conversation_id(seen: Seen) -> None:
    with streamll.set_context(conversation_id="conv_123"):
        ask(instrumented(stream_fields=["answer"])())

    tokens = seen.of("token")
    assert tokens
    assert {e.data.get("conversation_id") for e in tokens} == {"conv_123"}


class Everywhere(dspy.Module):
    """Predictors in a list, a dict, a module of its own and an agent."""

    def __init__(self) -> None:
        self.steps = [dspy.Predict("question -> answer")]
        self.named = {"last": dspy.ChainOfThought("question -> answer")}
        self.inner = QA()
        self.agent = Agent()

    def forward(self, question: str) -> Any:
        for program in (*self.steps, *self.named.values(), self.inner):
            program(question=question)
        return self.agent(question=question)

    async def aforward(self, question: str) -> Any:
        for program in (*self.steps, *self.named.values(), self.inner):
            await program.acall(question=question)
        return self.agent(question=question)


@pytest.mark.parametrize("how", ["call", "acall"])
def test_E12_predictors_anywhere_stream_sync_or_async(seen: Seen, how: str) -> None:
    program = instrumented(Everywhere, stream_fields=["answer", "next_thought"])()

    with dspy.context(lm=lm(chat(answer="Paris"), REASONED, REASONED, *react_replies())):
        if how == "acall":
            asyncio.run(program.acall(question="?"))
        else:
            program(question="?")

    assert seen.text("answer") == "Paris" * 4
    assert seen.text("next_thought") == "I look.I know."


def test_E13_fields_named_while_it_runs_stream(seen: Seen) -> None:
    class Adaptive(QA):
        def forward(self, question: str) -> Any:
            self._streamll_stream_fields = ["answer"] if len(question) > 50 else []
            return super().forward(question)

    program = instrumented(Adaptive)()
    texts: list[str] = []
    for question in ("short", "long " * 20, "short"):
        ask(program, question=question)
        texts.append(seen.text("answer"))

    assert texts == ["", "Paris", "Paris"]


@pytest.mark.parametrize("token_format", ["lines", "inline"])
def test_E15_the_terminal_names_the_error_and_the_time_it_took(token_format: Any) -> None:
    class Broken(dspy.Module):
        def forward(self, question: str) -> Any:
            time.sleep(0.15)
            raise LookupError("no such city")

    screen = io.StringIO()
    with streamll.configure([TerminalSink(screen, token_format=token_format)]), pytest.raises(LookupError):
        ask(Broken())

    printed = screen.getvalue()
    assert "no such city" in printed
    assert "Unknown error" not in printed
    assert re.search(r"failed: program.* \d\.\d s$", printed, re.MULTILINE)


# --- threads, copies, optimizers ----------------------------------------------------------------------------


def test_E4_a_copy_runs_its_own_predictors(seen: Seen) -> None:
    program = instrumented(stream_fields=["answer"])()

    for make in (copy.deepcopy, lambda p: p.deepcopy(), lambda p: p.reset_copy()):
        clone = make(program)
        predict = clone.generate.predict
        predict.signature = predict.signature.with_instructions("Mine.")
        ask(clone)

    prompts = [str(e.data["messages"]) for e in seen.of("lm_start")]
    assert ["Mine." in prompt for prompt in prompts] == [True] * 3
    assert "Mine." not in program.generate.predict.signature.instructions
    assert seen.text("answer") == "Paris" * 3


def test_E5_one_instance_in_eight_threads_gives_each_its_own_tokens() -> None:
    seen, model = Seen(), lm(echo, seconds_a_chunk=0.0005)
    program = instrumented(sinks=[seen.append], stream_fields=["answer"])()

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: ask(program, model, f"q{n}"), range(8)))

    assert [r.answer for r in results] == [f"{f'q{n} ' * 10}".strip() for n in range(8)]
    executions = {e.execution_id for e in seen.settled()}
    assert len(executions) == 8
    assert sorted(seen.text("answer", execution_id=e) for e in executions) == sorted(
        r.answer for r in results
    )
    for execution in executions:
        indexes = [e.data["token_index"] for e in seen.of("token") if e.execution_id == execution]
        assert indexes == list(range(len(indexes)))


def test_E6_the_ids_are_never_written_to_by_what_runs(seen: Seen) -> None:
    class Failing(dspy.Module):
        def forward(self, ssn: str) -> Any:
            raise ValueError("bad ssn")

    private = instrumented(include_inputs=False, stream_fields=["answer"])()
    with streamll.set_context(user="alice"):
        with pytest.raises(ValueError, match="bad"):
            Failing()(ssn="078-05-1120")
        before = len(seen.settled())
        ask(private, question="no-078")

    after = seen.settled()[before:]
    assert {e.data["user"] for e in after} == {"alice"}
    assert [e for e in after if "078" in str(e.data) or "error" in e.data] == []


def test_E7_nothing_is_kept_of_dead_instances_and_nothing_inherited(seen: Seen) -> None:
    mine, program = Seen(), instrumented(sinks=[])
    tenant = instrumented(sinks=[mine.append])
    for _ in range(50):
        ask(tenant())
    of_tenant = len(mine.settled())
    seen.clear()
    gc.collect()

    fresh = [program() for _ in range(200)]
    for instance in fresh:
        ask(instance)

    assert len(mine.settled()) == of_tenant
    del fresh, instance
    seen.clear()
    gc.collect()
    assert not [o for o in gc.get_objects() if type(o) in (tenant, program)]


def test_E7_classes_of_one_name_keep_their_own_sinks() -> None:
    def program_for(tenant: Seen) -> Any:
        @streamll.instrument(sinks=[tenant.append], stream_fields=["answer"])
        class Tenant(QA):
            pass

        return Tenant()

    alices, bobs = Seen(), Seen()
    alice, bob = program_for(alices), program_for(bobs)
    ask(alice, lm(chat(reasoning="r", answer="for Alice")))
    ask(bob, lm(chat(reasoning="r", answer="for Bob")))

    assert (alices.text("answer"), bobs.text("answer")) == ("for Alice", "for Bob")


@pytest.mark.parametrize("options", [{}, {"unsafe_hash": True}], ids=["unhashable", "equal"])
def test_E7_sinks_that_compare_equal_are_two_sinks(options: Any) -> None:
    @dataclass(**options)
    class TenantSink(BaseSink):
        url: str = "redis://shared"

        def __post_init__(self) -> None:
            super().__init__()
            self.seen = Seen()

        def handle_event(self, event: Event) -> None:
            self.seen.append(event)

    alices, bobs = TenantSink(), TenantSink()
    alice, bob = instrumented(sinks=[alices])(), instrumented(sinks=[bobs])()

    ask(alice)
    ask(bob)

    assert alices == bobs
    assert Counter(alices.seen.types())["lm_end"] == Counter(bobs.seen.types())["lm_end"] == 1


def test_E11_ids_of_one_job_do_not_meet_the_next_and_reach_batch_workers() -> None:
    seen = Seen()
    streamll.configure([seen.append])

    def job(user: str | None) -> None:
        if user is None:
            return ask(QA())
        with streamll.set_context(user=user):
            return ask(QA())

    with ThreadPoolExecutor(1) as pool:
        list(pool.map(job, ["alice", None]))
    users = {e.execution_id: e.data.get("user") for e in seen.settled()}
    assert list(users.values()) == ["alice", None]

    seen.clear()
    with streamll.set_context(user="bob"), dspy.context(lm=lm(REASONED)):
        QA().batch([dspy.Example(question="?").with_inputs("question")] * 8, num_threads=4)
    assert Counter(seen.types())["lm_end"] == 8
    assert {e.data.get("user") for e in seen} == {"bob"}


def test_E14_a_subclass_of_an_instrumented_class_may_be_instrumented(seen: Seen) -> None:
    base = instrumented(stream_fields=["answer"])

    ask(instrumented(base, stream_fields=["reasoning"])())

    assert (seen.text("answer"), seen.text("reasoning")) == ("Paris", "Because it is.")


def test_E18_a_program_keeps_its_predictors_while_it_streams(seen: Seen) -> None:
    names: list[str] = []

    class Curious(QA):
        def forward(self, question: str) -> Any:
            names.extend(name for name, _ in self.named_predictors())
            return super().forward(question)

    ask(instrumented(Curious, stream_fields=["answer"])())

    assert names == ["generate.predict"]


# --- sinks --------------------------------------------------------------------------------------------------


def test_F1_a_slow_sink_does_not_slow_the_program() -> None:
    def seconds() -> float:
        began = time.perf_counter()
        assert ask(program, lm(chat(reasoning="r", answer="x" * 200))).answer == "x" * 200
        return time.perf_counter() - began

    release, handled = threading.Event(), Seen()

    def slow(event: Event) -> None:
        handled.append(event)
        release.wait(0.02)

    program = instrumented(stream_fields=["answer"])()
    with streamll.configure([lambda event: None]):
        quick = min(seconds() for _ in range(3))
    with streamll.configure([slow]):
        slowed = min(seconds() for _ in range(3))
        release.set()

    assert Counter(handled.types())["token"] >= 3 * 50
    assert slowed < 50 * 0.02 / 4, "50 tokens at 20 ms each would be a second"
    assert slowed < 10 * quick + 0.02


HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202eevil"


@pytest.mark.parametrize("token_format", ["lines", "inline"])
def test_F2_no_control_character_of_a_model_reaches_the_terminal(token_format: Any) -> None:
    screen = io.StringIO()
    with streamll.configure([TerminalSink(screen, token_format=token_format)]):
        result = ask(QA(), lm(chat(reasoning=HOSTILE, answer=HOSTILE), size=50), question=HOSTILE)

    printed = screen.getvalue()
    assert result.answer == HOSTILE
    assert "evil" in printed
    assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", printed) == []


def four_at_once(token_format: Any) -> str:
    """Return what a terminal shows of four runs, none of which ends before all have begun."""
    screen, all_began = io.StringIO(), threading.Barrier(4)

    def together(prompt: str) -> str:
        all_began.wait(30)
        return echo(prompt)

    sink, model = TerminalSink(screen, token_format=token_format), lm(together, seconds_a_chunk=0.0005)
    program = instrumented(sinks=[sink], stream_fields=["answer"])()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: ask(program, model, f"q{n}"), range(4)))
    assert streamll.flush(10)
    return screen.getvalue()


def test_F3_concurrent_runs_keep_to_whole_lines_on_one_terminal() -> None:
    lines = four_at_once("lines").splitlines()

    assert [line for line in lines if not re.match(r"(#\d+ )?\[[A-Z]+\] ", line)] == []
    texts: list[str] = []
    for run in "1234":
        tokens = [re.fullmatch(rf'#{run} \[TOKEN\] answer: "(.*)"', line) for line in lines]
        texts.append("".join(found[1] for found in tokens if found))
    assert sorted(texts) == [" ".join([f"q{n}"] * 10) for n in range(4)]


def test_F3_concurrent_runs_are_a_tree_each() -> None:
    trees = re.findall(r"^✓ .*?^└", four_at_once("inline"), re.MULTILINE | re.DOTALL)

    assert sorted("".join(set(re.findall(r"q\d", tree))) for tree in trees) == ["q0", "q1", "q2", "q3"]


# --- what DSPy does besides ---------------------------------------------------------------------------------


def test_F4_a_cached_answer_is_a_token(seen: Seen) -> None:
    model = lm(REASONED, cache=True, model=f"scripted/{id(seen)}")
    program = instrumented(stream_fields=["answer"])()

    ask(program, model)
    seen.settled().clear()
    ask(program, model)

    assert seen.of("lm_end")[0].data["cached"] is True
    assert seen.text("answer") == "Paris"


ADAPTERS: dict[str, tuple[dspy.Adapter, Callable[[str], str]]] = {
    "Chat": (dspy.ChatAdapter(), lambda text: chat(reasoning="r", answer=text)),
    "JSON": (dspy.JSONAdapter(), lambda text: json.dumps({"reasoning": "r", "answer": text})),
    "XML": (dspy.XMLAdapter(), lambda text: f"<reasoning>r</reasoning>\n<answer>{text}</answer>"),
}


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("name", ADAPTERS)
def test_F5_an_answer_that_speaks_of_markup_streams_whole(seen: Seen, name: str, size: int) -> None:
    adapter, write = ADAPTERS[name]

    text = 'use [[ ## x ## ]] here, {"a": 1} and <b>bold</b>'

    result = ask(QA(), lm(write(text), size=size), adapter=adapter)

    assert result.answer == text
    assert seen.text("answer") == result.answer


def test_F6_json_text_streams_without_quotes_and_escapes(seen: Seen) -> None:
    adapter, write = ADAPTERS["JSON"]
    text = 'line1\nline2 "quoted" \\ back \u00e9 \U0001f600'

    result = ask(QA(), lm(write(text), size=1), adapter=adapter)

    assert result.answer == seen.text("answer") == text
    assert not seen.of("stream_reset")


def test_F7_usage_and_history_are_as_without_us(seen: Seen) -> None:
    def spent() -> tuple[Any, int]:
        model = lm(REASONED)
        return ask(QA(), model, track_usage=True).get_lm_usage(), len(model.history)

    with streamll.configure([]):
        unwatched = spent()
    assert not seen.settled()

    assert spent() == unwatched
    assert seen.of("token")


def test_F7_streaming_keeps_the_adapters_fallback_and_the_retries(seen: Seen) -> None:
    program = instrumented(stream_fields=["answer"])()

    fallen = ask(program, lm("[[ ## nonsense ## ]]\nno", '{"reasoning": "r", "answer": "rescued"}'))
    first = seen.text("answer")
    seen.clear()
    retried = ask(program, lm(REASONED, cut=9))

    assert (fallen.answer, first) == ("rescued", "rescued")
    assert (retried.answer, seen.text("answer")) == ("Paris", "Paris")
    assert [e.data["retries"] for e in seen.of("lm_end")] == [1]


class LockedSink(BaseSink):
    """A sink that cannot be pickled or copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.seen = Seen()

    def handle_event(self, event: Event) -> None:
        with self.lock:
            self.seen.append(event)


def test_F8_state_and_copies_leave_a_locked_sink_alone(tmp_path: Path) -> None:
    sink = LockedSink()
    program = instrumented(sinks=[sink], stream_fields=["answer"])()
    predict = program.generate.predict
    predict.signature = predict.signature.with_instructions("Tuned.")

    program.save(tmp_path / "state.json")
    other = type(program)()
    other.load(tmp_path / "state.json")
    for each in (program, copy.deepcopy(program), other):
        ask(each)

    prompts = [str(e.data["messages"]) for e in sink.seen.of("lm_start")]
    assert ["Tuned." in prompt for prompt in prompts] == [True] * 3
    assert sink.seen.text("answer") == "Paris" * 3


PROGRAM = """
import threading, dspy, streamll
from streamll.sinks import BaseSink

class Locked(BaseSink):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
    def handle_event(self, event):
        with self.lock:
            if event.event_type == "token":
                print(event.token, end="", flush=True)

@streamll.instrument(sinks=[Locked()], stream_fields=["answer"])
class Saved(dspy.Module):
    def __init__(self):
        self.predict = dspy.Predict("question -> answer")
    def forward(self, question):
        return self.predict(question=question)
"""

SAVE = """
import dspy
dspy.configure(lm=lm(chat(answer="Paris")))
program = Saved()
program.predict.signature = program.predict.signature.with_instructions("Tuned.")
program.save("saved", save_program=True)
"""

LOAD = """
import dspy, streamll
from scripted import chat, lm
program = dspy.load("saved", allow_pickle=True)
assert program.predict.signature.instructions == "Tuned."
with dspy.context(lm=lm(chat(answer="Paris"))):
    result = program(question="?")
assert streamll.flush(5)
print(" and", result.answer)
"""


def test_F8_a_whole_program_saves_and_loads_from_a_module_with_its_sinks(tmp_path: Path) -> None:
    (tmp_path / "saved_program.py").write_text(PROGRAM)

    python(f"from scripted import chat, lm\nfrom saved_program import Saved\n{SAVE}", at=tmp_path)

    assert python(LOAD, at=tmp_path) == "Paris and Paris\n"


def test_F8_a_whole_program_of_main_saves_and_loads(tmp_path: Path) -> None:
    code = f"from scripted import chat, lm\n{PROGRAM}\n{SAVE}\n{LOAD}"

    assert python(code, at=tmp_path) == "Paris and Paris\n"
    assert python(LOAD, at=tmp_path) == " and Paris\n", "another process has the program, not its sinks"


def test_F8_dspys_settings_save_while_sinks_and_ids_are_in_force(tmp_path: Path) -> None:
    path = str(tmp_path / "settings.pkl")

    with streamll.configure([LockedSink()]), streamll.set_context(user="alice"), streamll.trace("step"):
        dspy.settings.save(path)

    assert "callbacks" in dspy.settings.load(path, allow_pickle=True)


TRAINSET = [dspy.Example(question=f"q{n}", answer="Paris").with_inputs("question") for n in range(4)]


def bootstrap(program: Any) -> tuple[Any, int]:
    """Return the optimized program and how often the metric was called."""
    calls: list[float] = []

    def metric(example: Any, prediction: Any, trace: Any = None) -> bool:
        calls.append(1.0)
        return bool(prediction.answer == example.answer)

    optimizer = dspy.BootstrapFewShot(metric=metric, max_bootstrapped_demos=2, max_labeled_demos=0)
    with dspy.context(lm=lm(REASONED)):
        return optimizer.compile(program, trainset=TRAINSET), len(calls)


def demos(program: Any) -> list[dict[str, Any]]:
    return [dict(demo) for predictor in program.predictors() for demo in predictor.demos]


def test_F9_bootstrapping_finds_the_same_demos_with_the_same_calls() -> None:
    sink = LockedSink()

    plain, plain_calls = bootstrap(QA())
    watched, watched_calls = bootstrap(instrumented(sinks=[sink], stream_fields=["answer"])())

    assert demos(watched) == demos(plain)
    assert len(demos(plain)) == 2
    assert watched_calls == plain_calls
    assert not sink.seen.of("token")
    ask(watched.deepcopy())
    assert sink.seen.text("answer") == "Paris"


def gepa(program: Any) -> tuple[Any, int]:
    """Return what GEPA makes of `program`, and how often its metric was called."""
    calls: list[float] = []

    def metric(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
        calls.append(1.0)
        return dspy.Prediction(score=float("Improved" in pred.reasoning), feedback="Say Improved.")

    def answer(prompt: str) -> str:
        return chat(reasoning="Improved." if "Be better." in prompt else "Poor.", answer="Paris")

    def reflect(prompt: str) -> str:
        return '{"new_instruction": "Be better."}' if "new_instruction" in prompt else "```\nBe better.\n```"

    optimizer = dspy.GEPA(
        metric=metric,
        max_metric_calls=24,
        reflection_lm=lm(reflect),
        num_threads=1,
        seed=0,
        reflection_minibatch_size=2,
    )
    with dspy.context(lm=lm(answer)):
        return optimizer.compile(program, trainset=TRAINSET, valset=TRAINSET), len(calls)


def test_F9_gepa_finds_the_same_instructions_with_the_same_calls() -> None:
    sink = LockedSink()

    plain, plain_calls = gepa(QA())
    watched, watched_calls = gepa(instrumented(sinks=[sink], stream_fields=["answer"])())

    assert plain.generate.predict.signature.instructions == "Be better."
    assert watched.generate.predict.signature.instructions == "Be better."
    assert watched_calls == plain_calls
    assert not sink.seen.of("token")


def test_F9_tokens_inside_an_optimizer_come_only_on_request(seen: Seen) -> None:
    program = instrumented(stream_fields=["answer"])()

    bootstrap(program)
    assert not seen.of("token")
    assert seen.of("compile_end")
    assert seen.of("lm_end")

    with streamll.configure(optimizer_tokens=True):
        bootstrap(program)
    assert set(re.findall("Paris|.", seen.text("answer"))) == {"Paris"}


def test_F10_configure_as_with_in_two_threads_does_not_mix_and_leaves_nothing() -> None:
    outside, both_in = Seen(), threading.Barrier(2)
    streamll.configure([outside.append])

    def work(name: str) -> Seen:
        seen = Seen()
        with streamll.configure([seen.append]):
            both_in.wait(10)
            ask(QA(), question=name)
            both_in.wait(10)
        return seen.settled()

    with ThreadPoolExecutor(2) as pool:
        logs = list(pool.map(work, "ab"))
    assert [{e.data["inputs"]["question"] for e in log.of("module_start")} for log in logs] == [{"a"}, {"b"}]  # pyright: ignore

    before = [len(log) for log in logs]
    assert not outside.settled()
    ask(QA())
    assert [len(log.settled()) for log in logs] == before
    assert len(outside.settled()) > 0


def test_F11_an_empty_filter_keeps_nothing(seen: Seen) -> None:
    with streamll.configure(event_filter=set()):
        ask(QA())

    assert not seen.settled()


def test_F12_a_sync_program_in_a_handler_does_not_stall_the_loop() -> None:
    async def main() -> tuple[int, list[str]]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        class Blocking(dspy.Module):
            def forward(self, question: str) -> Any:
                time.sleep(0.3)
                return "done"

        ticker = asyncio.create_task(tick())
        types = [e.event_type async for e in streamll.stream(instrumented(Blocking)(), question="?")]
        ticker.cancel()
        return ticks, types

    ticks, types = asyncio.run(main())

    assert ticks > 15
    assert types[-1] == "execution_end"
