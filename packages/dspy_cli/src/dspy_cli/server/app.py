"""`create_app`: programs as a FastAPI app, to run by itself or to mount into another."""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import dspy
from fastapi import FastAPI, Request, Response
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from streamll.errors import Refused, Unreachable

from dspy_cli.gateways import api, cron
from dspy_cli.project.config import ServerSettings
from dspy_cli.project.programs import Program, program
from dspy_cli.server import problems
from dspy_cli.server.auth import Auth
from dspy_cli.server.guard import Guard, check_names
from dspy_cli.server.metrics import Metrics
from dspy_cli.server.routes import catalogue, program_routes, reply, run_routes
from dspy_cli.server.runs import Runs

if TYPE_CHECKING:
    from dspy_cli.project.discover import Failure
    from dspy_cli.server.mcp import Mcp

logger = logging.getLogger("dspy_cli")

_UI = Path(__file__).parents[1] / "ui"

type Programs = Mapping[str, dspy.Module] | Iterable[dspy.Module | type[dspy.Module] | Program]


def create_app(
    programs: Programs,
    *,
    events: str = "memory:",
    settings: ServerSettings | None = None,
    auth: Auth | None = None,
    mcp: bool | Literal["stateless"] = False,
    failures: Sequence["Failure"] = (),
) -> FastAPI:
    """Return an app that serves `programs` with streaming, a history of runs and a web UI.

    Mount it into an app of your own, or run it by itself. Background work begins with the app's lifespan, or,
    mounted where that does not reach, with the first request.

    Args:
        programs: Modules or their classes; a mapping gives them names.
        events: URL of the event log: `memory:`, `sqlite:///events.db`, `redis://`, ...; processes that name
            the same one show and cancel each other's runs.
        settings: Limits, allowed hosts and origins.
        auth: Who may come in; without it everybody who reaches the app.
        mcp: Serve the programs as MCP tools at `/mcp`, too; "stateless" where several processes answer at one
            address.
        failures: Shown in the UI: files that could not be served.

    Raises:
        BadProgram: A program cannot be served, or has a name of the server's own.
        BadSetting: An allowed host or origin is none.
        BadUrl: `events` names no place for events.
        MissingExtra: What `events` or `mcp` needs is not installed.
    """
    settings = settings or ServerSettings()
    check_names(settings)
    served = _programs(programs)
    metrics = Metrics()
    place = f"memory:{uuid.uuid4().hex}" if events == "memory:" else events
    runs = Runs(place, settings, observer=metrics)
    service = Service(runs, served, metrics)
    app = FastAPI(
        title="DSPy programs",
        version=version("dspy-cli"),
        lifespan=service.lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.runs = runs
    problems.install(app, debug=settings.debug)
    for kind in (Unreachable, Refused):
        app.add_exception_handler(kind, _log_is_away)
    if mcp:
        service.add_mcp(app, settings, stateless=mcp == "stateless")
    _add_pages(app)
    _add_health(app, service, metrics)
    listing = catalogue(served, failures, auth=auth is not None, mcp=bool(mcp))
    app.add_api_route("/programs", lambda: reply(listing), response_class=Response, tags=["programs"])
    login = [] if auth is None else [auth.router()]
    programs_of = [program_routes(each, runs) for each in served]
    for router in (run_routes(runs, auth), *login, api.routes(served, runs), *programs_of):
        app.include_router(router)
    app.add_middleware(service.middleware)
    public, any_content = api.paths(served, public=True), api.paths(served)
    app.add_middleware(Guard, settings=settings, auth=auth, public=public, any_content=any_content)
    app.add_middleware(metrics.middleware)
    return app


def _programs(given: Programs) -> Sequence[Program]:
    if isinstance(given, Mapping):
        named = cast("Mapping[str, dspy.Module]", given)
        return [program(module, name=name) for name, module in named.items()]
    return [each if isinstance(each, Program) else program(each) for each in given]


async def _log_is_away(_: Request, __: Exception) -> Response:
    away = "The event log cannot be reached: runs go on, but none can be looked up or claimed by a key."
    return problems.response(problems.Problem(503, away, headers={"retry-after": "5"}))


def _add_pages(app: FastAPI) -> None:
    pages = {"/": "index.html", "/docs": "docs.html"}
    for path, file in pages.items():
        app.add_api_route(path, _page(_UI / file), include_in_schema=False)
    app.mount("/ui", StaticFiles(directory=_UI), name="ui")


def _page(file: Path) -> Callable[[], Coroutine[Any, Any, FileResponse]]:
    async def page() -> FileResponse:
        return FileResponse(file)

    return page


def _add_health(app: FastAPI, service: "Service", metrics: Metrics) -> None:
    @app.get("/healthz", tags=["server"])
    async def healthz() -> dict[str, str]:
        """Say that the process lives."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["server"], response_class=Response)
    async def readyz() -> Response:
        """Say whether new runs are taken, 503 if not, and why."""
        reasons = service.why_not_ready()
        return reply(
            {"status": "unavailable" if reasons else "ok", "reasons": reasons}, 503 if reasons else 200
        )

    @app.get("/metrics", tags=["server"], response_class=Response)
    async def prometheus(request: Request) -> Response:
        """Return the metrics, for Prometheus."""
        body, content_type = metrics.render(request.headers.get("accept", ""))
        return Response(body, media_type=content_type)


class Service:
    """What goes on beside the requests, from the first one to the end of the app."""

    def __init__(self, runs: Runs, programs: Sequence[Program], metrics: Metrics) -> None:
        self._runs = runs
        self._programs = programs
        self._metrics = metrics
        self._mcp: Mcp | None = None
        self._crons: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._held = AsyncExitStack()
        self._loop: asyncio.AbstractEventLoop | None = None
        metrics.watch("log_waiting", "Events that wait to be stored.", lambda: runs.sink.stats().queued)
        metrics.watch("log_dropped", "Events that could not be stored.", lambda: runs.sink.stats().dropped)

    def add_mcp(self, app: FastAPI, settings: ServerSettings, *, stateless: bool) -> None:
        """Serve MCP at `/mcp`."""
        from dspy_cli.server.mcp import mount

        self._mcp = mount(
            app,
            self._programs,
            self._runs,
            stateless=stateless,
            max_request_bytes=settings.max_request_bytes,
        )

    def why_not_ready(self) -> list[str]:
        """Return why new runs would not be taken, nothing when they would."""
        reasons = {
            "the server is being stopped": self._runs.is_draining,
            "no program could be loaded": not self._programs,
            "the event log is away": self._runs.sink.is_away or self._runs.fleet.is_cut_off,
        }
        return [reason for reason, holds in reasons.items() if holds]

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncGenerator[None]:
        """Keep everything going inside the `with`; at its end, let the runs come to theirs."""
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Return `app`, starting the service with the first request if no lifespan did."""

        async def started(scope: Scope, receive: Receive, send: Send) -> None:
            if self._loop is None and scope["type"] == "http":
                await self.start()
            await app(scope, receive, send)

        return started

    async def start(self) -> None:
        """Begin; does nothing the second time."""
        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._go("keep-alive", self._runs.keep_alive())
        if self._runs.fleet.is_shared:
            self._go("fleet", self._runs.fleet.live())
        if any(isinstance(each.gateway, cron.CronGateway) for each in self._programs):
            skipped = self._metrics.cron_skipped
            self._crons = self._go(
                "crons", cron.run_crons(self._programs, self._runs, claim=self._runs.claim, skipped=skipped)
            )
        if self._mcp is not None:
            await self._held.enter_async_context(self._mcp.lifespan())

    async def stop(self) -> None:
        """Let runs come to their end, within `shutdown_seconds`, and stop everything else."""
        if self._crons is not None:
            self._crons.cancel()
        await self._runs.drain()
        await self._held.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runs.fleet.is_shared:
            await self._runs.fleet.leave()

    def _go(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"dspy-cli {name}")
        task.add_done_callback(_tell)
        self._tasks.append(task)
        return task


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("%s stopped working", task.get_name(), exc_info=error)
