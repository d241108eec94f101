"""The HTTP routes: programs to call, runs to watch, look up and stop."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel

from dspy_cli.project.programs import Program
from dspy_cli.server.auth import Auth
from dspy_cli.server.history import Past
from dspy_cli.server.problems import Problem
from dspy_cli.server.run import Run
from dspy_cli.server.runs import Runs
from dspy_cli.server.streaming import EventStream, Tap, parse_last_event_id

if TYPE_CHECKING:
    from dspy_cli.project.discover import Failure

_encode = msgspec.json.encode
_SEEN_SECONDS = 0.25
"""How long a stream that is resumed may take to say that there is nothing left, before it begins."""

PROBLEM: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem document (RFC 9457).",
        "content": {
            "application/problem+json": {
                "schema": {
                    "type": "object",
                    "required": ["type", "title", "status"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "code": {"type": "string"},
                        "run": {"type": "string"},
                    },
                }
            }
        },
    }
}
_SSE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `id` is the sequence, `event` the type, `data` the event.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}

type OnDisconnect = Literal["continue", "cancel"]
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=255, description="Starts a run once.")]
Prefer = Annotated[str | None, Header(description="`respond-async` answers 202 at once.")]
Leaving = Annotated[
    OnDisconnect | None, Query(alias="on_disconnect", description="What a client's leaving does to the run.")
]
LeavingHeader = Annotated[OnDisconnect | None, Header(alias="On-Disconnect")]
RunId = Annotated[str, PathParameter(pattern=r"^[0-9A-Za-z_-]{1,128}$")]


def reply(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return `content` as JSON."""
    return Response(_encode(content), status, headers, "application/json")


# --- programs -----------------------------------------------------------------------------------------------


def catalogue(programs: Sequence[Program], failures: Sequence["Failure"], **server: object) -> dict[str, Any]:
    """Return what `GET /programs` answers: what can be called, and what cannot and why."""
    return {
        "programs": [
            {
                "name": program.name,
                "description": program.description,
                "kind": program.kind,
                "streams": program.streams,
                "model": program.model,
                "path": f"/{program.name}",
                "input_schema": program.input_schema(),
                "output_schema": program.output_schema(),
            }
            for program in programs
        ],
        "failures": [
            {"path": str(failure.path), "error": str(failure.error), "hint": failure.hint}
            for failure in failures
        ],
        "server": {"version": version("dspy-cli"), **server},
    }


def program_routes(program: Program, runs: Runs) -> APIRouter:
    """Return `POST /{program}` and `POST /{program}/stream`, with the program's own models."""
    router = APIRouter(tags=[program.name], responses=PROBLEM)
    endpoints: Sequence[tuple[str, Callable[..., Any], dict[str, Any]]] = (
        ("", _call(program, runs), {"responses": {200: {"model": program.response}, 202: _ACCEPTED}}),
        ("/stream", _stream(program, runs), {"responses": _SSE}),
    )
    for suffix, endpoint, documented in endpoints:
        endpoint.__annotations__["body"] = program.request
        router.add_api_route(
            f"/{program.name}{suffix}",
            endpoint,
            methods=["POST"],
            name=f"{program.name}{suffix}",
            description=program.description or None,
            response_class=Response,
            **documented,
        )
    return router


_ACCEPTED = {"description": "The run goes on; watch it at `Location`."}


def _call(program: Program, runs: Runs) -> Callable[..., Any]:
    async def call(
        body: BaseModel,
        request: Request,
        key: Key = None,
        prefer: Prefer = None,
        leaving: Leaving = None,
        leaving_header: LeavingHeader = None,
    ) -> Response:
        run = await runs.start(program, program.inputs(body), key=key)
        headers = _about(run, request)
        if prefer is not None and "respond-async" in prefer:
            told = {"id": run.id, "program": program.name, "status": getattr(run, "status", "running")}
            return reply(told, 202, headers | {"preference-applied": "respond-async"})
        if (leaving or leaving_header) == "cancel":
            return await _unless_left(request, run, headers)
        return reply(await run.outputs(), headers=headers)

    return call


async def _unless_left(request: Request, run: Run | Past, headers: dict[str, str]) -> Response:
    """Wait for the outputs; a client that goes away stops the run."""
    answering = asyncio.ensure_future(run.outputs())
    listening = asyncio.ensure_future(request.receive())
    while not answering.done():
        await asyncio.wait([answering, listening], return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            if listening.result()["type"] == "http.disconnect":
                run.cancel()
                break
            listening = asyncio.ensure_future(request.receive())
    listening.cancel()
    return reply(await answering, headers=headers)


def _stream(program: Program, runs: Runs) -> Callable[..., Any]:
    async def stream(
        body: BaseModel,
        request: Request,
        key: Key = None,
        leaving: Leaving = None,
        leaving_header: LeavingHeader = None,
    ) -> Response:
        run = await runs.start(program, program.inputs(body), key=key)
        cancels = (leaving or leaving_header) == "cancel"
        tap = Tap()
        return EventStream(
            runs.frames(run.id, tap=tap),
            observer=runs.observer,
            tap=tap,
            headers=_about(run, request),
            on_leave=run.cancel if cancels else None,
        )

    return stream


def _about(run: Run | Past, request: Request) -> dict[str, str]:
    """Return what is said of a run beside its answer; where it is depends on where the app is mounted."""
    return {"run-id": run.id, "location": f"{request.scope.get('root_path', '')}/runs/{run.id}"}


# --- runs ---------------------------------------------------------------------------------------------------


def run_routes(runs: Runs, auth: Auth | None) -> APIRouter:
    """Return the routes under `/runs`."""
    router = APIRouter(tags=["runs"], responses=PROBLEM)

    @router.get("/runs", response_class=Response)
    async def latest(
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        program: str | None = None,
        status: str | None = None,
    ) -> Response:
        """List the latest runs, newest first, of every worker that shares the log."""
        return reply({"runs": await runs.latest(limit, program=program, status=status)})

    @router.get("/runs/{run_id}", response_class=Response)
    async def detail(run_id: RunId) -> Response:
        """Tell a run in full."""
        return reply(await runs.detail(run_id))

    @router.get("/runs/{run_id}/events", response_class=Response, responses=_SSE | {204: _SEEN})
    async def events(
        run_id: RunId,
        after: Annotated[int | None, Query(ge=-1, le=10**15)] = None,
        last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
        token: Annotated[str | None, Query(max_length=500)] = None,
    ) -> Response:
        """Watch a run from its beginning or after an event: while it goes on, or long after."""
        seen = parse_last_event_id(last_event_id) if last_event_id is not None else after
        return await _watched(runs, run_id, -1 if seen is None else seen)

    @router.post("/runs/{run_id}/cancel", status_code=202, response_class=Response)
    async def cancel(run_id: RunId) -> Response:
        """Stop a run at its next LM call, tool call or token, whichever worker has it."""
        run = runs.get(run_id)  # which needs no log
        status = run.status if run is not None else (await runs.detail(run_id)).status
        if status in ("queued", "running"):
            await runs.cancel(run_id)
            status = "cancelling"
        return reply({"id": run_id, "status": status}, 202)

    @router.post("/runs/{run_id}/token", response_class=Response)
    async def sign(run_id: RunId) -> Response:
        """Return a token that lets an EventSource, which can send no header, watch this run for a while."""
        if auth is None:
            raise Problem(404, "This server asks for no key, so there is nothing to sign.")
        await runs.detail(run_id)
        return reply({"token": auth.sign(run_id, _TOKEN_SECONDS), "expires_in": _TOKEN_SECONDS})

    return router


_TOKEN_SECONDS = 300
_SEEN = {"description": "Everything was seen: an EventSource stops."}


async def _watched(runs: Runs, run_id: str, after: int) -> Response:
    """Return the stream; a client that has seen everything is told so, and comes no more."""
    await runs.must_exist(run_id)
    tap = Tap()
    frames = runs.frames(run_id, after, tap=tap)
    if after < 0:
        return EventStream(frames, observer=runs.observer, tap=tap)
    first = asyncio.ensure_future(anext(frames, None))
    await asyncio.wait([first], timeout=_SEEN_SECONDS)
    if first.done() and first.result() is None:
        return Response(status_code=204)
    return EventStream(_after(first, frames), observer=runs.observer, tap=tap)


async def _after(first: asyncio.Future[bytes | None], rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(rest):
        try:
            chunk = await first
        finally:
            first.cancel()
        if chunk is None:
            return
        yield chunk
        async for chunk in rest:
            yield chunk
