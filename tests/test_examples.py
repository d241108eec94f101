"""The programs in `examples/` do what they say."""

import asyncio
import importlib.util
import os
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any

import dspy
import httpx
import pytest
import streamll
from logs import new_name, run_of
from scripted import chat, lm
from servers import server

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> ModuleType:
    found = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


async def test_faststream_reads_our_redis_stream(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, target = server("redis"), new_name()
    monkeypatch.setitem(os.environ, "REDIS_URL", url)
    monkeypatch.setitem(os.environ, "STREAMLL_TARGET", target)
    broker = example("faststream_reader").broker

    async with broker:
        await broker.start()
        streamll.EventLog(url, target).append(run_of(3))
        async with asyncio.timeout(20):
            out = ""
            while "t3" not in out:
                await asyncio.sleep(0.05)
                out += capsys.readouterr().out

    assert [word for word in out.split() if word in ("t1", "t2", "t3")] == ["t1", "t2", "t3"]


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """A script in place of the hosted model that an example names."""
    answers = chat(reasoning="Air scatters light.", answer="It is blue.", translation="Il est bleu.")
    before, scripted = dspy.settings.lm, lm(answers)
    monkeypatch.setattr(dspy, "LM", lambda *_: scripted)
    yield
    dspy.configure(lm=before)


def test_programs_are_mounted_in_an_app(hosted: None) -> None:
    app = example("mounted").app

    async def visit() -> tuple[Any, Any, Any]:
        async with app.router.lifespan_context(app), client(app) as http:
            answered = await http.post("/ai/Translate", json={"text": "It is blue."})
            return answered.json(), (await http.get("/ai/programs")).json(), await http.get("/ai/")

    answered, listed, page = asyncio.run(visit())

    assert answered["translation"] == "Il est bleu."
    language = listed["programs"][0]["input_schema"]["properties"]["language"]
    assert language["default"] == "French"
    assert "text/html" in page.headers["content-type"]


def test_a_route_streams_a_program(hosted: None) -> None:
    app = example("sse_route").app

    async def visit() -> httpx.Response:
        async with client(app) as http:
            return await http.get("/ask", params={"question": "Why?"})

    streamed = asyncio.run(visit())

    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert '"answer":"It is blue."' in streamed.text.rpartition("event: prediction")[2]


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
