"""The programs as tools of the Model Context Protocol, over streamable HTTP."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic import JsonValue, ValidationError
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from streamll import Event

from dspy_cli.errors import MissingExtra
from dspy_cli.project.programs import Program
from dspy_cli.server.history import Past
from dspy_cli.server.problems import Problem
from dspy_cli.server.run import Run
from dspy_cli.server.runs import Runs
from dspy_cli.server.streaming import Behind

try:
    from jsonschema.validators import validator_for
    from mcp import MCPError
    from mcp.server.lowlevel import Server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.server.transport_security import TransportSecuritySettings
    from mcp.types import (
        INVALID_PARAMS,
        CallToolRequestParams,
        CallToolResult,
        ListToolsResult,
        PaginatedRequestParams,
        TextContent,
        Tool,
    )
except ImportError as error:  # pragma: no cover - its test is a process of its own
    raise MissingExtra("MCP needs the official SDK: uv add 'dspy-cli[mcp]'") from error

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext
    from mcp.server.session import ServerSession

    type Context = ServerRequestContext[dict[str, Any]]

_SECONDS_BETWEEN = 0.1
"""Between two progress notifications: at most ten a second."""
_RUN_ID = "dspy-cli/run_id"


def mount(
    app: FastAPI,
    programs: Sequence[Program],
    runs: Runs,
    *,
    path: str = "/mcp",
    stateless: bool = False,
    max_request_bytes: int = 10_000_000,
) -> "Mcp":
    """Serve `programs` as tools at `path` of `app`, whose lifespan must hold `Mcp.lifespan()` open.

    Call it before the route `/{program}` is added, which would match `path`. Host and Origin are for the
    app's own guard to check.

    Args:
        app: Gets one route.
        programs: One tool each.
        runs: Where calls are started, so that they are in the history.
        path: Where clients connect.
        stateless: Keep no sessions: needed when several processes answer at one address. Clients that speak
            a protocol before 2026-07-28 then cannot cancel a call.
        max_request_bytes: Larger bodies are refused with 413.
    """
    mcp = Mcp(programs, runs, stateless=stateless, max_request_bytes=max_request_bytes)
    app.router.routes.append(Route(path, endpoint=mcp, include_in_schema=False))
    return mcp


class Mcp:
    """An ASGI app that answers MCP clients while its `lifespan()` is open."""

    def __init__(
        self, programs: Sequence[Program], runs: Runs, *, stateless: bool, max_request_bytes: int
    ) -> None:
        self._programs = {program.name: program for program in programs}
        self._runs = runs
        self._stateless = stateless
        self._max_request_bytes = max_request_bytes
        self._sessions: StreamableHTTPSessionManager | None = None
        self._server = Server[dict[str, Any]](
            "dspy-cli", version=version("dspy-cli"), on_list_tools=self._list, on_call_tool=self._call
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._sessions is not None, "Mcp.lifespan() is not open"
        await self._sessions.handle_request(scope, receive, send)

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Accept clients until the end of the `with`; calls that run then are cancelled."""
        self._sessions = StreamableHTTPSessionManager(
            self._server,
            stateless=self._stateless,
            max_request_body_size=self._max_request_bytes,
            # Guard has checked Host and Origin; a second list could only differ from what the user allowed.
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        began, over = asyncio.Event(), asyncio.Event()
        # In a task of its own: anyio wants to leave it in the task that entered, an app's lifespan may not.
        holding = asyncio.create_task(_hold(self._sessions, began, over), name="mcp sessions")
        await began.wait()
        try:
            yield
        finally:
            over.set()
            await holding
            self._sessions = None

    async def _list(self, _: "Context", __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[_tool(program) for program in self._programs.values()])

    async def _call(self, context: "Context", params: CallToolRequestParams) -> CallToolResult:
        program = self._programs.get(params.name)
        if program is None:
            raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name!r:.80}")
        try:
            inputs = program.inputs(program.request.model_validate(params.arguments or {}))
            run = await self._runs.start(program, inputs)
        except ValidationError as error:
            return _failed(f"The arguments of {program.name} are wrong. {_findings(error)}")
        except Problem as problem:
            return _failed(f"{problem.title}. {problem.detail}")
        return await self._watched(context, program, run)

    async def _watched(self, context: "Context", program: Program, run: Run | Past) -> CallToolResult:
        """Return how `run` ended; it is stopped when the client cancels or goes."""
        try:
            if "progress_token" in (context.meta or {}):
                await _report(context.session, run)
            outputs = await run.outputs()
        except asyncio.CancelledError:
            await self._runs.cancel(run.id)
            raise
        except Problem as problem:
            return _failed(f"{problem.title}. {problem.detail}", run)
        return _answered(program, outputs, run)


async def _hold(sessions: StreamableHTTPSessionManager, began: asyncio.Event, over: asyncio.Event) -> None:
    async with sessions.run():
        began.set()
        await over.wait()


def _tool(program: Program) -> Tool:
    return Tool(
        name=program.name,
        description=program.description or None,
        input_schema=dict(program.input_schema()),
        output_schema=dict(program.output_schema()),
    )


def _answered(program: Program, outputs: JsonValue, run: Run | Past) -> CallToolResult:
    text = json.dumps(outputs, ensure_ascii=False)
    schema = program.output_schema()
    if not validator_for(schema)(schema).is_valid(outputs):  # a client would refuse the whole answer
        return _failed(f"{program.name} returned other outputs than its schema promises: {text}", run)
    return CallToolResult(
        content=[TextContent(text=text)], structured_content=outputs, _meta={_RUN_ID: run.id}
    )


def _failed(text: str, run: Run | Past | None = None) -> CallToolResult:
    meta = None if run is None else {_RUN_ID: run.id}
    return CallToolResult(content=[TextContent(text=text)], is_error=True, _meta=meta)


def _findings(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return " ".join(f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}." for each in found)


async def _report(session: "ServerSession", run: Run | Past) -> None:
    """Tell the client of each step of `run`, and how many tokens came, but not too often."""
    news = News()
    async with asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(_tell(session, news))
        with suppress(Behind):  # the client read too slowly; it gets the answer
            async with aclosing(run.events()) as events:
                async for event in events:
                    news.hear(event)
        telling.cancel()
    if news.is_there.is_set():
        await session.report_progress(*news.take())


async def _tell(session: "ServerSession", news: "News") -> None:
    while True:
        await news.is_there.wait()
        await session.report_progress(*news.take())
        await asyncio.sleep(_SECONDS_BETWEEN)


class News:
    """The newest that a client was not told; of what comes at once, a step and not the tokens around it."""

    def __init__(self) -> None:
        self.is_there = asyncio.Event()
        self._tokens = 0
        self._step = ""
        self._sequence = 0

    def hear(self, event: Event) -> None:
        """Take the next event of a run."""
        is_token = event.event_type == "token"
        self._tokens += is_token
        if (step := said(event)) or is_token:
            self._step = step or self._step
            self._sequence = event.sequence
            self.is_there.set()

    def take(self) -> tuple[float, None, str]:
        """Return what is there: how far the run is, of an unknown total, and in words."""
        message = self._step or f"{self._tokens} tokens"
        self._step = ""
        self.is_there.clear()
        return self._sequence + 1, None, message


_SAYS: Mapping[str, Callable[[Event], str]] = {
    "module_start": lambda event: f"{event.operation} …",
    "lm_start": lambda event: f"{event.data.get('model') or event.operation}: asked",
    "lm_end": lambda event: f"{event.operation}: answered",
    "lm_error": lambda event: f"{event.operation}: failed",
    "tool_start": lambda event: f"{event.data.get('name') or event.operation}: called",
    "tool_end": lambda event: f"{event.operation}: returned",
    "tool_error": lambda event: f"{event.operation}: failed",
    "status": lambda event: str(event.data.get("message", "")),
}


def said(event: Event) -> str:
    """Return a step in a few words; "" for what is no step."""
    says = _SAYS.get(event.event_type)
    return says(event) if says else ""
