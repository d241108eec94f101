"""Tokens of the named fields, wherever in a program they are written, and the truth at the end."""

import asyncio
import functools
import inspect
import threading
from typing import Any

import dspy
import pytest
import streamll
from conftest import Seen
from dspy.utils.dummies import DummyLM
from scripted import WithoutStream, chat, lm, needs_engines
from streamll import TokenEvent

ANSWER = chat(answer="Machine learning is a subset")
REASONED = chat(reasoning="Because it is.", answer="Paris")


class QA(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generate = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.generate(question=question)

    async def aforward(self, question: str) -> dspy.Prediction:
        return await self.generate.acall(question=question)


def ask(**settings: Any) -> dspy.Prediction:
    with dspy.context(**settings):
        return dspy.Predict("question -> answer")(question="?")


def test_a_field_arrives_in_pieces_and_ends_with_the_reason(seen: Seen) -> None:
    ask(lm=lm(ANSWER, size=8))

    tokens = [e for e in seen.settled() if isinstance(e, TokenEvent)]
    assert "".join(t.token for t in tokens) == "Machine learning is a subset"
    assert len(tokens) > 3
    assert [t.token_index for t in tokens] == list(range(len(tokens)))
    assert {t.field for t in tokens} == {"answer"}
    assert [t.finish_reason for t in tokens] == [None] * (len(tokens) - 1) + ["stop"]
    assert {t.module_name for t in tokens} == {"Predict"}


def test_every_field_has_its_own_text_and_index(seen: Seen) -> None:
    with dspy.context(lm=lm(REASONED)):
        QA()(question="?")

    assert (seen.text("reasoning"), seen.text("answer")) == ("Because it is.", "Paris")
    for field in ("reasoning", "answer"):
        indexes = [e.data["token_index"] for e in seen.of("token") if e.data["field"] == field]
        assert indexes == list(range(len(indexes)))


def test_only_named_fields_stream_in_an_instrumented_program(seen: Seen) -> None:
    program = type("Named", (QA,), {})
    streamll.instrument(program, stream_fields=["answer"])

    with dspy.context(lm=lm(REASONED)):
        program()(question="?")

    assert {e.data["field"] for e in seen.of("token")} == {"answer"}


def test_no_named_field_is_no_token_and_no_streaming_request(seen: Seen) -> None:
    program = type("Unnamed", (QA,), {})
    streamll.instrument(program)
    model = lm(REASONED)

    with dspy.context(lm=model):
        program()(question="?")

    assert not seen.of("token")
    assert model.engine.chunks == 0


class Nested(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = [dspy.Predict("question -> answer"), dspy.Predict("question -> answer")]
        self.named = {"last": dspy.ChainOfThought("question -> answer")}
        self.inner = QA()

    def forward(self, question: str) -> dspy.Prediction:
        for step in self.steps:
            step(question=question)
        self.named["last"](question=question)
        self.inner(question=question)
        return self.inner(question=question)


def test_predictors_in_lists_dicts_modules_and_second_calls_stream(seen: Seen) -> None:
    with dspy.context(lm=lm(ANSWER, ANSWER, REASONED)):
        Nested()(question="?")

    answers: dict[str | None, str] = {}
    for token in seen.of("token"):
        if token.data["field"] == "answer":
            answers[token.module_name] = answers.get(token.module_name, "") + str(token.data["token"])
    assert answers == {
        "steps[0]": "Machine learning is a subset",
        "steps[1]": "Machine learning is a subset",
        "named['last'].predict": "Paris",
        "inner.generate.predict": "ParisParis",
    }


def search(query: str) -> str:
    """Look it up."""
    return f"found {query}"


def test_react_streams_its_thoughts_and_its_answer(seen: Seen) -> None:
    step = chat(next_thought="I look.", next_tool_name="search", next_tool_args='{"query": "x"}')
    done = chat(next_thought="I know.", next_tool_name="finish", next_tool_args="{}")
    agent = dspy.ReAct("question -> answer", tools=[search])

    with dspy.context(lm=lm(step, done, chat(reasoning="Clear.", answer="42"))):
        agent(question="?")

    assert seen.text("next_thought", module_name="react") == "I look.I know."
    assert seen.text("answer") == "42"
    assert [e.data["arguments"] for e in seen.of("tool_start")] == [{"query": "x"}, {}]
    assert [e.data["result"] for e in seen.of("tool_end")] == ["found x", "Completed."]


async def test_acall_streams(seen: Seen) -> None:
    with dspy.context(lm=lm(REASONED)):
        await QA().acall(question="?")

    assert seen.text("answer") == "Paris"


async def test_asyncify_and_a_running_loop_stream(seen: Seen) -> None:
    with dspy.context(lm=lm(REASONED)):
        await dspy.asyncify(QA())(question="?")
        QA()(question="?")  # what a Jupyter cell does

    assert seen.text("answer") == "ParisParis"


def test_a_plain_thread_streams() -> None:
    seen = Seen()
    streamll.configure([seen.append])
    model = lm(REASONED)

    def work() -> None:
        with dspy.context(lm=model):
            QA()(question="?")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen.text("answer") == "Paris"


def test_parallel_streams_each_branch_under_one_execution(seen: Seen) -> None:
    class Fan(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qa = QA()

        def forward(self, questions: list[str]) -> list[Any]:
            parallel = dspy.Parallel(num_threads=4, disable_progress_bar=True)
            return parallel([(self.qa, {"question": q}) for q in questions])

    with dspy.context(lm=lm(REASONED)):
        Fan()(questions=["a", "b", "c", "d"])

    starts = [e for e in seen.of("module_start") if e.operation == "QA"]
    assert len({e.execution_id for e in seen}) == 1
    assert len(starts) == 4
    assert {e.parent_call_id for e in starts} == {seen.of("module_start")[0].call_id}
    assert seen.text("answer") == "Paris" * 4


async def test_streamify_and_streamll_both_get_every_token(seen: Seen) -> None:
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    program = dspy.streamify(QA(), stream_listeners=[listener])

    with dspy.context(lm=lm(REASONED)):
        theirs = [item async for item in program(question="?")]

    assert any(getattr(item, "chunk", None) for item in theirs)
    assert seen.text("answer") == "Paris"


def test_a_cache_hit_emits_the_field_once(seen: Seen) -> None:
    model = lm(ANSWER, cache=True, model=f"scripted/{id(seen)}")

    for _ in range(2):
        ask(lm=model)

    (token,) = [e for e in seen.of("token") if e.data.get("cached")]
    assert token.data["token"] == "Machine learning is a subset"
    assert token.data["finish_reason"] == "stop"
    ends = [e.data for e in seen.of("lm_end")]
    assert [end["cached"] for end in ends] == [False, True]
    assert (ends[1]["cost_usd"], ends[1]["cost_source"]) == (0.0, "cached")


@pytest.mark.parametrize("kind", [pytest.param("without stream()", marks=needs_engines), "DummyLM"])
def test_an_engine_that_does_not_stream_emits_the_field_once(seen: Seen, kind: str) -> None:
    engine = dspy.LM("scripted/model", engine=WithoutStream(ANSWER), cache=False)
    ask(lm=engine if kind != "DummyLM" else DummyLM([{"answer": "Machine learning is a subset"}]))

    (token,) = seen.of("token")
    assert token.data["token"] == "Machine learning is a subset"
    assert "cached" not in token.data


def test_a_retry_voids_what_the_lost_attempt_wrote(seen: Seen) -> None:
    ask(lm=lm(ANSWER, cut=8))

    (reset,) = seen.of("stream_reset")
    assert (reset.data["field"], reset.data["reason"]) == ("answer", "retry")
    assert seen.text("answer") == "Machine learning is a subset"
    assert seen.of("lm_end")[0].data["retries"] == 1


def test_the_adapter_fallback_works_and_voids_the_unparsed_text(seen: Seen) -> None:
    unparsable = "[[ ## wrong ## ]]\nno\n\n[[ ## answer ## ]]\nlost"

    result = None
    with dspy.context(lm=lm(unparsable, '{"answer": "rescued", "note": "n"}')):
        result = dspy.Predict("question -> answer, note")(question="?")

    assert result.answer == "rescued"
    assert [e.data["reason"] for e in seen.of("stream_reset")] == ["parse_error"]
    assert seen.text("answer") == "rescued"
    assert [e.data["error"]["code"] for e in seen.of("adapter_parse_error")] == ["parse"]  # pyright: ignore


def test_several_candidates_are_told_apart(seen: Seen) -> None:
    with dspy.context(lm=lm(chat(answer="one"), chat(answer="two"))):
        dspy.Predict("question -> answer", n=2)(question="?")

    texts = ["", ""]
    for token in seen.of("token"):
        texts[int(str(token.data["candidate"]))] += str(token.data["token"])
    assert texts == ["one", "two"]
    assert not seen.of("stream_reset")


def test_native_reasoning_comes_as_reasoning_events(seen: Seen) -> None:
    ask(lm=lm(ANSWER, thinking="Let me think."))

    thoughts = seen.of("reasoning")
    assert "".join(str(e.data["token"]) for e in thoughts) == "Let me think."
    assert [e.data["token_index"] for e in thoughts] == list(range(len(thoughts)))
    assert seen.text("answer") == "Machine learning is a subset"


def test_a_typed_field_streams_raw_and_ends_with_its_value(seen: Seen) -> None:
    with dspy.context(lm=lm(chat(scores="[1, 2, 3]"))):
        dspy.Predict("question -> scores: list[int]")(question="?")

    *raw, last = seen.of("token")
    assert "".join(str(e.data["token"]) for e in raw) == "[1, 2, 3]"
    assert all(e.data["raw"] for e in [*raw, last])
    assert last.data["value"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("adapter", "completion"),
    [
        (dspy.ChatAdapter(), ANSWER),
        (dspy.JSONAdapter(), '{"answer": "Machine learning is a subset"}'),
        (dspy.XMLAdapter(), "<answer>\nMachine learning is a subset\n</answer>"),
    ],
)
def test_every_adapter_streams(seen: Seen, adapter: dspy.Adapter, completion: str) -> None:
    ask(lm=lm(completion), adapter=adapter)

    assert seen.text("answer") == "Machine learning is a subset"
    assert len(seen.of("token")) > 3


class Shouting(dspy.ChatAdapter):
    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        return {"answer": completion.upper()}


def test_a_custom_adapter_emits_each_field_once(seen: Seen) -> None:
    ask(lm=lm("hello"), adapter=Shouting())

    (token,) = seen.of("token")
    assert token.data["token"] == "HELLO"


def test_two_step_adapter_streams_its_extraction(seen: Seen) -> None:
    ask(lm=lm("Some prose."), adapter=dspy.TwoStepAdapter(lm(ANSWER)))

    assert seen.text("answer") == "Machine learning is a subset"


def test_a_direct_lm_call_streams_its_text(seen: Seen) -> None:
    lm("plain words")("hi")

    assert seen.text(None) == "plain words"


class Corrected(dspy.ChatAdapter):
    """Reads as ChatAdapter does, for all one can see, and then changes what it read."""

    @functools.wraps(inspect.unwrap(dspy.ChatAdapter.parse))
    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        return {"answer": "something else"}


def test_what_differs_from_the_parsed_field_is_corrected_and_counted(seen: Seen) -> None:
    ask(lm=lm(ANSWER), adapter=Corrected())

    assert [e.data["reason"] for e in seen.of("stream_reset")] == ["corrected"]
    assert seen.text("answer") == "something else"
    assert seen.of("execution_end")[0].data["corrections"] == 1


async def test_a_cancelled_call_leaves_no_trace_behind(seen: Seen) -> None:
    with dspy.context(lm=lm(REASONED, seconds_a_chunk=0.01)):
        task = asyncio.create_task(QA().acall(question="?"))
        async with asyncio.timeout(10):
            while not seen.of("token"):  # noqa: ASYNC110 - a list has no event to wait for
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        result = await QA().acall(question="?")

    assert result.answer == "Paris"
    error = seen.of("execution_error")[0].data["error"]
    assert error["code"] == "cancelled"  # pyright: ignore
    assert len(seen.of("execution_end")) == 1
