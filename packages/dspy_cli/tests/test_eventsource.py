"""A real EventSource, npm's, over a network that breaks after every event: it resumes exactly, and stops."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from scripted import chat
from serving import SECONDS, Proxy, begun, ended, keys, parse, qa, resumed, serving

_PACKAGE = "eventsource@4.1.0"

_CLIENT = """
import { EventSource } from "eventsource";

const [url, ...types] = process.argv.slice(2);
const source = new EventSource(url);
const shown = ({ lastEventId, type, data }) => JSON.stringify({ id: lastEventId, event: type, data });
const tell = (event) => console.log(shown(event));
for (const type of types) source.addEventListener(type, tell);
source.onerror = (error) => {
  if (source.readyState === EventSource.CLOSED) {
    console.log(JSON.stringify({ closed: error.code ?? null }));
    process.exit(0);
  }
};
"""

_TYPES = (
    *("execution_start", "execution_end", "execution_error", "prediction", "token", "reasoning", "status"),
    *(f"{kind}_{end}" for kind in ("module", "lm", "tool") for end in ("start", "end", "error")),
    *(f"adapter_{kind}_{end}" for kind in ("format", "parse") for end in ("start", "end", "error")),
)


@pytest.fixture(scope="session")
def client(request: pytest.FixtureRequest) -> Path:
    """A script that prints what an EventSource gets, with the package beside it."""
    directory = Path(request.config.cache.mkdir("eventsource"))  # pyright: ignore[reportOptionalMemberAccess]
    script = directory / "client.mjs"
    script.write_text(_CLIENT)
    if not (directory / "node_modules" / "eventsource").exists():
        _install(directory)
    return script


def _install(directory: Path) -> None:
    npm = shutil.which("npm")
    quiet = ("--no-audit", "--no-fund", "--no-progress", "--ignore-scripts", "--prefix", str(directory))
    done = npm and subprocess.run((npm, "install", *quiet, _PACKAGE), capture_output=True, check=False)
    if not done or done.returncode:
        missing = f"npm cannot install {_PACKAGE}"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)


async def watched(script: Path, url: str) -> tuple[list[tuple[int, str, str]], object]:
    """Return what an EventSource got until it closed, and the status that made it."""
    process = await asyncio.create_subprocess_exec(
        "node", str(script), url, *_TYPES, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(2 * SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    *events, last = map(json.loads, output.splitlines())
    return [(int(each["id"]), each["event"], each["data"]) for each in events], last["closed"]


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("during", [True, False])
async def test_an_event_source_resumes_exactly_after_every_disconnect(
    client: Path, *, each: int, during: bool
) -> None:
    served = qa(chat(reasoning="Hm.", answer="word " * 8), size=4, seconds_a_chunk=0.05 if during else 0.0)
    async with serving(served) as at, at.client() as asking:
        run_id = await begun(asking)
        if not during:
            await ended(asking, run_id)
        async with Proxy(at.url, each).running() as proxy:
            seen, closed = await watched(client, f"{proxy.url}/runs/{run_id}/events")
        whole = await resumed(asking, run_id, -1)

    assert [(identity, event) for identity, event, _ in seen] == [(f.id, f.event) for f in whole]
    assert [json.loads(data) for *_, data in seen] == [frame.data for frame in whole]
    assert closed == 204
    assert proxy.connections >= len(whole) / each


async def test_an_event_source_resumes_with_another_server(client: Path, events: str) -> None:
    async with (
        serving(qa(), events=events) as one,
        serving(qa(), events=events) as other,
        one.client() as asking,
        Proxy(other.url, 2).running() as proxy,
    ):
        response = await asking.post("/QA/stream", json={"question": "?"})
        run_id, whole = response.headers["run-id"], parse(response.content)
        seen, closed = await watched(client, f"{proxy.url}/runs/{run_id}/events")
        again = await resumed(asking, run_id, -1)

    assert [identity for identity, *_ in seen] == list(range(len(whole)))
    assert closed == 204
    assert keys(again) == keys(whole)


async def test_an_event_source_does_not_come_back_for_a_run_that_nobody_knows(client: Path) -> None:
    async with serving(qa()) as at, Proxy(at.url, 100).running() as proxy:
        seen, closed = await watched(client, f"{proxy.url}/runs/nobody/events")

    assert (seen, closed, proxy.connections) == ([], 404, 1)
