"""The programs as MCP tools, for the official client over real HTTP."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import dspy
import httpx
import pytest
import uvicorn
from dspy_cli.project.config import ServerSettings
from dspy_cli.project.programs import Program, program
from dspy_cli.server.app import create_app
from dspy_cli.server.mcp import News, mount, said
from dspy_cli.server.outcomes import HINTS
from dspy_cli.server.problems import Problem
from dspy_cli.server.run import Run
from dspy_cli.server.runs import Runs
from mcp import Client, MCPError
from scripted import chat, lm
from streamll.core.events import Event

ANSWER = chat(reasoning="Six times seven.", answer="42")


class QA(dspy.Module):
    """Answers questions."""

    def __init__(self) -> None:
        super().__init__()
        self.think = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str, style: Literal["short", "long"] = "short") -> dspy.Prediction:
        return self.think(question=question)


class Served(NamedTuple):
    url: str
    runs: Runs


@asynccontextmanager
async def served(
    *programs: Program, events: str = "memory:", mcp: Any = True, **settings: Any
) -> AsyncGenerator[Served]:
    """Serve on a free port until the end of the `with`."""
    app = create_app(programs, events=events, settings=ServerSettings(**settings), mcp=mcp)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listening]))
        try:
            async with asyncio.timeout(30):
                yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", app.state.runs)
        finally:
            server.should_exit = True
            await serving


@pytest.fixture(params=["auto", "legacy"])
def mode(request: pytest.FixtureRequest) -> Any:
    """Both eras of the protocol: a request for itself, and a session that begins with a handshake."""
    return request.param


def qa(*replies: Any, **how: Any) -> Program:
    return program(QA, lm=lm(*(replies or (ANSWER,)), **how))


# --- tools --------------------------------------------------------------------------------------------------


async def test_every_program_is_a_tool_with_its_schemas(mode: Any) -> None:
    one, other = qa(), program(dspy.Predict("text -> label: bool"), name="Spam", lm=lm(chat(label="True")))

    async with served(one, other) as at, Client(at.url, mode=mode) as client:
        tools = (await client.list_tools()).tools

    assert [tool.name for tool in tools] == ["QA", "Spam"]
    assert tools[0].description == "Answers questions."
    assert tools[0].input_schema == one.input_schema()
    assert tools[1].output_schema == other.output_schema()


async def test_a_call_returns_the_outputs_and_is_in_the_history(mode: Any) -> None:
    async with served(qa()) as at, Client(at.url, mode=mode) as client:
        result = await client.call_tool("QA", {"question": "6 * 7?"})
        run = await asyncio.to_thread(
            httpx.get, at.url.replace("mcp", f"runs/{(result.meta or {})['dspy-cli/run_id']}")
        )

    assert not result.is_error
    assert result.structured_content == {"reasoning": "Six times seven.", "answer": "42"}
    assert [block.text for block in result.content if block.type == "text"] == [
        '{"reasoning": "Six times seven.", "answer": "42"}'
    ]
    assert (run.json()["program"], run.json()["status"]) == ("QA", "ok")


async def test_progress_comes_while_the_program_runs(mode: Any) -> None:
    seen: list[tuple[float, str | None]] = []
    going: list[bool] = []

    async with served(qa(seconds_a_chunk=0.02)) as at, Client(at.url, mode=mode) as client:

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            seen.append((progress, message))
            going.append(bool(at.runs.live))

        loop = asyncio.get_running_loop()
        began = loop.time()
        result = await client.call_tool("QA", {"question": "?"}, progress_callback=on_progress)
        seconds = loop.time() - began

    assert not result.is_error
    assert "scripted/model: asked" in [message for _, message in seen]
    assert any(message and message.endswith(" tokens") for _, message in seen)
    assert going[:-1] == [True] * (len(going) - 1)
    assert seen == sorted(seen, key=lambda each: each[0])
    assert len(seen) <= seconds * 10 + 2


async def test_a_step_is_told_while_it_lasts_however_soon_it_follows_another(mode: Any) -> None:
    told, told_of_search = list[str | None](), asyncio.Event()
    gate = threading.Event()

    def search(query: str) -> str:
        """Search."""
        gate.wait(20)
        return "42"

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)
        if message == "search: called":
            told_of_search.set()

    replies = (
        chat(next_thought="t", next_tool_name="search", next_tool_args='{"query": "q"}'),
        chat(next_thought="t", next_tool_name="finish", next_tool_args="{}"),
        ANSWER,
    )
    agent = program(dspy.ReAct("question -> answer", tools=[search]), name="Agent", lm=lm(*replies))
    async with served(agent) as at, Client(at.url, mode=mode) as client:
        calling = asyncio.create_task(
            client.call_tool("Agent", {"question": "?"}, progress_callback=on_progress)
        )
        await told_of_search.wait()
        gate.set()
        result = await calling

    assert not result.is_error, text(result)
    assert told.count("search: called") == 1


async def test_nothing_is_told_twice(mode: Any) -> None:
    told, was_told = list[str | None](), threading.Event()

    class Waits(dspy.Module):
        def forward(self, question: str) -> str:
            was_told.wait(20)
            return "42"

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)
        was_told.set()

    async with served(program(Waits)) as at, Client(at.url, mode=mode) as client:
        result = await client.call_tool("Waits", {"question": "?"}, progress_callback=on_progress)

    assert not result.is_error, text(result)
    assert told == ["Waits …"]


async def test_calls_at_once_have_progress_of_their_own(mode: Any) -> None:
    async with served(qa(seconds_a_chunk=0.01)) as at, Client(at.url, mode=mode) as client:

        async def call() -> Sequence[float]:
            seen: list[float] = []

            async def on_progress(progress: float, total: float | None, message: str | None) -> None:
                seen.append(progress)

            await client.call_tool("QA", {"question": "?"}, progress_callback=on_progress)
            return seen

        calls = await asyncio.gather(*(call() for _ in range(4)))

    assert all(seen and seen == sorted(set(seen)) for seen in calls)


# --- refusing and failing -----------------------------------------------------------------------------------


async def test_a_tool_there_is_none_of_is_an_error_of_the_protocol(mode: Any) -> None:
    async with served(qa()) as at, Client(at.url, mode=mode) as client:
        with pytest.raises(MCPError, match="Unknown tool: 'Nope'"):
            await client.call_tool("Nope", {})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "question: Field required."),
        ({"question": 7}, "question: Input should be a valid string."),
        ({"question": "?", "other": 1}, "other: Extra inputs are not permitted."),
        ({"question": "?", "style": "rude"}, "style: Input should be 'short' or 'long'."),
        (None, "question: Field required."),
    ],
)
async def test_wrong_arguments_are_told_to_the_model(arguments: Any, told: str, mode: Any) -> None:
    async with served(qa()) as at, Client(at.url, mode=mode) as client:
        result = await client.call_tool("QA", arguments)
        assert not at.runs.live

    assert result.is_error
    assert told in text(result)


async def test_a_program_that_fails_is_told_without_its_own_words(mode: Any) -> None:
    async with served(qa(ValueError("hunter2"))) as at, Client(at.url, mode=mode) as client:
        result = await client.call_tool("QA", {"question": "?"})

    assert result.is_error
    assert text(result).startswith("The program failed.")
    assert "hunter2" not in text(result)
    assert (result.meta or {})["dspy-cli/run_id"]


async def test_outputs_other_than_promised_are_an_error_and_shown(mode: Any) -> None:
    class Liar(dspy.Module):
        def forward(self, question: str) -> int:
            return "many"  # pyright: ignore[reportReturnType]

    async with served(program(Liar)) as at, Client(at.url, mode=mode) as client:
        result = await client.call_tool("Liar", {"question": "?"})

    assert result.is_error
    assert "many" in text(result)


async def test_a_server_without_room_says_so(mode: Any) -> None:
    gate = threading.Event()

    def reply(_: str) -> str:
        gate.wait(20)
        return ANSWER

    async with served(qa(reply), concurrency=1, queue=0) as at, Client(at.url, mode=mode) as client:
        first = await at.runs.start(qa(reply), {"question": "?"})
        result = await client.call_tool("QA", {"question": "?"})
        gate.set()
        await first.outputs()

    assert result.is_error
    assert text(result).startswith("Too Many Requests.")


def text(result: Any) -> str:
    return " ".join(block.text for block in result.content)


# --- cancelling ---------------------------------------------------------------------------------------------


async def test_a_client_that_cancels_its_request_stops_the_run(mode: Any) -> None:
    long = chat(reasoning="word " * 2000, answer="42")
    first = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        first.set()

    async with served(qa(long, seconds_a_chunk=0.01)) as at, Client(at.url, mode=mode) as client:
        calling = asyncio.create_task(
            client.call_tool("QA", {"question": "?"}, progress_callback=on_progress)
        )
        await first.wait()
        (run,) = at.runs.live.values()
        calling.cancel()

        with pytest.raises(Problem) as stopped:
            await run.outputs()

    assert stopped.value.extra["code"] == "cancelled"
    assert stopped.value.detail == HINTS["cancelled"]


async def test_a_run_that_is_stopped_elsewhere_is_told(mode: Any) -> None:
    long = chat(reasoning="word " * 2000, answer="42")

    async with served(qa(long, seconds_a_chunk=0.01)) as at, Client(at.url, mode=mode) as client:
        running: asyncio.Future[Run] = asyncio.get_running_loop().create_future()

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            if not running.done():
                running.set_result(next(iter(at.runs.live.values())))

        calling = asyncio.create_task(
            client.call_tool("QA", {"question": "?"}, progress_callback=on_progress)
        )
        (await running).cancel()
        result = await calling

    assert result.is_error
    assert text(result).startswith("The run was stopped.")


# --- several processes at one address -----------------------------------------------------------------------


HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "0"},
    },
}
ACCEPTS = {"Accept": "application/json, text/event-stream"}


async def test_a_call_needs_no_session_where_several_processes_answer(mode: Any, tmp_path: Path) -> None:
    seen: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    shared = f"sqlite:///{tmp_path}/events.db"
    async with served(qa(seconds_a_chunk=0.01), events=shared, mcp="stateless") as at:
        async with Client(at.url, mode=mode) as client:
            result = await client.call_tool("QA", {"question": "?"}, progress_callback=on_progress)
        answer = await asyncio.to_thread(httpx.post, at.url, json=HELLO, headers=ACCEPTS)

    assert not result.is_error
    assert seen
    assert answer.status_code == 200
    assert "mcp-session-id" not in answer.headers


# --- the endpoint -------------------------------------------------------------------------------------------


async def test_it_may_end_in_another_task_than_it_began() -> None:
    """As when an app is mounted where no lifespan reaches, and begins with its first request."""
    app = create_app([qa()])
    mounted = mount(app, [qa()], app.state.runs, path="/tools")
    stack = AsyncExitStack()

    async with asyncio.timeout(10):
        await asyncio.create_task(stack.enter_async_context(mounted.lifespan()))
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost"
        ) as client:
            answer = await client.post("/tools", json=HELLO, headers=ACCEPTS)
        await stack.aclose()

    assert answer.status_code == 200


async def test_another_sites_page_cannot_use_it() -> None:
    async with served(qa()) as at:
        answers = [
            await asyncio.to_thread(httpx.post, at.url, json={}, headers=headers)
            for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"})
        ]

    assert [answer.status_code for answer in answers] == [421, 403]


async def test_a_body_that_is_too_large_is_refused() -> None:
    async with served(qa(), max_request_bytes=1000) as at:
        answer = await asyncio.to_thread(httpx.post, at.url, json="x" * 2000)

    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("event_type", "data", "words"),
    [
        ("module_start", {}, "it …"),
        ("lm_start", {"model": "openai/gpt"}, "openai/gpt: asked"),
        ("lm_end", {}, "it: answered"),
        ("tool_start", {"name": "search"}, "search: called"),
        ("tool_error", {}, "it: failed"),
        ("status", {"message": "Searching"}, "Searching"),
        ("adapter_format_start", {}, ""),
        ("module_end", {}, ""),
    ],
)
def test_steps_are_said_in_a_few_words(event_type: str, data: Any, words: str) -> None:
    assert said(happened(event_type, data=data)) == words


@pytest.mark.parametrize(
    ("heard", "told"),
    [
        (["lm_start"], ["it: asked"]),
        (["lm_start", "token", "token"], ["it: asked"]),
        (["token", "token"], ["2 tokens"]),
        (["token", "lm_end", "tool_start"], ["it: called"]),
        (["lm_start", "told", "token"], ["it: asked", "1 tokens"]),
        (["token", "told", "token", "module_end"], ["1 tokens", "2 tokens"]),
        (["module_end"], []),
    ],
)
def test_of_what_comes_at_once_the_last_step_is_told(heard: Sequence[str], told: Sequence[str]) -> None:
    news, found = News(), list[tuple[float, str]]()

    for sequence, event_type in enumerate([*heard, "told"]):
        if event_type != "told":
            news.hear(happened(event_type, sequence=sequence))
        elif news.is_there.is_set():
            progress, _, message = news.take()
            found.append((progress, message))

    assert [message for _, message in found] == told
    assert [progress for progress, _ in found] == sorted({progress for progress, _ in found})


def happened(event_type: str, *, sequence: int = 0, data: Any = None) -> Event:
    return Event(
        event_id=f"e-{sequence}",
        execution_id="e",
        sequence=sequence,
        timestamp=datetime.now(UTC),
        event_type=event_type,
        operation="it",
        data=data or {},
    )


def test_without_the_sdk_the_extra_is_named() -> None:
    code = "import sys; sys.modules['mcp'] = None; import dspy_cli.server.mcp"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "MissingExtra: MCP needs the official SDK: uv add 'dspy-cli[mcp]'" in done.stderr
