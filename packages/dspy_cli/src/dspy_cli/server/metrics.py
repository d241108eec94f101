"""What a server measures about itself, for Prometheus."""

import os
import platform
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, suppress
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Literal, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess
from prometheus_client.exposition import choose_encoder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_RUN_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
_TOKEN_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60)
_HTTP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
_mark_process_dead = cast("Callable[[int, str], None]", multiprocess.mark_process_dead)
type _Mode = Literal["livesum", "max"]
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_TOTALS = {
    "lm_calls": "Calls of language models.",
    "tool_calls": "Calls of tools.",
    "input_tokens": "Tokens that language models were given.",
    "output_tokens": "Tokens that language models gave.",
    "cost_usd": "What language models cost, as far as prices are known.",
}


class Metrics:
    """The metrics of one app.

    Each has its own registry. When PROMETHEUS_MULTIPROC_DIR is set, before Python starts, the workers of one
    server add up in that directory, which must be empty at the server's start.
    """

    def __init__(self) -> None:
        self._directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        self._registry = CollectorRegistry()
        self._watched: list[tuple[Gauge, Callable[[], float]]] = []
        self._runs_started = self._counter("runs_started", "Runs that began.", "program")
        self._runs_ended = self._counter("runs_ended", "Runs that ended, by how.", "program", "status")
        self._run_seconds = self._histogram(
            "run_seconds", "From a run's begin to its end.", _RUN_SECONDS, "program"
        )
        self._running = self._gauge("runs_in_flight", "Runs that have begun and not ended.", "program")
        self._queued = self._gauge("runs_queued", "Runs that wait for a free place.", "program")
        self._first_token = self._histogram(
            "first_token_seconds", "From a run's begin to its first token.", _TOKEN_SECONDS, "program"
        )
        self._totals = {name: self._counter(name, text, "program") for name, text in _TOTALS.items()}
        self._viewers = self._gauge("viewers", "Open streams of events.")
        self._delivered = self._counter("events_delivered", "Events sent to viewers.")
        self._skipped = self._counter("cron_ticks_skipped", "Ticks during the batch before them.", "program")
        self._requests = self._counter("http_requests", "Answers to requests.", "method", "route", "status")
        self._answer_seconds = self._histogram(
            "http_answer_seconds",
            "From a request to the head of its answer, which a stream sends at once.",
            _HTTP_SECONDS,
            "method",
            "route",
        )
        build = self._gauge("build_info", "Versions.", "version", "dspy", "python", mode="max")
        build.labels(version("dspy-cli"), version("dspy"), platform.python_version()).set(1)

    def run_queued(self, program: str) -> None:
        """A run was accepted. Each is told of: queued, started unless it ended before, ended."""
        self._queued.labels(program).inc()

    def run_started(self, program: str) -> None:
        """A run that was queued began."""
        self._queued.labels(program).dec()
        self._runs_started.labels(program).inc()
        self._running.labels(program).inc()

    def run_ended(
        self,
        program: str,
        status: str,
        seconds: float,
        totals: Mapping[str, object],
        *,
        began: bool = True,
    ) -> None:
        """A run ended.

        Args:
            program: Its name.
            status: How, one of a closed set.
            seconds: Since it began.
            totals: The data of its `execution_end`; what is absent or no number counts as nothing.
            began: False when it was cancelled while it was queued.
        """
        self._runs_ended.labels(program, status).inc()
        (self._running if began else self._queued).labels(program).dec()
        if began:
            self._run_seconds.labels(program).observe(seconds)
        for name, counter in self._totals.items():
            if isinstance(amount := totals.get(name), int | float) and amount > 0:
                counter.labels(program).inc(amount)

    def first_token(self, program: str, seconds: float) -> None:
        """The first token of a run came `seconds` after its begin."""
        self._first_token.labels(program).observe(seconds)

    def viewer(self) -> AbstractContextManager[None]:
        """Count a viewer as long as the `with` lasts."""
        return self._viewers.track_inprogress()

    def delivered(self, count: int) -> None:
        """`count` events were sent to a viewer."""
        self._delivered.inc(count)

    def cron_skipped(self, program: str, count: int) -> None:
        """`count` ticks of a cron gateway came while its batch still ran."""
        self._skipped.labels(program).inc(count)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show what `value()` returns as the gauge `dspy_cli_<name>`; it is asked whenever metrics are read.

        Of several workers, the others' values are from when each was last asked.
        """
        self._watched.append((self._gauge(name, text), value))

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Return `app` with its requests counted: `app.add_middleware(metrics.middleware)`."""

        async def measured(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return await app(scope, receive, send)
            began = perf_counter()
            answered = False

            def watched(message: Message) -> Awaitable[None]:
                nonlocal answered
                if message["type"] == "http.response.start":
                    answered = True
                    self._answered(scope, message["status"], perf_counter() - began)
                return send(message)

            try:
                await app(scope, receive, watched)
            finally:
                if not answered:  # it raised, or the client left first
                    self._answered(scope, 500, perf_counter() - began)

        return measured

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the metrics and their content type, in the format that the header `accept` asks for."""
        for gauge, value in self._watched:
            gauge.set(value())
        encode, content_type = choose_encoder(accept)
        return encode(self._readable()), content_type

    def _readable(self) -> CollectorRegistry:
        if self._directory is None:
            return self._registry
        _forget_the_dead(self._directory)
        everyone = CollectorRegistry()
        multiprocess.MultiProcessCollector(everyone, self._directory)
        return everyone

    def _answered(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path_format", "other")
        self._requests.labels(method, route, status).inc()
        self._answer_seconds.labels(method, route).observe(seconds)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"dspy_cli_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str, mode: _Mode = "livesum") -> Gauge:
        return Gauge(f"dspy_cli_{name}", text, labels, registry=self._registry, multiprocess_mode=mode)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"dspy_cli_{name}", text, labels, buckets=buckets, registry=self._registry)


def _forget_the_dead(directory: str) -> None:
    """Drop the gauges of workers that are gone: what they had in flight is not."""
    for file in Path(directory).glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if os.name == "posix" and not _alive(pid):  # elsewhere the signal 0 would interrupt it
            with suppress(FileNotFoundError):  # another worker was faster
                _mark_process_dead(pid, directory)


def _alive(pid: int) -> bool:
    try:
        with suppress(PermissionError):  # another user's process has that number now
            os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
