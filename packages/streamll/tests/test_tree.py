"""The call tree: right parents, gapless sequences, every start closed once, under every way of calling."""

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest
import streamll
from conftest import Seen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import chat, lm

shapes = st.recursive(
    st.just(()), lambda inner: st.lists(inner, min_size=1, max_size=3).map(tuple), max_leaves=6
)


class Node(dspy.Module):
    """A module that calls its children, in one of several ways; a leaf asks the LM."""

    def __init__(self, shape: tuple[Any, ...], name: str = "0") -> None:
        super().__init__()
        self.name = name
        self.children = [Node(child, f"{name}.{n}") for n, child in enumerate(shape)]
        self.predict = None if shape else dspy.Predict("question -> answer")

    def forward(self, how: str) -> Any:
        if self.predict is not None:
            return self.predict(question=self.name)
        if how == "parallel":
            run = dspy.Parallel(num_threads=3, disable_progress_bar=True)
            return run([(child, {"how": how}) for child in self.children])
        return [child(how=how) for child in self.children]

    async def aforward(self, how: str) -> Any:
        if self.predict is not None:
            return await self.predict.acall(question=self.name)
        return await asyncio.gather(*(child.acall(how=how) for child in self.children))


def run(program: Node, how: str) -> None:
    match how:
        case "async":
            asyncio.run(program.acall(how=how))
        case "thread":
            with dspy.context():
                work = dspy.asyncify(program)
                asyncio.run(work(how="sync"))
        case _:
            program(how=how)


def edges(program: Node) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for child in program.children:
        found[program.name, child.name] += 1
        found += edges(child)
    return found


@given(shape=shapes, how=st.sampled_from(["sync", "async", "thread", "parallel"]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_tree_of_events_is_the_tree_of_calls(shape: tuple[Any, ...], how: str) -> None:
    program, seen = Node(shape), Seen()

    with streamll.configure([seen.append]), dspy.context(lm=lm(chat(answer="ok"))):
        run(program, how)

    check_log(seen.settled())
    by_call = {e.call_id: e for e in seen.of("module_start") if e.operation == "Node"}
    paths = {e.module_name: e for e in by_call.values()}
    for event in by_call.values():
        parent = by_call.get(event.parent_call_id)
        assert (parent is None) == (event.sequence == 1)
        if parent is not None and parent.sequence != 1:
            assert str(event.module_name).startswith(f"{parent.module_name}.children[")
    assert len(paths) == len(by_call) == 1 + edges(program).total()


def check_log(seen: list[streamll.Event]) -> None:
    """What holds for every log of every execution."""
    for execution in {e.execution_id for e in seen}:
        log = [e for e in seen if e.execution_id == execution]
        assert [e.sequence for e in log] == list(range(len(log)))
        assert log[0].event_type == "execution_start"
        assert [e.is_last for e in log] == [False] * (len(log) - 1) + [True]
        spans = Counter(
            (e.call_id, e.event_type.rpartition("_")[0]) for e in log if e.event_type.endswith("_start")
        )
        ends = Counter(
            (e.call_id, e.event_type.rpartition("_")[0])
            for e in log
            if e.event_type.endswith(("_end", "_error"))
        )
        assert spans == ends
        assert set(spans.values()) == {1}
        known = {e.call_id for e in log}
        assert all(e.parent_call_id is None or e.parent_call_id in known for e in log)


def test_names_are_dotted_as_dspy_writes_them(seen: Seen) -> None:
    class Program(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generate = dspy.ChainOfThought("question -> answer")

        def forward(self, question: str) -> Any:
            return self.generate(question=question)

    program = Program()
    with dspy.context(lm=lm(chat(reasoning="r", answer="a"))):
        program(question="?")

    assert [e.module_name for e in seen.of("module_start")] == ["Program", "generate", "generate.predict"]
    assert [name for name, _ in program.named_predictors()] == ["generate.predict"]


def test_compiled_and_copied_programs_keep_their_names(seen: Seen) -> None:
    program = Node(((), ()))
    for child in program.children:
        child._compiled = True  # pyright: ignore[reportPrivateUsage]

    with dspy.context(lm=lm(chat(answer="a"))):
        program.deepcopy()(how="sync")

    assert "children[1].predict" in {e.module_name for e in seen.of("lm_start")}


def test_the_callback_registered_several_times_reports_once(seen: Seen) -> None:
    callback = streamll.dspy_callback()
    model = lm(chat(answer="a"))
    model.callbacks = [callback, callback]

    with dspy.context(lm=model, callbacks=[callback, callback]):
        dspy.Predict("question -> answer", callbacks=[callback])(question="?")

    assert Counter(seen.types())["lm_start"] == 1
    check_log(seen)


def test_a_json_adapters_doubled_format_counts_once(seen: Seen) -> None:
    with dspy.context(lm=lm('{"answer": "a"}'), adapter=dspy.JSONAdapter()):
        dspy.Predict("question -> answer")(question="?")

    assert Counter(seen.types())["adapter_format_start"] == 1
    check_log(seen)


def test_64_calls_on_one_instance_never_mix() -> None:
    def echo(prompt: str) -> str:
        question = prompt.rpartition("[[ ## question ## ]]")[2].split()[0]
        return chat(reasoning=f"I echo {question}.", answer=f"{question} " * 20)

    seen, program = Seen(), dspy.ChainOfThought("question -> answer")
    barrier = threading.Barrier(16)

    def call(number: int) -> None:
        if number < 16:
            barrier.wait(10)
        with streamll.set_context(request=f"r{number}"), dspy.context(lm=model):
            program(question=f"q{number}")

    model = lm(echo)
    streamll.configure([seen.append])
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(call, range(64)))

    check_log(seen.settled())
    assert len({e.execution_id for e in seen}) == 64
    for execution in {e.execution_id for e in seen}:
        log = [e for e in seen if e.execution_id == execution]
        (request,) = {e.data["request"] for e in log}
        number = str(request)[1:]
        text = "".join(
            str(e.data["token"]) for e in log if e.event_type == "token" and e.data["field"] == "answer"
        )
        assert text.split() == [f"q{number}"] * 20


def test_64_async_calls_on_one_instance_never_mix() -> None:
    def echo(prompt: str) -> str:
        return chat(answer=prompt.rpartition("[[ ## question ## ]]")[2].split()[0])

    seen, program, model = Seen(), dspy.Predict("question -> answer"), lm(echo, seconds_a_chunk=0.0001)
    streamll.configure([seen.append])

    async def call(number: int) -> None:
        streamll.set_context(request=number)
        with dspy.context(lm=model):
            assert (await program.acall(question=f"q{number}")).answer == f"q{number}"

    async def main() -> None:
        await asyncio.gather(*(call(number) for number in range(64)))

    asyncio.run(main())

    check_log(seen.settled())
    for execution in {e.execution_id for e in seen}:
        log = [e for e in seen if e.execution_id == execution]
        (request,) = {e.data["request"] for e in log}
        assert "".join(str(e.data["token"]) for e in log if e.event_type == "token") == f"q{request}"


def test_an_error_closes_every_call_above_it(seen: Seen) -> None:
    class Broken(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.predict = dspy.Predict("question -> answer")

        def forward(self) -> Any:
            self.predict(question="?")
            raise KeyError("mine")

    with dspy.context(lm=lm(chat(answer="a"))), pytest.raises(KeyError, match="mine"):
        Broken()()

    check_log(seen.settled())
    assert seen[-1].event_type == "execution_error"
    assert seen[-1].data["error"] == {
        "type": "KeyError",
        "code": "program",
        "message": "'mine'",
        "hint": "The program raised this itself.",
    }


def test_what_outlives_its_program_is_closed_before_the_end(seen: Seen) -> None:
    async def main() -> None:
        late: list[asyncio.Task[Any]] = []

        class Hasty(dspy.Module):
            def __init__(self) -> None:
                super().__init__()
                self.predict = dspy.Predict("question -> answer")

            async def aforward(self) -> str:
                late.append(asyncio.create_task(self.predict.acall(question="?")))
                await asyncio.sleep(0.02)
                return "done"

        with dspy.context(lm=lm(chat(answer="slow answer"), seconds_a_chunk=0.02)):
            assert await Hasty().acall() == "done"
            await late[0]

    asyncio.run(main())

    check_log(seen.settled())
    assert "abandoned" in {e.data["error"]["code"] for e in seen.of("lm_error", "module_error")}  # pyright: ignore


def test_an_evaluation_is_one_execution_over_its_programs(seen: Seen) -> None:
    devset = [dspy.Example(question="?", answer="a").with_inputs("question")] * 3
    evaluate = dspy.Evaluate(
        devset=devset, metric=lambda e, p, t=None: 1.0, num_threads=2, display_progress=False
    )

    with dspy.context(lm=lm(chat(answer="a"))):
        evaluate(dspy.Predict("question -> answer"))

    check_log(seen.settled())
    assert Counter(seen.types())["evaluate_start"] == 1
    (start,) = seen.of("evaluate_start")
    assert {e.parent_call_id for e in seen.of("module_start")} == {start.call_id}


def test_prompts_are_what_the_model_got(seen: Seen) -> None:
    prompts: list[str] = []

    def reply(prompt: str) -> str:
        prompts.append(prompt)
        return chat(answer="a")

    with dspy.context(lm=lm(reply)):
        dspy.Predict("question -> answer")(question="What?")

    messages = seen.of("lm_start")[0].data["messages"]
    assert "\n".join(m["content"] for m in messages) == prompts[0]  # pyright: ignore
