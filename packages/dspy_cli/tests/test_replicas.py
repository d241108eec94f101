"""Processes of `dspy-cli serve` that share a log: each shows, resumes and stops the others' runs."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from serving import (
    Frame,
    Process,
    command,
    ended,
    keys,
    project,
    resumed,
    text_of,
    until,
    watching,
)

LEASE = 2.0
TALK = {"words": 2000, "seconds": 0.02}


@asynccontextmanager
async def replicas(
    directory: Path, events: str, number: int = 2, **server: Any
) -> AsyncGenerator[list[Process]]:
    """Serve one project with several processes that share `events`."""
    settings: dict[str, Any] = {"lease_seconds": LEASE, "shutdown_seconds": 3.0} | server
    where = project(directory / "demo", **settings)
    async with AsyncExitStack() as stack:
        started = [
            stack.enter_context(command(where, "--events", events, cwd=directory)) for _ in range(number)
        ]
        for process in started:
            await process.ready()
        yield started


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def talk(client: httpx.AsyncClient, **inputs: Any) -> str:
    """Start a run that talks, and return its id once it does."""
    answer = await client.post("/Talk", json=TALK | inputs, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    run_id = answer.json()["id"]
    async with watching(client, "GET", f"/runs/{run_id}/events") as frames:
        async for frame in frames:
            if frame.event == "token":
                break
    return run_id


async def rest_of(client: httpx.AsyncClient, run_id: str, after: int = -1) -> list[Frame]:
    """Watch a run to its end, coming again where a stream breaks off."""
    seen: list[Frame] = []
    async with asyncio.timeout(60):
        while not seen or seen[-1].event not in ("prediction", "execution_error"):
            last = seen[-1].id if seen else after
            async with watching(client, "GET", f"/runs/{run_id}/events", Last_Event_ID=str(last)) as frames:
                seen.extend([frame async for frame in frames])
    return seen


async def test_a_run_on_one_is_listed_watched_resumed_and_stopped_on_the_other(
    events: str, tmp_path: Path
) -> None:
    async with (
        replicas(tmp_path, events) as (one, other),
        one.client() as here,
        other.client() as there,
    ):
        run_id = await talk(here)
        listed = (await there.get("/runs")).json()["runs"]
        async with watching(there, "GET", f"/runs/{run_id}/events") as frames:
            first = [await anext(frames) for _ in range(10)]
        following = asyncio.create_task(rest_of(there, run_id, first[-1].id))
        told = await there.post(f"/runs/{run_id}/cancel", json={})
        rest = await following
        runs = [await ended(client, run_id) for client in (here, there)]
        whole = await resumed(here, run_id, -1)
        short = await there.post("/Talk", json={"words": 3})

    assert [(run["id"], run["status"], run["program"]) for run in listed] == [(run_id, "running", "Talk")]
    assert told.json() == {"id": run_id, "status": "cancelling"}
    assert [run["status"] for run in runs] == ["cancelled", "cancelled"]
    assert runs[0] == runs[1]
    assert keys([*first, *rest]) == keys(whole)
    assert short.json() == {"answer": "w0 w1 w2"}


async def test_the_runs_of_a_killed_process_are_orphaned(events: str, tmp_path: Path) -> None:
    async with (
        replicas(tmp_path, events) as (one, other),
        one.client() as here,
        other.client() as there,
    ):
        run_id = await talk(here)
        following = asyncio.create_task(rest_of(there, run_id))
        one.signal(signal.SIGKILL)
        began = time.monotonic()
        run = await ended(there, run_id)
        took = time.monotonic() - began
        frames = await following
        listed = (await there.get("/runs?status=orphaned")).json()["runs"]

    assert took < LEASE + 2
    assert (run["status"], run["error"]["code"]) == ("orphaned", "orphaned")
    assert [frame.id for frame in frames] == list(range(len(frames)))
    assert (frames[-1].event, frames[-1].data["data"]["error"]["code"]) == ("execution_error", "orphaned")
    assert [each["id"] for each in listed] == [run_id]


async def test_a_process_that_starts_again_tells_what_became_of_its_runs(tmp_path: Path) -> None:
    events = f"sqlite:///{tmp_path}/events.db"
    async with replicas(tmp_path, events, 1) as (one,), one.client() as here:
        done = (await here.post("/Talk", json={"words": 3})).headers["run-id"]
        cut = await talk(here)
        one.signal(signal.SIGKILL)
        await one.exited()
        with command(tmp_path / "demo", "--events", events, cwd=tmp_path) as again:
            await again.ready()
            async with again.client() as there:
                cut_run = await ended(there, cut, seconds=LEASE + 3)
                done_run = (await there.get(f"/runs/{done}")).json()
                listed = (await there.get("/runs")).json()["runs"]

    assert cut_run["status"] == "orphaned"
    assert (done_run["status"], done_run["outputs"]) == ("ok", {"answer": "w0 w1 w2"})
    assert [run["id"] for run in listed] == [cut, done]


async def test_a_process_that_is_told_to_stop_lets_its_runs_end(events: str, tmp_path: Path) -> None:
    async with (
        replicas(tmp_path, events, shutdown_seconds=20.0) as (one, other),
        one.client() as here,
        other.client() as there,
    ):
        run_id = await talk(here, words=150, seconds=0.01)
        async with watching(here, "GET", f"/runs/{run_id}/events") as frames:
            first = await anext(frames)
            one.signal(signal.SIGTERM)
            seen = [first, *[frame async for frame in frames]]
        status = await one.exited()
        run = await ended(there, run_id)

    assert status in (0, -signal.SIGTERM)  # which uvicorn raises again
    assert seen[-1].event == "prediction"
    assert text_of(seen, "answer").split()[-1] == "w149"
    assert run["status"] == "ok"


async def test_a_process_that_is_told_to_stop_marks_what_does_not_end(events: str, tmp_path: Path) -> None:
    async with (
        replicas(tmp_path, events, shutdown_seconds=0.5) as (one, other),
        one.client() as here,
        other.client() as there,
    ):
        run_id = await talk(here)
        stuck = await here.post("/Stuck", json={}, headers={"Prefer": "respond-async"})
        following = asyncio.create_task(rest_of(there, run_id))
        one.signal(signal.SIGTERM)
        began = time.monotonic()
        await one.exited()
        took = time.monotonic() - began
        runs = [await ended(there, each) for each in (run_id, stuck.json()["id"])]
        frames = await following

    assert took < 10
    assert [run["status"] for run in runs] == ["interrupted", "interrupted"]
    assert frames[-1].data["data"]["error"]["code"] == "interrupted"


async def test_a_key_starts_a_run_once_on_both(events: str, tmp_path: Path) -> None:
    key = {"Idempotency-Key": "order-1"}
    async with (
        replicas(tmp_path, events) as (one, other),
        one.client() as here,
        other.client() as there,
    ):
        asked = (
            client.post("/Talk", json={"words": 5, "seconds": 0.05}, headers=key) for client in (here, there)
        )
        answers = await asyncio.gather(*asked)
        listed = (await there.get("/runs")).json()["runs"]

    assert [answer.json() for answer in answers] == [{"answer": "w0 w1 w2 w3 w4"}] * 2
    assert len(listed) == 1


async def test_workers_share_the_port_and_the_runs(tmp_path: Path) -> None:
    where = project(tmp_path / "demo", lease_seconds=LEASE, shutdown_seconds=1.0)
    with command(where, "--workers", "2", cwd=tmp_path) as process:
        await process.ready()
        async with process.client() as client:
            run_id = await talk(client, words=100)
        seen: list[list[Frame]] = []
        for _ in range(6):
            async with process.client() as client:  # a connection of its own: either worker
                seen.append(await rest_of(client, run_id))
        async with process.client() as client:
            metrics = (await client.get("/metrics")).text
        process.signal(signal.SIGTERM)
        await process.exited()

    assert all(keys(frames) == keys(seen[0]) for frames in seen)
    assert seen[0][-1].event == "prediction"
    assert 'dspy_cli_runs_started_total{program="Talk"} 1.0' in metrics


async def test_a_worker_that_is_killed_is_replaced_and_its_run_orphaned(tmp_path: Path) -> None:
    where = project(tmp_path / "demo", lease_seconds=LEASE)
    with command(where, "--workers", "2", cwd=tmp_path) as process:
        await process.ready()
        async with process.client() as client:
            run_id = await talk(client)
            for pid in children(process.pid):
                os.kill(pid, signal.SIGKILL)

        async def status() -> str:
            try:
                async with process.client() as client:
                    return (await client.get(f"/runs/{run_id}")).json().get("status", "")
            except httpx.TransportError:
                return ""

        last = await until(status, lambda said: said == "orphaned", seconds=30)

    assert last == "orphaned"
