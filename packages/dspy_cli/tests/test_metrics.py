"""Metrics: what a server counts, with a bounded number of labels, alone or with other workers."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from dspy_cli.server.metrics import Metrics
from fastapi import APIRouter, FastAPI
from fastapi.responses import StreamingResponse
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

TOTALS = {"lm_calls": 2, "tool_calls": 1, "input_tokens": 30, "output_tokens": 12, "cost_usd": 0.25}


def samples(metrics: Metrics) -> Mapping[str, float]:
    """Return every sample as Prometheus reads it, `name{label=value}` without the prefix."""
    text = metrics.render()[0].decode()
    return {
        _written(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _written(name: str, labels: Mapping[str, str]) -> str:
    inside = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return name.removeprefix("dspy_cli_") + (f"{{{inside}}}" if inside else "")


def test_a_run_is_counted_from_its_queue_to_its_end() -> None:
    metrics = Metrics()

    metrics.run_queued("QA")
    queued = samples(metrics)
    metrics.run_started("QA")
    running = samples(metrics)
    metrics.run_ended("QA", "ok", 3.0, TOTALS)
    ended = samples(metrics)

    assert [each["runs_queued{program=QA}"] for each in (queued, running, ended)] == [1, 0, 0]
    assert [each["runs_in_flight{program=QA}"] for each in (running, ended)] == [1, 0]
    assert ended["runs_started_total{program=QA}"] == 1
    assert ended["runs_ended_total{program=QA,status=ok}"] == 1


def test_a_run_that_is_cancelled_in_the_queue_never_began() -> None:
    metrics = Metrics()

    metrics.run_queued("QA")
    metrics.run_ended("QA", "cancelled", 0.0, {}, began=False)

    seen = samples(metrics)
    assert seen["runs_queued{program=QA}"] == 0
    assert seen["runs_ended_total{program=QA,status=cancelled}"] == 1
    assert "runs_in_flight{program=QA}" not in seen
    assert "run_seconds_count{program=QA}" not in seen


@pytest.mark.parametrize(
    ("seconds", "first"), [(0.05, "0.1"), (0.7, "1.0"), (45.0, "60.0"), (600.0, "600.0")]
)
def test_a_duration_falls_into_a_bucket_fit_for_language_models(seconds: float, first: str) -> None:
    metrics = Metrics()

    metrics.run_queued("QA")
    metrics.run_started("QA")
    metrics.run_ended("QA", "ok", seconds, {})

    counts = {key: value for key, value in samples(metrics).items() if key.startswith("run_seconds_bucket")}
    assert (
        next(key for key, value in counts.items() if value) == f"run_seconds_bucket{{le={first},program=QA}}"
    )


def test_tokens_and_cost_add_up_by_program() -> None:
    metrics = Metrics()

    for program in ("QA", "QA", "Triage"):
        metrics.run_ended(program, "ok", 1.0, TOTALS)

    seen = samples(metrics)
    assert {name: seen[f"{name}_total{{program=QA}}"] for name in TOTALS} == {
        name: 2 * amount for name, amount in TOTALS.items()
    }
    assert seen["cost_usd_total{program=Triage}"] == 0.25


@pytest.mark.parametrize("totals", [{}, {"cost_usd": None, "lm_calls": "many"}, {"lm_calls": -1}])
def test_totals_that_are_unknown_count_as_nothing(totals: Mapping[str, object]) -> None:
    metrics = Metrics()

    metrics.run_ended("QA", "error", 1.0, totals)

    assert not [
        key for key, value in samples(metrics).items() if key.startswith(("cost", "lm_calls")) and value
    ]


def test_viewers_deliveries_first_tokens_and_skipped_ticks_are_counted() -> None:
    metrics = Metrics()

    with metrics.viewer(), metrics.viewer():
        watching = samples(metrics)["viewers"]
    metrics.delivered(3)
    metrics.first_token("QA", 0.3)
    metrics.cron_skipped("QA", 2)

    seen = samples(metrics)
    assert (watching, seen["viewers"]) == (2, 0)
    assert seen["events_delivered_total"] == 3
    assert seen["first_token_seconds_sum{program=QA}"] == 0.3
    assert seen["cron_ticks_skipped_total{program=QA}"] == 2


def test_a_watched_value_is_asked_whenever_metrics_are_read() -> None:
    metrics, values = Metrics(), iter([1.5, 2.5])
    metrics.watch("event_log_lag_seconds", "How far the log is behind.", lambda: next(values))

    assert [samples(metrics)["event_log_lag_seconds"] for _ in range(2)] == [1.5, 2.5]


def test_two_apps_in_a_process_count_apart() -> None:
    one, other = Metrics(), Metrics()

    one.delivered(1)

    assert (samples(one)["events_delivered_total"], samples(other)["events_delivered_total"]) == (1, 0)


def test_the_versions_are_told() -> None:
    build = next(key for key in samples(Metrics()) if key.startswith("build_info"))

    assert f"python={sys.version.split()[0]}" in build
    assert "dspy=" in build


def test_the_format_is_what_the_reader_asks_for() -> None:
    metrics = Metrics()

    assert metrics.render()[1].startswith("text/plain")
    assert metrics.render("application/openmetrics-text; version=1.0.0")[1].startswith(
        "application/openmetrics-text"
    )


def test_a_call_costs_microseconds() -> None:
    metrics, count = Metrics(), 2000

    began = time.perf_counter()
    for _ in range(count):
        metrics.delivered(1)
        metrics.run_queued("QA")
        metrics.run_started("QA")
        metrics.run_ended("QA", "ok", 1.0, TOTALS)

    assert (time.perf_counter() - began) / count < 500e-6  # 20 µs on a quiet machine


# --- HTTP ---------------------------------------------------------------------------------------------------


def app(metrics: Metrics) -> FastAPI:
    served = FastAPI()
    served.add_middleware(metrics.middleware)

    @served.post("/{program}")
    async def run(program: str) -> str:  # pyright: ignore[reportUnusedFunction]
        return program

    @served.get("/runs/{id}/events")
    async def events(id: str) -> StreamingResponse:  # pyright: ignore[reportUnusedFunction]
        return StreamingResponse(iter([id]))

    @served.get("/boom")
    async def boom() -> None:  # pyright: ignore[reportUnusedFunction]
        raise RuntimeError("secret")

    router = APIRouter()

    @router.get("/item/{id}")
    async def item(id: str) -> str:  # pyright: ignore[reportUnusedFunction]
        return id

    served.include_router(router)
    served.router.routes.append(Mount("/ui", Starlette(routes=[Route("/{path:path}", _nothing)])))
    return served


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def asked(metrics: Metrics, *requests: tuple[str, str]) -> Mapping[str, float]:
    transport = httpx.ASGITransport(app(metrics), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for method, path in requests:
            await client.request(method, path)
    return {
        key.removeprefix("http_requests_total"): value
        for key, value in samples(metrics).items()
        if key.startswith("http_requests_total")
    }


@pytest.mark.parametrize(
    ("method", "path", "labels"),
    [
        ("POST", "/QA", "{method=POST,route=/{program},status=200}"),
        ("GET", "/runs/abc/events", "{method=GET,route=/runs/{id}/events,status=200}"),
        ("GET", "/item/7", "{method=GET,route=/item/{id},status=200}"),
        ("GET", "/boom", "{method=GET,route=/boom,status=500}"),
        ("GET", "/no/such/path", "{method=GET,route=other,status=404}"),
        ("DELETE", "/QA", "{method=DELETE,route=/{program},status=405}"),
        ("BREW", "/QA", "{method=other,route=/{program},status=405}"),
    ],
)
async def test_a_request_is_counted_by_its_route(method: str, path: str, labels: str) -> None:
    assert await asked(Metrics(), (method, path)) == {labels: 1}


async def test_however_many_paths_are_asked_for_the_labels_stay_few() -> None:
    paths = [("GET", f"/guess/{number}/x") for number in range(50)]
    files = [("GET", f"/ui/{number}.js") for number in range(50)]

    assert len(await asked(Metrics(), *paths, *files)) == 2


async def test_an_answer_is_timed_to_its_head() -> None:
    metrics = Metrics()

    await asked(metrics, ("POST", "/QA"))

    seen = samples(metrics)
    assert seen["http_answer_seconds_count{method=POST,route=/{program}}"] == 1
    assert 0 < seen["http_answer_seconds_sum{method=POST,route=/{program}}"] < 5


async def test_what_is_no_request_passes() -> None:
    metrics, seen = Metrics(), list[str]()

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await metrics.middleware(inner)({"type": "lifespan"}, None, None)  # pyright: ignore[reportArgumentType]

    assert seen == ["lifespan"]
    assert not [key for key in samples(metrics) if key.startswith("http_requests_total")]


# --- several workers ----------------------------------------------------------------------------------------

WORKER = """
import sys
from dspy_cli.server.metrics import Metrics
metrics = Metrics()
metrics.watch("event_log_dropped", "Events lost.", lambda: 4)
metrics.run_queued("QA"); metrics.run_started("QA")
metrics.run_queued("QA"); metrics.run_started("QA"); metrics.run_ended("QA", "ok", 1.0, {"lm_calls": 1})
metrics.render()
print("ready", flush=True)
sys.stdin.read()
print(metrics.render()[0].decode())
"""


def test_the_workers_of_a_server_add_up_and_the_dead_have_nothing_in_flight(tmp_path: Path) -> None:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"

    first, _ = workers[0].communicate("", timeout=30)
    second, _ = workers[1].communicate("", timeout=30)

    assert 'dspy_cli_runs_ended_total{program="QA",status="ok"} 2.0' in first
    assert 'dspy_cli_runs_in_flight{program="QA"} 2.0' in first
    assert "dspy_cli_event_log_dropped 8.0" in first
    assert 'dspy_cli_runs_ended_total{program="QA",status="ok"} 2.0' in second
    assert 'dspy_cli_runs_in_flight{program="QA"} 1.0' in second
    assert first.count("dspy_cli_build_info{") == 1


def test_the_gauges_of_a_worker_that_died_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    died = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, check=True
    )
    files = [tmp_path / f"{name}_{int(died.stdout)}.db" for name in ("gauge_livesum", "counter")]
    for file in files:
        file.write_bytes(b"\0" * 8)

    Metrics().render()

    assert [file.exists() for file in files] == [False, True]


def test_files_of_processes_that_may_not_be_asked_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 1 belongs to root, and lives."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    kept = tmp_path / "gauge_livesum_1.db"
    kept.write_bytes(b"\0" * 8)

    Metrics().render()

    assert kept.exists()
