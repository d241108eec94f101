"""The published documents: every Python block runs as it stands, and does what the text around it says.

`documents/` holds their text unchanged. The one thing replaced is the hosted model, by a scripted one.
"""

import ast
import asyncio
import re
from collections.abc import Callable, Generator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import dspy
import pytest
import streamll
from conftest import Seen
from dspy.lm15 import StreamDeltaEvent, StreamEndEvent, StreamStartEvent, TextDelta
from logs import new_name
from scripted import Engine, chat, lm
from servers import URLS, server
from streamll import TokenEvent

DOCUMENTS = Path(__file__).parent / "documents"
PUBLISHED = Path(__file__).parents[2] / "shared" / "documents"
NAMES = ("streamll-dspy-integration.md", "streamll-readme.md", "streamll-token-streaming.md")

ON_REDIS = {
    ("streamll-dspy-integration.md", 0),
    ("streamll-readme.md", 1),
    ("streamll-readme.md", 2),
    ("streamll-readme.md", 4),
    ("streamll-token-streaming.md", 5),
}
"""Blocks that talk to the Redis of this machine, under the names they say; each has its test below."""

ANSWER = chat(reasoning="It learns from data.", analysis="Short.", answer="Machine learning is a subset")


def blocks(name: str) -> list[str]:
    """Return the Python blocks of a document, each on its own lines so that a traceback says where."""
    text = (DOCUMENTS / name).read_text()
    found = re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return ["\n" * text.count("\n", 0, match.start(1)) + match[1] for match in found]


def run(name: str, *numbers: int) -> dict[str, Any]:
    """Run blocks of a document in one namespace, in order, and return the namespace."""
    return run_in({"__name__": Path(name).stem, "dspy": dspy, "streamll": streamll}, name, *numbers)


def run_in(namespace: dict[str, Any], name: str, *numbers: int) -> dict[str, Any]:
    for number in numbers:
        exec(compile(blocks(name)[number], name, "exec"), namespace)
    assert streamll.flush(10)
    return namespace


@pytest.fixture(autouse=True)
def scripted() -> Generator[None]:
    """Keep a scripted model in force whatever `dspy.configure(lm=...)` says, and undo that afterwards."""
    before = dict(dspy.settings.config)
    with dspy.context(lm=lm(ANSWER)):
        yield
    dspy.configure(**{name: before.get(name) for name in dspy.settings.config})


# --- all of them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_block_runs_as_it_stands(name: str) -> None:
    numbers = [number for number in range(len(blocks(name))) if (name, number) not in ON_REDIS]

    namespace = run(name, *numbers)

    if "result" in namespace:
        assert namespace["result"].answer == "Machine learning is a subset"


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published documents are not beside this checkout")
@pytest.mark.parametrize("name", NAMES)
def test_the_copies_are_the_published_documents(name: str) -> None:
    assert (DOCUMENTS / name).read_bytes() == (PUBLISHED / name).read_bytes()
    assert {path.name for path in PUBLISHED.glob("streamll-*.md")} == set(NAMES)


# --- token streaming ----------------------------------------------------------------------------------------

TOKENS = "streamll-token-streaming.md"


class Chunks(Engine):
    """An engine that streams exactly these chunks."""

    def __init__(self, *chunks: str) -> None:
        super().__init__("".join(chunks))
        self.texts = chunks

    def events(self, request: Any) -> Iterator[Any]:
        text = self.text(request)
        yield StreamStartEvent(id="r", model=request.model)
        yield from (StreamDeltaEvent(TextDelta(chunk, part_index=0)) for chunk in self.texts)
        yield StreamEndEvent(finish_reason="stop", usage=self.usage(text))


def chunked(*answer: str) -> dspy.LM:
    """Return a model that writes the field `answer` in these chunks."""
    engine = Chunks("[[ ## answer ## ]]\n", *answer, "\n\n[[ ## completed ## ]]\n")
    return dspy.LM("scripted/model", engine=engine, cache=False)


def terminal_lines() -> list[str]:
    """Return what the document shows under "In Terminal (Default)"."""
    text = (DOCUMENTS / TOKENS).read_text().partition("### In Terminal (Default)")[2]
    return [line for line in text.split("```")[1].splitlines() if line.startswith("[TOKEN]")]


def test_tokens_stream_to_the_terminal_as_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with dspy.context(lm=chunked("Machine", " learning", " is", " a", " subset")):
        run(TOKENS, 0)

    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("[TOKEN]")] == terminal_lines()
    assert len(terminal_lines()) == 5


def test_a_token_event_says_what_the_document_lists(seen: Seen) -> None:
    with dspy.context(lm=chunked("Machine", " learning")):
        run(TOKENS, 0)

    tokens = [event.data for event in seen.of("token")]
    assert [token["token"] for token in tokens] == ["Machine", " learning", ""]
    assert [token["token_index"] for token in tokens] == [0, 1, 2]
    assert {token["field"] for token in tokens} == {"answer"}
    assert [token.get("finish_reason") for token in tokens] == [None, None, "stop"]


@pytest.mark.parametrize(
    ("number", "attribute", "fields"),
    [(1, "predict", {"answer"}), (2, "cot", {"answer"}), (3, "predict", {"analysis", "answer"})],
)
def test_a_module_streams_the_fields_it_names(
    seen: Seen, number: int, attribute: str, fields: set[str]
) -> None:
    namespace = run(TOKENS, number)
    program = next(
        value
        for value in namespace.values()
        if isinstance(value, type) and issubclass(value, dspy.Module) and value.__module__ != "dspy"
    )

    class Asked(program):
        def forward(self, question: str) -> Any:
            return getattr(self, attribute)(question=question)

    Asked()(question="What?")

    assert {event.data["field"] for event in seen.of("token")} == fields


def test_the_token_collector_collects(capsys: pytest.CaptureFixture[str]) -> None:
    collector = run(TOKENS, 4)["TokenCollector"]()

    @streamll.instrument(sinks=[collector], stream_fields=["reasoning", "answer"])
    class QA(dspy.Module):
        def __init__(self) -> None:
            self.cot = dspy.ChainOfThought("question -> answer")

        def forward(self, question: str) -> Any:
            return self.cot(question=question)

    result = QA()("What is machine learning?")
    assert streamll.flush(10)

    assert collector.get_text("answer") == result.answer == "Machine learning is a subset"
    assert collector.get_text() == result.reasoning + result.answer
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    assert printed == [f"Token #{event.token_index}: {event.token}" for event in collector.tokens]
    assert printed[0].startswith("Token #0: ")
    assert all(isinstance(event, TokenEvent) for event in collector.tokens)


def test_dynamic_streaming_streams_long_questions_only(seen: Seen) -> None:
    program = run(TOKENS, 6)["AdaptiveStreaming"]()

    program("What?")
    assert not seen.of("token")

    program("What is machine learning, and why does anybody care about it?")
    assert seen.text("answer") == "Machine learning is a subset"
    assert len(seen.of("token")) > 3


def test_the_fields_of_a_program_are_the_ones_in_the_comments(capsys: pytest.CaptureFixture[str]) -> None:
    run(TOKENS, 7)

    comments = re.findall(r"print\(.*\)  # (\[.*\])$", blocks(TOKENS)[7], re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == [f"dict_keys({comment})" for comment in comments]
    assert len(comments) == 2


# --- the README ---------------------------------------------------------------------------------------------

README = "streamll-readme.md"


def test_the_quick_start_streams_the_answer_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(README, 0)["result"]

    tokens = re.findall(r'^\[TOKEN\] (\w+): "(.*)"$', capsys.readouterr().out, re.MULTILINE)
    assert {field for field, _ in tokens} == {"answer"}
    assert "".join(text for _, text in tokens) == result.answer


def test_custom_events_are_part_of_the_step_that_emits_them(seen: Seen) -> None:
    program = run(README, 3)["RAGPipeline"]()
    program.retrieve = lambda question: ["first", "second"]
    program.generate = dspy.Predict("docs: list[str], question -> answer")

    assert program("What?").answer == "Machine learning is a subset"

    start, found, end = seen.of("trace_start", "docs_found", "trace_end")
    assert (start.operation, found.data) == ("retrieval", {"count": 2})
    assert start.call_id == found.call_id == end.call_id


def test_correlation_ids_are_in_every_event_of_all_that_follows(seen: Seen) -> None:
    namespace = run(README, 0)

    seen.clear()
    streamll.set_context(conversation_id="conv_123", request_id="req_456")
    namespace["QA"]()("What is quantum computing?")

    assert {e.data["conversation_id"] for e in seen.settled()} == {"conv_123"}
    assert {e.data["request_id"] for e in seen} == {"req_456"}
    mine = [e for e in seen.of("token") if e.data.get("conversation_id") == "conv_123"]
    assert "".join(str(e.data["token"]) for e in mine) == "Machine learning is a subset"


# --- DSPy integration ---------------------------------------------------------------------------------------


def search(query: str) -> str:
    """Look it up."""
    if query == "fail":
        raise TimeoutError("the index did not answer")
    return f"found {query}"


def test_the_callback_captures_everything_of_any_module() -> None:
    seen = Seen()
    look = chat(next_thought="I look.", next_tool_name="search", next_tool_args='{"query": "x"}')
    fail = chat(next_thought="Again.", next_tool_name="search", next_tool_args='{"query": "fail"}')
    done = chat(next_thought="I know.", next_tool_name="finish", next_tool_args="{}")

    model = lm(look, fail, done, ANSWER)

    streamll.configure([seen.append])
    dspy.configure(lm=model, callback=streamll.dspy_callback())
    with dspy.context(lm=model):
        dspy.ReAct("question -> answer", tools=[search])(question="What?")

    call, end = seen.of("lm_start")[0], seen.of("lm_end")[0]
    assert (call.operation, call.data["provider"]) == ("scripted/model", "scripted")
    assert "What?" in str(call.data["messages"])
    assert "I look." in str(end.data["outputs"])
    assert (end.data["input_tokens"], end.data["cost_usd"]) == (7, None)
    tool = seen.of("tool_start")[0]
    assert (tool.operation, tool.data["description"]) == ("search", "Look it up.")
    assert tool.data["arguments"] == {"query": "x"}
    assert seen.of("tool_end")[0].data["result"] == "found x"
    assert [e.data["error"]["code"] for e in seen.of("tool_error")] == ["timeout"]  # pyright: ignore
    assert seen.text("answer") == "Machine learning is a subset"
    assert [b.sequence - a.sequence for a, b in pairwise(seen)] == [1] * (len(seen) - 1)


# --- over Redis ---------------------------------------------------------------------------------------------


@pytest.fixture
def redis() -> str:
    """The URL that the documents write, when there is a Redis behind it."""
    server("redis")
    if URLS["redis"] not in ("redis://127.0.0.1:6379", "redis://localhost:6379"):
        pytest.skip("the documents say localhost:6379")
    return "redis://localhost:6379"


async def started(name: str, number: int, namespace: dict[str, Any]) -> asyncio.Task[Any]:
    """Run a block that awaits, and return when its consumer has taken its place."""
    code = compile(blocks(name)[number], name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = asyncio.ensure_future(eval(code, namespace))
    await asyncio.sleep(0)
    await namespace["consumer"].start()
    return running


async def printed(capsys: pytest.CaptureFixture[str], text: Callable[[str], str], enough: str) -> str:
    """Return the text in what was printed, once `enough` is in it."""
    out = ""
    async with asyncio.timeout(20):
        while enough not in text(out):
            await asyncio.sleep(0.01)
            out += capsys.readouterr().out
    return text(out)


async def test_the_readmes_service_prints_the_tokens_of_the_readmes_program(
    redis: str, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace = run(README, 1)
    service = await started(README, 2, namespace)
    mine = await asyncio.to_thread(namespace["QA"](), "What is machine learning?")

    assert await printed(capsys, str, mine.answer)

    await namespace["consumer"].stop()
    await service
    namespace["sink"].stop()


async def test_every_event_of_the_correlation_block_has_its_ids(redis: str) -> None:
    namespace = run(README, 1)
    service = await started(README, 2, namespace)
    tokens: list[TokenEvent] = []
    ended = asyncio.Event()

    @namespace["consumer"].on("token", where={"conversation_id": "conv_123"})
    def take(token: TokenEvent) -> None:
        tokens.append(token)
        if token.finish_reason:
            ended.set()

    run_in(namespace, README, 4)

    async with asyncio.timeout(20):
        await ended.wait()
    await namespace["consumer"].stop()
    await service
    namespace["sink"].stop()
    assert "".join(one.token for one in tokens) == namespace["result"].answer
    assert {one.data["request_id"] for one in tokens} == {"req_456"}


async def test_the_redis_consumer_prints_tokens_one_by_one(
    redis: str, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace: dict[str, Any] = {}
    service = await started(TOKENS, 5, namespace)
    sink = streamll.sinks.RedisSink(redis)
    with streamll.configure([sink]):
        dspy.Predict("question -> answer")(question="What?")

    def tokens(out: str) -> str:
        return "".join(re.findall(r"^Token #\d+ for answer: (.*)$", out, re.MULTILINE))

    assert await printed(capsys, tokens, "Machine learning is a subset")
    service.cancel()
    await asyncio.gather(service, return_exceptions=True)
    await namespace["consumer"].stop()
    sink.stop()


async def test_the_integration_block_sends_everything_to_redis_too(
    redis: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run("streamll-dspy-integration.md", 0)
    with streamll.set_context(test=(mine := new_name())):
        dspy.Predict("question -> answer")(question="What?")
    assert streamll.flush(20)

    listed = await streamll.EventLog(redis, "ml_events").executions(100)

    (found,) = [one for one in listed if one.context.get("test") == mine]
    assert (found.status, found.program) == ("ok", "Predict")
    assert "[TOKEN] answer: " in capsys.readouterr().out
