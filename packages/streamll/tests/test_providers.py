"""Through the clients people use, to a provider that speaks OpenAI's API: DSPy's own client and LiteLLM."""

import asyncio
import contextlib
import gc
import threading
import uuid
from collections.abc import Callable, Generator
from typing import Any

import dspy
import openai_server
import pytest
import streamll
from conftest import Seen
from openai_server import INPUT_TOKENS, LITELLM_WARNINGS, Reply, Script
from scripted import HAS_ENGINES, chat
from test_tree import check_log

pytestmark = [pytest.mark.filterwarnings(f"ignore:{warning}") for warning in LITELLM_WARNINGS]

ENGINES = ["auto", "litellm"] if HAS_ENGINES else ["litellm"]
ANSWER = chat(answer="Machine learning is a subset")
REASONED = chat(reasoning="Because it is.", answer="Paris")

type MakeLM = Callable[..., dspy.LM]


@pytest.fixture(params=ENGINES)
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> MakeLM:
    """Make an LM of a script, with DSPy's own client or LiteLLM; retries do not wait."""
    settings: dict[str, Any] = {"api_key": "sk-secret-key", "cache": False, "num_retries": 2}
    if HAS_ENGINES:
        monkeypatch.setattr("dspy.clients.execution._delay", lambda *_: 0.0)
        settings["engine"] = request.param
    if request.param == "litellm":
        settings["_skip_mcp_handler"] = True  # for tools it imports `mcp`, which it does not depend on

    def make(script: Script, **options: Any) -> dspy.LM:
        return dspy.LM("openai/gpt-4o-mini", **{"api_base": script.url, **settings, **options})

    return make


@pytest.fixture(scope="module", autouse=True)
def collected() -> Generator[None]:
    """Collect what the clients left open while their warnings are ignored, not when another test runs."""
    yield
    gc.collect()


def ask(lm: dspy.LM, signature: Any = "question -> answer", **settings: Any) -> dspy.Prediction:
    with dspy.context(lm=lm, **settings):
        return dspy.Predict(signature)(question="?")


def end(seen: Seen) -> dict[str, Any]:
    (event,) = seen.of("lm_end")
    return event.data


# --- tokens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_every_field_arrives_as_it_was_written(seen: Seen, model: MakeLM, size: int) -> None:
    answer = 'Machine [[1, 2]] learning\n\n  "is" a <b>subset</b> é 😀'
    script = Script(chat(reasoning="Because\nit is.", answer=answer), size=size)

    result = ask(model(script), dspy.Signature("question -> reasoning, answer"))

    assert (result.reasoning, result.answer) == ("Because\nit is.", answer)
    assert (seen.text("reasoning"), seen.text("answer")) == (result.reasoning, result.answer)
    assert script.bodies[0]["stream"] is True
    check_log(seen)


async def test_acall_streams(seen: Seen, model: MakeLM) -> None:
    with dspy.context(lm=model(Script(REASONED))):
        result = await dspy.ChainOfThought("question -> answer").acall(question="?")

    assert result.answer == "Paris"
    assert (seen.text("reasoning"), seen.text("answer")) == ("Because it is.", "Paris")
    assert len(seen.of("token")) > 4


def test_threads_stream(model: MakeLM) -> None:
    seen, lm = Seen(), model(Script(chat(answer="Paris")))
    streamll.configure([seen.append])
    threads = [threading.Thread(target=ask, args=(lm,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen.text("answer") == "Paris" * 4
    assert len({event.execution_id for event in seen}) == 4
    check_log(seen)


def echo(prompt: str) -> str:
    return chat(answer=f"{prompt.rpartition('[[ ## question ## ]]')[2].split()[0]} " * 3)


def test_parallel_streams_each_branch(seen: Seen, model: MakeLM) -> None:
    predict = dspy.Predict("question -> answer")
    with dspy.context(lm=model(Script(echo))), streamll.trace("fan out"):
        run = dspy.Parallel(num_threads=4, disable_progress_bar=True)
        results = run([(predict, {"question": f"q{n}"}) for n in range(4)])

    assert [result.answer for result in results] == [f"q{n} q{n} q{n}" for n in range(4)]
    texts = {seen.text("answer", call_id=event.call_id) for event in seen.of("lm_start")}
    assert texts == {result.answer for result in results}
    check_log(seen)


async def test_streamify_and_streamll_both_get_every_token(seen: Seen, model: MakeLM) -> None:
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    program = dspy.streamify(dspy.ChainOfThought("question -> answer"), stream_listeners=[listener])

    with dspy.context(lm=model(Script(chat(reasoning="Because.", answer="It is Paris, of course."), size=3))):
        theirs = [item async for item in program(question="?")]

    chunks = [str(item.chunk) for item in theirs if isinstance(item, dspy.streaming.StreamResponse)]
    assert "".join(chunks).rstrip() == seen.text("answer") == "It is Paris, of course."  # 3.3 adds a newline


async def test_stream_yields_the_tokens_and_the_prediction(model: MakeLM) -> None:
    events: list[Any]
    with dspy.context(lm=model(Script(ANSWER))):
        events = [event async for event in streamll.stream(dspy.Predict("question -> answer"), question="?")]

    text = "".join(event.token for event in events if isinstance(event, streamll.TokenEvent))
    assert text == events[-1].prediction.answer == "Machine learning is a subset"
    assert events[-1].is_last


@pytest.mark.parametrize(
    ("adapter", "completion"),
    [
        (dspy.JSONAdapter(), '{"reasoning": "Because \\"it\\" is.", "answer": "Par\\u00eds"}'),
        (dspy.XMLAdapter(), '<reasoning>Because "it" is.</reasoning>\n<answer>París</answer>'),
    ],
)
def test_other_adapters_stream(seen: Seen, model: MakeLM, adapter: dspy.Adapter, completion: str) -> None:
    result = ask(model(Script(completion, size=2)), "question -> reasoning, answer", adapter=adapter)

    assert (seen.text("reasoning"), seen.text("answer")) == ('Because "it" is.', "París")
    assert result.answer == "París"
    assert len(seen.of("token")) > 6


def test_a_fallback_to_another_adapter_voids_what_the_first_streamed(seen: Seen, model: MakeLM) -> None:
    script = Script(chat(reasoning="wrong format"), '{"reasoning": "r", "answer": "Paris"}')

    assert ask(model(script), "question -> reasoning, answer").answer == "Paris"

    assert [event.data["reason"] for event in seen.of("stream_reset")] == ["parse_error"]
    assert (seen.text("reasoning"), seen.text("answer")) == ("r", "Paris")
    assert len(seen.of("lm_start")) == 2


def test_candidates_are_told_apart(seen: Seen, model: MakeLM) -> None:
    script = Script(chat(answer="one"), chat(answer="two"))

    result = ask(model(script, n=2, temperature=1.0))

    answers = ["", ""]
    for event in seen.of("token"):
        answers[int(str(event.data["candidate"]))] += str(event.data["token"])
    assert answers == result.completions.answer == ["one", "two"]


# --- thinking and tools -------------------------------------------------------------------------------------


def test_a_models_own_thinking_is_reasoning(seen: Seen, model: MakeLM) -> None:
    lm = model(Script(Reply(chat(answer="Paris"), thinking="Let me think about it.")))

    ask(lm)

    thoughts = seen.of("reasoning")
    assert len(thoughts) > 2
    assert "".join(str(event.data["token"]) for event in thoughts) == "Let me think about it."
    assert seen.text("answer") == "Paris"
    assert end(seen)["reasoning_tokens"] == len(thoughts)


class Agent(dspy.Signature):
    question: str = dspy.InputField()
    tools: list[dspy.Tool] = dspy.InputField()
    tool_calls: dspy.ToolCalls = dspy.OutputField()


def search(query: str, limit: int = 3) -> str:
    """Look it up."""
    return f"{limit} of {query}"


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter(use_native_function_calling=True), dspy.JSONAdapter()])
def test_native_tool_calls_stream(seen: Seen, model: MakeLM, adapter: dspy.Adapter) -> None:
    script = Script(Reply(tools={"search": {"query": "Paris", "limit": 1}}))

    with dspy.context(lm=model(script), adapter=adapter):
        result = dspy.Predict(Agent)(question="?", tools=[dspy.Tool(search)])

    assert [(call.name, call.args) for call in result.tool_calls.tool_calls] == [
        ("search", {"query": "Paris", "limit": 1})
    ]
    fragments = [event.data for event in seen.of("token") if event.data.get("tool_name")]
    assert "".join(str(data["token"]) for data in fragments) == '{"query": "Paris", "limit": 1}'
    assert {(data["field"], data["raw"], data["tool_name"]) for data in fragments} == {
        ("tool_calls", True, "search")
    }
    assert end(seen)["finish_reason"] in ("tool_call", "tool_calls")


# --- what a call came to ------------------------------------------------------------------------------------


def test_an_lm_end_says_what_the_provider_said(seen: Seen, model: MakeLM) -> None:
    lm = model(Script(ANSWER, size=4))

    ask(lm)

    written = -(-len(ANSWER) // 4)
    said = end(seen)
    assert (said["input_tokens"], said["output_tokens"]) == (INPUT_TOKENS, written)
    assert (said["model"], said["response_model"]) == ("openai/gpt-4o-mini", "gpt-4o-mini-2024-07-18")
    assert said["cost_usd"] == pytest.approx((INPUT_TOKENS * 0.15 + written * 0.6) / 1e6)
    assert said["cost_source"] in ("priced", "estimated")
    assert (said["finish_reason"], said["cached"], said["retries"]) == ("stop", False, 0)
    assert 0 < said["time_to_first_token_ms"] <= said["latency_ms"]
    assert said["tokens_per_second"] > 0
    (total,) = seen.of("execution_end")
    assert (total.data["input_tokens"], total.data["output_tokens"]) == (INPUT_TOKENS, written)
    assert total.data["cost_usd"] == said["cost_usd"]


def test_a_truncated_answer_says_so(seen: Seen, model: MakeLM) -> None:
    lm = model(Script(Reply("[[ ## answer ## ]]\nMachine lear", finish_reason="length")))

    ask(lm)

    assert end(seen)["finish_reason"] == "length"
    assert [event.data.get("finish_reason") for event in seen.of("token")][-1] == "length"


def test_the_endpoint_is_told_without_its_credentials(seen: Seen, model: MakeLM) -> None:
    script = Script(ANSWER)
    lm = model(script, api_base=script.url.replace("://", "://user:password@"), num_retries=0)

    with contextlib.suppress(dspy.LMError):  # DSPy's own client takes no password there
        ask(lm)

    (start,) = seen.of("lm_start")
    assert (start.data["endpoint"], start.data["provider"]) == (script.url, "openai")
    assert "password" not in repr(seen)
    assert "sk-secret-key" not in repr(seen)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_cache_hit_is_told_once_and_costs_nothing(seen: Seen, model: MakeLM, how: str) -> None:
    script = Script(chat(answer="Said once"))
    lm = model(script, cache=True, user=uuid.uuid4().hex)  # a cache key of its own
    predict = dspy.Predict("question -> answer")

    with dspy.context(lm=lm):
        for _ in range(2):
            predict(question="?") if how == "sync" else asyncio.run(predict.acall(question="?"))

    first, second = (event.data for event in seen.of("lm_end"))
    assert script.calls == 1
    assert (first["cached"], second["cached"]) == (False, True)
    assert first["cost_usd"] > 0
    assert (second["cost_usd"], second["cost_source"], second["input_tokens"]) == (0.0, "cached", None)
    (token,) = [event for event in seen.of("token") if event.data.get("cached")]
    assert token.data["token"] == "Said once"
    assert seen.of("execution_end")[1].data["cached_calls"] == 1


# --- the program is as it was -------------------------------------------------------------------------------

SCRIPTS: dict[str, Callable[[], Script]] = {
    "an answer": lambda: Script(REASONED),
    "thinking": lambda: Script(Reply(REASONED, thinking="Hm.")),
    "a fallback": lambda: Script("no format", '{"reasoning": "r", "answer": "a"}'),
    "a broken stream": lambda: Script(Reply(REASONED, cut=5), REASONED),
    "no streaming": lambda: Script(REASONED, streams=False),
    "an error": lambda: Script(openai_server.UNAUTHORIZED),
    "too long": lambda: Script(openai_server.TOO_LONG),
}


@pytest.mark.parametrize("case", SCRIPTS)
def test_the_program_is_as_it_was(model: MakeLM, case: str) -> None:
    def outcome() -> dict[str, Any]:
        lm = model(SCRIPTS[case]())
        try:
            result = ask(lm, "question -> reasoning, answer", track_usage=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be the same
            return {"raised": type(error), "text": str(error)}
        names = ("usage", "cost", "outputs", "model", "response_model", "messages")
        return {
            "fields": dict(result),
            "history": [{name: entry[name] for name in names} for entry in lm.history],
            "total usage": result.get_lm_usage(),
        }

    alone = outcome()
    with streamll.configure([lambda _: None]):
        assert outcome() == alone


# --- when it goes wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_stream_that_breaks_off_is_void_and_asked_for_again(seen: Seen, model: MakeLM, how: str) -> None:
    script = Script(Reply(chat(answer="Machine yearning"), cut=8), ANSWER)
    predict = dspy.Predict("question -> answer")

    with dspy.context(lm=model(script)):
        result = predict(question="?") if how == "sync" else asyncio.run(predict.acall(question="?"))

    assert result.answer == seen.text("answer") == "Machine learning is a subset"
    assert [event.data["reason"] for event in seen.of("stream_reset")] == ["retry"]
    before = seen[: seen.index(seen.of("stream_reset")[0])]
    assert [e.data["token"] for e in before if e.event_type == "token"]
    assert end(seen)["retries"] == 1
    assert script.calls == 2


def test_a_failure_before_the_first_token_is_a_retry_without_a_reset(seen: Seen, model: MakeLM) -> None:
    script = Script(openai_server.RATE_LIMITED, ANSWER)

    assert ask(model(script)).answer == seen.text("answer") == "Machine learning is a subset"

    assert end(seen)["retries"] == 1
    assert not seen.of("stream_reset")


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_model_that_refuses_to_stream_is_asked_plainly(seen: Seen, model: MakeLM, how: str) -> None:
    script = Script(ANSWER, streams=False)
    predict = dspy.Predict("question -> answer")

    with dspy.context(lm=model(script)):
        result = predict(question="?") if how == "sync" else asyncio.run(predict.acall(question="?"))

    assert [bool(body.get("stream")) for body in script.bodies] == [True, False]
    assert [event.data["token"] for event in seen.of("token")] == ["Machine learning is a subset"]
    assert result.answer == "Machine learning is a subset"
    assert (end(seen)["retries"], end(seen)["time_to_first_token_ms"]) == (0, None)


ERRORS = [
    pytest.param(openai_server.UNAUTHORIZED, "authentication", id="401"),
    pytest.param(openai_server.RATE_LIMITED, "rate_limit", id="429"),
    pytest.param(openai_server.TOO_LONG, "context_length", id="context length"),
    pytest.param(openai_server.BROKEN, "connection", id="500"),
    pytest.param(Reply(ANSWER, cut=3), "connection", id="broken off"),
    pytest.param(Reply(ANSWER, seconds=0.6), "timeout", id="timeout"),
]


@pytest.mark.parametrize(("reply", "code"), ERRORS)
@pytest.mark.parametrize("how", ["sync", "async"])
def test_an_error_is_classified(seen: Seen, model: MakeLM, reply: Reply, code: str, how: str) -> None:
    lm = model(Script(reply), num_retries=0, timeout=0.2 if reply.seconds else 10)
    predict = dspy.Predict("question -> answer")

    with dspy.context(lm=lm), pytest.raises(dspy.LMError):
        predict(question="?") if how == "sync" else asyncio.run(predict.acall(question="?"))

    errors = seen.of("lm_error", "module_error", "execution_error")
    assert {event.data["error"]["code"] for event in errors} == {code}  # pyright: ignore
    assert "sk-secret-key" not in repr(errors)
    check_log(seen)


def test_nobody_listening_on_the_other_side_is_a_connection_error(seen: Seen, model: MakeLM) -> None:
    lm = model(Script(ANSWER), api_base="http://127.0.0.1:9/v1", num_retries=0)

    with pytest.raises(dspy.LMError):
        ask(lm)

    assert seen.of("lm_error")[0].data["error"]["code"] == "connection"  # pyright: ignore
