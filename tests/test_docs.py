"""Every Python block of the README and the docs runs, in order, with a scripted model for a hosted one."""

import asyncio
import inspect
import os
import re
from pathlib import Path
from typing import Any

import dspy
import httpx
import pytest
import streamll
from dspy_cli import create_app
from scripted import chat, lm
from streamll import cli

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / "README.md", ROOT / "packages/streamll/README.md", ROOT / "packages/dspy_cli/README.md"),
    *sorted((ROOT / "docs").glob("*.md")),
]
SERVING = [ROOT / "docs/serving.md", ROOT / "docs/gateways.md"]
"""Pages of dspy-cli."""
CHECKING = ROOT / "docs/checking.md"


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


class Hosted(dspy.LM):
    """A hosted model's name, a script's answers."""

    def __init__(self, model: str, **options: Any) -> None:
        from scripted import AsyncEngine, Engine, chat

        engine = Engine(chat(reasoning="Air scatters light.", answer="It is blue."))
        super().__init__(model, engine=engine, async_engine=AsyncEngine(engine), cache=False, **options)


async def _served(names: dict[str, Any]) -> None:
    """Run the service of the page until it has handled an answer's end."""
    ended = asyncio.Event()
    names["consumer"].on("execution_end")(lambda _: ended.set())
    service = asyncio.ensure_future(names["service"]())
    async with asyncio.timeout(20):
        await ended.wait()
    await names["consumer"].stop()
    await service


STREAMING = [page for page in PAGES if page not in (*SERVING, CHECKING) and blocks(page)]


@pytest.mark.parametrize("page", STREAMING, ids=lambda page: page.name)
def test_the_code_of_the_docs_runs(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[streamll.Event] = []
    here, lm, settings = Path.cwd(), dspy.LM, dict(dspy.settings.config)
    names: dict[str, Any] = {"__name__": page.stem}
    os.chdir(tmp_path)
    dspy.LM = Hosted
    try:
        with streamll.configure([seen.append]):
            for code in blocks(page):
                exec(compile(code, str(page), "exec"), names)
        if inspect.iscoroutinefunction(names.get("answer")):
            assert asyncio.run(names["answer"]("Why?")).answer == "It is blue."
        if inspect.iscoroutinefunction(names.get("replayed")):
            assert streamll.flush(10)  # of the answer, which went to the file
            read = asyncio.run(asyncio.wait_for(names["replayed"](), 20))
            assert read[0].sequence == 4
            assert read[-1].event_type == "execution_end"
            asyncio.run(_served(names))
            assert "It is blue." in capsys.readouterr().out
    finally:
        dspy.LM = lm
        dspy.configure(lm=settings.get("lm"))
        os.chdir(here)
        streamll.flush(5)

    assert "It is blue." in "".join(str(e.data["token"]) for e in seen if e.event_type == "token")
    assert "documents_found" in {e.event_type for e in seen}
    assert {e.data.get("request_id") for e in seen if e.operation == "Search"} == {"r-42"}


async def test_the_app_of_the_page_on_serving_serves() -> None:
    names: dict[str, Any] = {"__name__": "serving"}
    for code in blocks(SERVING[0]):
        exec(compile(code, str(SERVING[0]), "exec"), names)

    with dspy.context(lm=lm(chat(reasoning="Air scatters light.", answer="It is blue."))):
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(names["app"]), base_url="http://localhost"
        ) as http:
            called = await http.post("/ai/Qa", json={"question": "Why?"})
            asked = await http.get("/ask", params={"question": "Why?"})
        framed = b"".join([frame async for frame in names["frames"]("Why?")])

    assert called.json()["answer"] == "It is blue."
    for streamed in (asked.content, framed):
        assert b'"answer":"It is blue."' in streamed.rpartition(b"event: prediction")[2]


def test_the_gateways_of_the_page_are_gateways() -> None:
    names: dict[str, Any] = {"__name__": "gateways"}
    for code in re.findall(r"^```py\n(.*?)^```", SERVING[1].read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(code, str(SERVING[1]), "exec"), names)

    served = [name for name, value in names.items() if isinstance(value, type) and hasattr(value, "gateway")]
    assert served
    assert create_app([names[name] for name in served if issubclass(names[name], dspy.Module)])


def test_the_readme_shows_what_the_demo_prints() -> None:
    readme = PAGES[0].read_text()

    shown = {question for question in cli.QUESTIONS if f'question="{question}"' in readme}
    assert shown
    assert all(f'search_handbook(query="{question}")' in readme for question in shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.name}")
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_code_of_the_page_about_checking_runs() -> None:
    for code in blocks(CHECKING):
        exec(compile(code, str(CHECKING), "exec"), {})
