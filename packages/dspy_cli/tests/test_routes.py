"""The other routes: what can be called, health, where the app is mounted, and what attackers ask for."""

import asyncio
import contextlib
import socket
import threading
from pathlib import Path
from typing import Any

import dspy
import pytest
import streamll
from dspy_cli import ServerSettings, create_app
from dspy_cli.project.discover import Failure
from dspy_cli.project.programs import program
from dspy_cli.server.fleet import made
from fastapi import FastAPI
from fastapi.testclient import TestClient
from own_servers import redis_server
from scripted import chat
from serving import (
    QA,
    SECONDS,
    AsyncQA,
    begun,
    ended,
    endless,
    keys,
    parse,
    qa,
    resumed,
    serve,
    serving,
    stream,
    until,
    watching,
)

QUESTION = {"question": "6 * 7?"}

# --- what there is ------------------------------------------------------------------------------------------


async def test_programs_are_listed_with_their_schemas_and_files_that_failed_with_a_hint() -> None:
    failure = Failure(Path("modules/broken.py"), ImportError("no numpy"), "uv add numpy")
    async with serve(create_app([qa(), qa(module=AsyncQA)], failures=[failure])) as at, at.client() as client:
        listed = (await client.get("/programs")).json()

    assert [each["name"] for each in listed["programs"]] == ["QA", "AsyncQA"]
    first = listed["programs"][0]
    assert (first["path"], first["description"], first["kind"]) == (
        "/QA",
        "Answers questions.",
        "ChainOfThought",
    )
    assert (first["streams"], first["model"]) == (True, "scripted/model")
    assert first["input_schema"]["required"] == ["question"]
    assert "answer" in first["output_schema"]["properties"]
    assert listed["failures"] == [{"path": "modules/broken.py", "error": "no numpy", "hint": "uv add numpy"}]
    assert (listed["server"]["auth"], listed["server"]["mcp"]) == (False, False)


def test_programs_may_be_a_mapping_of_names_or_an_iterable_of_classes() -> None:
    for given in ({"ask": QA()}, [QA], [QA()], (program(QA),)):
        with TestClient(create_app(given), base_url="http://localhost") as client:
            names = [each["name"] for each in client.get("/programs").json()["programs"]]

        assert names == (["ask"] if isinstance(given, dict) else ["QA"])


async def test_the_pages_are_served_and_the_other_paths_are_problems() -> None:
    async with serving(qa()) as at, at.client() as client:
        page, nothing = await client.get("/"), await client.get("/nothing/here")

    assert page.headers["content-type"].startswith("text/html")
    assert "default-src" in page.headers["content-security-policy"]
    assert nothing.status_code == 404
    assert nothing.headers["content-type"] == "application/problem+json"


# --- health -------------------------------------------------------------------------------------------------


class Waits(dspy.Module):
    """Waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()

    def forward(self, question: str) -> dspy.Prediction:
        self.open.wait(SECONDS)
        return dspy.Prediction(answer=question)


async def test_a_server_that_is_being_stopped_lives_but_is_not_ready() -> None:
    gate = Waits()
    async with serving(program(gate), shutdown_seconds=10.0) as at, at.client() as client:
        run_id = await begun(client, "Waits")
        before = await client.get("/readyz")
        await at.call(at.runs.begin_to_drain)
        after, lives = await client.get("/readyz"), await client.get("/healthz")
        refused = await client.post("/Waits", json=QUESTION)
        gate.open.set()
        run = await ended(client, run_id)

    assert before.json() == {"status": "ok", "reasons": []}
    assert (after.status_code, after.json()["reasons"]) == (503, ["the server is being stopped"])
    assert lives.status_code == 200
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert run["status"] == "ok"


async def test_a_server_without_programs_is_not_ready() -> None:
    async with serve(create_app([])) as at, at.client() as client:
        answer = await client.get("/readyz")

    assert (answer.status_code, answer.json()["reasons"]) == (503, ["no program could be loaded"])


async def test_a_server_whose_log_was_never_there_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with serving(qa(), events=f"redis://127.0.0.1:{port}") as at, at.client() as client:

        async def reasons() -> list[str]:
            return (await client.get("/readyz")).json()["reasons"]

        told = await until(reasons, bool)

    assert told == ["the event log is away"]


async def test_what_does_not_end_in_time_is_marked_as_interrupted(events: str) -> None:
    gate = Waits()
    async with serving(program(gate), events=events, shutdown_seconds=0.2) as at, at.client() as client:
        run_id = await begun(client, "Waits")
        watched = asyncio.create_task(resumed(client, run_id, -1))
        await client.get("/healthz")
        await at.call(at.runs.begin_to_drain)
        frames = await watched
    async with serving(qa(), events=events) as at, at.client() as client:
        run = (await client.get(f"/runs/{run_id}")).json()
    gate.open.set()

    assert frames[-1].event == "execution_error"
    assert frames[-1].data["data"]["error"]["code"] == "interrupted"
    assert (run["status"], run["error"]["code"]) == ("interrupted", "interrupted")


async def test_metrics_are_prometheus_text() -> None:
    async with serving(qa()) as at, at.client() as client:
        await stream(client)
        answer = await client.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain")
    assert 'dspy_cli_runs_started_total{program="QA"} 1.0' in answer.text


# --- mounted ------------------------------------------------------------------------------------------------


def _host(mounted: FastAPI) -> FastAPI:
    """An app of the user's own, whose lifespan knows nothing of what is mounted."""
    host = FastAPI()
    host.get("/own")(lambda: {"own": True})
    host.mount("/ai", mounted)
    return host


async def test_a_mounted_app_works_without_its_lifespan(events: str) -> None:
    async with serve(_host(create_app([qa()], events=events))) as at, at.client() as client:
        own = await client.get("/own")
        answer = await client.post("/ai/QA", json=QUESTION)
        frames = await stream(client, "ai/QA")
        run = await client.get(answer.headers["location"])
        again = await client.get(f"{answer.headers['location']}/events")
        health = [(await client.get(f"/ai/{path}")).status_code for path in ("healthz", "readyz", "metrics")]
        page = await client.get("/ai/")

    assert own.json() == {"own": True}
    assert answer.headers["location"] == f"/ai/runs/{answer.headers['run-id']}"
    assert frames[-1].event == "prediction"
    assert run.json()["status"] == "ok"
    assert parse(again.content)[-1].event == "prediction"
    assert health == [200, 200, 200]
    assert page.status_code == 200


async def test_a_mounted_app_beats_and_sends_signs_of_life() -> None:
    often = ServerSettings(heartbeat_seconds=0.05)
    mounted = create_app([qa(size=30, seconds_a_chunk=0.2)], settings=often)
    async with serve(_host(mounted)) as at, at.client() as client:
        response = await client.post("/ai/QA/stream", json=QUESTION)

    assert response.content.count(b": keep-alive") > 2


def test_the_test_client_needs_no_lifespan_either() -> None:
    client = TestClient(create_app([qa()]), base_url="http://localhost")

    for _ in range(2):
        assert client.post("/QA", json=QUESTION).status_code == 200
        assert parse(client.post("/QA/stream", json=QUESTION).content)[-1].event == "prediction"


async def test_two_apps_in_a_process_know_nothing_of_each_other() -> None:
    async with serving(qa()) as one, serving(qa()) as other, one.client() as here, other.client() as there:
        run_id = (await here.post("/QA", json=QUESTION)).headers["run-id"]
        known, unknown = await here.get(f"/runs/{run_id}"), await there.get(f"/runs/{run_id}")
        listed = (await there.get("/runs")).json()

    assert (known.status_code, unknown.status_code) == (200, 404)
    assert listed == {"runs": []}


# --- attacks ------------------------------------------------------------------------------------------------

_TRICKS = (
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e",
    "a%00b",
    "x" * 5000,
    "a b",
    "%0d%0aSet-Cookie:x",
    "';DROP TABLE x",
    "🧵",
    "*",
    "__proto__",
    "0" * 29,
    "z" * 29,
)


@pytest.mark.parametrize("trick", _TRICKS)
async def test_ids_that_are_tricks_are_no_runs(trick: str) -> None:
    async with serving(qa(), events="memory:") as at, at.client() as client:
        answers = [
            await client.request(method, f"/runs/{trick}{path}", json={} if method == "POST" else None)
            for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/token"))
        ]

    assert {answer.status_code for answer in answers} <= {404, 405, 422}
    for answer in answers:
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.content) < 2000


async def test_an_id_that_only_names_a_living_worker_is_harmless(events: str) -> None:
    async with (
        serving(qa(), events=events) as one,
        serving(qa(), events=events) as other,
        one.client() as here,
        other.client() as there,
    ):
        real = (await here.post("/QA", json=QUESTION)).headers["run-id"]
        tricks = [f"{'z' * 12}{real[12:]}", f"{'f' * 12}{real[12:28]}zz", f"{'f' * 12}{real[12:28]}9"]
        answers = [await there.get(f"/runs/{trick}") for trick in tricks]

    assert [answer.status_code for answer in answers[:2]] == [404, 404]
    assert answers[2].status_code in (200, 404)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"])
async def test_other_methods_are_refused_and_start_nothing(method: str) -> None:
    async with serving(qa()) as at, at.client() as client:
        run_id = (await client.post("/QA", json=QUESTION)).headers["run-id"]
        paths = ("/QA", "/QA/stream", f"/runs/{run_id}/cancel", f"/runs/{run_id}/events", "/runs")
        answers = [await client.request(method, path) for path in paths]
        listed = (await client.get("/runs")).json()["runs"]

    assert {answer.status_code for answer in answers} <= {405, 403, 200 if method == "HEAD" else 405}
    assert len(listed) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"[]", 422),
        (b'"x"', 422),
        (b"null", 422),
        (b'{"question": 1}', 422),
        (b'{"question": "x", "self": 1}', 422),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b'{"question": "' + b"x" * 300_000 + b'"}', 413),
    ],
)
async def test_bodies_that_are_wrong_are_refused(body: bytes, status: int) -> None:
    async with serving(qa(), max_request_bytes=200_000) as at, at.client() as client:
        for path in ("/QA", "/QA/stream"):
            answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code == status
        alive = await client.get("/healthz")

    assert alive.status_code == 200


async def test_headers_and_queries_that_are_wrong_are_refused() -> None:
    async with serving(qa()) as at, at.client() as client:
        refused = [
            await client.get("/runs?limit=0"),
            await client.get("/runs?limit=100000"),
            await client.get("/runs?limit=x"),
            await client.post("/QA", json=QUESTION, headers={"On-Disconnect": "maybe"}),
        ]
        harmless = await client.get("/runs?program=%00&status=%F0%9F")

    assert [answer.status_code for answer in refused] == [422] * 4
    assert harmless.json() == {"runs": []}


class Lies(dspy.Module):
    """Emits events under the names that streams end with."""

    def forward(self, question: str) -> dspy.Prediction:
        for name in ("execution_end", "execution_error", "prediction", "worker_beat", "run_cancel"):
            with contextlib.suppress(ValueError):
                streamll.emit(name, {"outputs": {"answer": "false"}, "error": {"code": "orphaned"}})
        return dspy.Prediction(answer="true")


async def test_a_programs_own_events_cannot_end_its_run(events: str) -> None:
    async with (
        serving(program(Lies), events=events) as one,
        serving(qa(), events=events) as other,
        one.client() as here,
        other.client() as there,
    ):
        response = await here.post("/Lies/stream", json=QUESTION)
        run_id, frames = response.headers["run-id"], parse(response.content)
        run, again = (await there.get(f"/runs/{run_id}")).json(), await resumed(there, run_id, -1)

    assert [frame.id for frame in frames] == list(range(len(frames)))
    assert frames[-2].data["call_id"] == frames[0].data["call_id"]
    assert frames[-1].data == {"outputs": {"answer": "true"}}
    assert (run["status"], run["outputs"]) == ("ok", {"answer": "true"})
    assert keys(again) == keys(frames)


# --- a log that is away -------------------------------------------------------------------------------------


async def test_a_log_that_goes_away_harms_no_run_and_catches_up(tmp_path: Path) -> None:
    served = qa(chat(reasoning="Hm.", answer="word " * 40), size=4, seconds_a_chunk=0.05)
    with redis_server(tmp_path) as redis:
        async with (
            serving(served, events=redis.url, lease_seconds=1.0) as one,
            serving(qa(), events=redis.url, lease_seconds=1.0) as other,
            one.client() as here,
            other.client() as there,
        ):
            run_id = await begun(here)
            async with watching(here, "GET", f"/runs/{run_id}/events") as frames:
                seen = [await anext(frames) for _ in range(5)]
                await asyncio.to_thread(redis.stop)
                without = [await anext(frames) for _ in range(30)]
                answered = await here.post("/QA", json=QUESTION)
                lookups = [await here.get(path) for path in ("/runs", f"/runs/{run_id}", "/runs/nobody")]
                claimed = await here.post("/QA", json=QUESTION, headers={"Idempotency-Key": "k"})
                ready = await here.get("/readyz")
                await asyncio.to_thread(redis.start)
                rest = [frame async for frame in frames]

            run = await ended(there, run_id)
            elsewhere = await resumed(there, run_id, -1)

    assert [frame.id for frame in [*seen, *without, *rest]] == list(range(len(elsewhere)))
    assert rest[-1].event == "prediction"
    assert answered.status_code == 200
    assert {answer.status_code for answer in [*lookups, claimed]} <= {200, 503}
    assert ready.status_code == 503
    assert run["status"] == "ok"
    assert keys(elsewhere) == keys([*seen, *without, *rest])


async def test_a_log_that_was_away_for_longer_than_a_lease_orphans_nobody(tmp_path: Path) -> None:
    served = endless(seconds_a_chunk=0.05)
    with redis_server(tmp_path) as redis:
        async with (
            serving(served, events=redis.url, lease_seconds=0.6) as one,
            serving(qa(), events=redis.url, lease_seconds=0.6) as other,
            one.client() as here,
            other.client() as there,
        ):
            run_id = await begun(here)
            await until(lambda: there.get(f"/runs/{run_id}"), lambda answer: answer.status_code == 200)
            for _ in range(2):
                await asyncio.to_thread(redis.stop)
                await asyncio.sleep(2.0)
                await asyncio.to_thread(redis.start)

                async def stored() -> int:
                    runs = (await there.get("/runs")).json().get("runs", ())
                    assert all(run["status"] == "running" for run in runs)
                    return sum(run["events"] for run in runs)

                before = await stored()
                await until(stored, lambda count, before=before: count > before + 40)
            run = (await there.get(f"/runs/{run_id}")).json()
            told = await there.post(f"/runs/{run_id}/cancel", json={})
            last = await ended(there, run_id)

    assert run["status"] == "running"
    assert told.status_code == 202
    assert last["status"] == "cancelled"


async def test_a_log_that_is_away_at_the_start_is_used_when_it_comes(tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:
        redis.stop()
        async with (
            serving(qa(), events=redis.url, lease_seconds=0.6) as one,
            serving(endless(name="Slow"), events=redis.url, lease_seconds=0.6) as other,
            one.client() as here,
            other.client() as there,
        ):
            early = (await here.post("/QA", json=QUESTION)).status_code
            await asyncio.to_thread(redis.start)
            run_id = await begun(there, "Slow")
            await until(lambda: here.get(f"/runs/{run_id}"), lambda answer: answer.status_code == 200)
            await here.post(f"/runs/{run_id}/cancel", json={})
            run = await ended(there, run_id)

    assert early == 200
    assert run["status"] == "cancelled"


# --- orphans ------------------------------------------------------------------------------------------------


def _left_behind(run_id: str, worker: str) -> list[streamll.Event]:
    """The log of a run whose worker was killed."""
    about: Any = {"program": "QA", "served": "QA", "worker": worker}
    return [made(run_id, "execution_start", about), made(run_id, "step", {}, sequence=1)]


async def test_two_that_find_an_orphan_at_the_same_time_agree(events: str) -> None:
    worker = "ab" * 8
    runs = [f"{number:012x}{worker}0" for number in range(1_000_000, 1_000_005)]
    log = streamll.EventLog(events)
    for run_id in runs:
        log.append(_left_behind(run_id, worker))

    async with (
        serving(qa(), events=events, lease_seconds=0.6) as one,
        serving(qa(), events=events, lease_seconds=0.6) as other,
        one.client() as here,
        other.client() as there,
    ):
        await asyncio.gather(*(client.get("/runs") for client in (here, there) * 5))
        listed = [(await client.get("/runs")).json()["runs"] for client in (here, there)]
        details = [await ended(here, run_id) for run_id in runs]
        frames = [await resumed(there, run_id, -1) for run_id in runs]

    assert listed[0] == listed[1]
    assert {run["status"] for run in listed[0]} == {run["status"] for run in details} == {"orphaned"}
    for each in frames:
        assert [frame.event for frame in each] == ["execution_start", "step", "execution_error"]
        assert each[-1].data["data"]["error"]["code"] == "orphaned"
