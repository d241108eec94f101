"""What is compared, each an app in a process of its own: our server, and what one would write by hand.

    python benchmarks/serving/apps.py APP PORT [SERVER]

The process of a peer never imports streamll: its DSPy is as it was installed.
"""

import asyncio
import gc
import random
import sys
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any, NamedTuple

RATE = 20
"""Events a second of a program."""
SECONDS = 4
"""How long a program of ours speaks."""

# --- peers of our streams: frames that are ready, of one source for all that watch it -----------------------


class Ready(NamedTuple):
    """An event: its JSON, and that as a frame."""

    number: int
    data: str
    frame: bytes


class Feed:
    """A program's worth of events, `RATE` a second while somebody watches."""

    def __init__(self) -> None:
        self._events: list[Ready] = []
        self._viewers: list[asyncio.Future[None]] = []
        self._watched = 0
        self._ticking: asyncio.Task[None] | None = None

    async def events(self) -> AsyncGenerator[Ready]:
        """Yield each event as it comes."""
        seen, loop = len(self._events), asyncio.get_running_loop()
        self._watched += 1
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick())
        try:
            while True:
                for event in self._events[seen:]:
                    yield event
                seen = len(self._events)
                self._viewers.append(future := loop.create_future())
                await future
        finally:
            self._watched -= 1

    async def _tick(self) -> None:
        due = time.monotonic() + random.random() / RATE
        while self._watched:
            due += 1 / RATE
            await asyncio.sleep(due - time.monotonic())
            self._events.append(ready(len(self._events)))
            waiting, self._viewers = self._viewers, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)
        self._ticking = None


def ready(number: int) -> Ready:
    """Return an event of the length of ours, with the time it is now."""
    data = (
        f'{{"event_id":"019b1f8d5c7d3f0e8a6b5c4d3e2f","execution_id":"019b1f8d5c7d3f0e8a6b5c4d3e2f",'
        f'"sequence":{number},"timestamp":"{datetime.now(UTC).isoformat()}","event_type":"token",'
        f'"call_id":"0f1e2d3c4b5a69788796a5b4c3d2e1f0","parent_call_id":"0f1e2d3c4b5a69788796a5b4c3d2e1f1",'
        f'"module_name":"Predict","operation":"none/none",'
        f'"data":{{"token":"word7 ","token_index":{number},"field":"answer"}},"tags":[],"version":1}}'
    )
    return Ready(number, data, f"id: {number}\nevent: token\ndata: {data}\n\n".encode())


async def frames(feed: Feed) -> AsyncGenerator[bytes]:
    async with aclosing(feed.events()) as events:
        async for event in events:
            yield event.frame


async def paced() -> AsyncGenerator[bytes]:
    """Frames of a viewer's own, by a timer of its own."""
    due = time.monotonic() + random.random() / RATE
    for number in count():
        due += 1 / RATE
        await asyncio.sleep(due - time.monotonic())
        yield ready(number).frame


def fastapi_stream() -> Any:
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse

    app, feeds = FastAPI(), by_number()

    @app.get("/feed/{number}")
    async def feed(number: int) -> StreamingResponse:
        return StreamingResponse(frames(feeds(number)), media_type="text/event-stream")

    return app


def starlette_stream() -> Any:
    from starlette.requests import Request
    from starlette.responses import StreamingResponse

    feeds = by_number()

    def respond(request: Request) -> StreamingResponse:
        return StreamingResponse(frames(feeds(request.path_params["n"])), media_type="text/event-stream")

    return starlette_app(respond)


def sse_starlette() -> Any:
    from sse_starlette import EventSourceResponse
    from starlette.requests import Request

    feeds = by_number()

    async def messages(feed: Feed) -> AsyncGenerator[dict[str, str]]:
        async with aclosing(feed.events()) as events:
            async for event in events:
                yield {"id": str(event.number), "event": "token", "data": event.data}

    def respond(request: Request) -> EventSourceResponse:
        return EventSourceResponse(messages(feeds(request.path_params["n"])), sep="\n")

    return starlette_app(respond)


def starlette_app(respond: Callable[[Any], Any]) -> Any:
    from starlette.applications import Starlette
    from starlette.routing import Route

    async def endpoint(request: Any) -> Any:
        return respond(request)

    return Starlette(routes=[Route("/feed/{n:int}", endpoint)])


def bare(source: Callable[[int], AsyncGenerator[bytes]]) -> Any:
    """ASGI and nothing else."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await receive()  # the request, which has no body
        leaving = asyncio.ensure_future(receive())
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with aclosing(source(int(scope["path"].rpartition("/")[2]))) as chunks:
            async for chunk in chunks:
                if leaving.done():
                    break
                await send({"type": "http.response.body", "body": chunk, "more_body": True})

    return app


def bare_shared() -> Any:
    feeds = by_number()
    return bare(lambda number: frames(feeds(number)))


def bare_paced() -> Any:
    return bare(lambda _: paced())


def by_number() -> Callable[[int], Feed]:
    feeds: dict[int, Feed] = {}
    return lambda number: feeds.setdefault(number, Feed())


# --- a program without a model ------------------------------------------------------------------------------


class Engine:
    """Says `tokens` words in ChatAdapter's format after `seconds`, or `RATE` a second once a `gate` opens."""

    supports_function_calling = supports_reasoning = supports_response_schema = False
    supported_params = ()

    def __init__(self, tokens: int, gate: threading.Event | None = None, seconds: float = 0.0) -> None:
        from dspy.lm15 import Message, Response, TextPart, Usage

        words = [f"word{number % 10} " for number in range(tokens)]
        self._pieces = ["[[ ## answer ## ]]\n", *words, "\n\n[[ ## completed ## ]]\n"]
        self._usage = Usage(input_tokens=7, output_tokens=tokens)
        said = Message.assistant([TextPart("".join(self._pieces))])
        self._response = Response(id="r", model="none", message=said, finish_reason="stop", usage=self._usage)
        self._gate, self._seconds = gate, seconds

    def complete(self, request: Any) -> Any:
        time.sleep(self._seconds)
        return self._response

    def stream(self, request: Any) -> Iterator[Any]:
        from dspy.lm15 import StreamDeltaEvent, StreamEndEvent, StreamStartEvent, TextDelta

        yield StreamStartEvent(id="r", model="none")
        if self._gate is not None:
            self._gate.wait()
        time.sleep(self._seconds)
        due = time.monotonic() + random.random() / RATE
        for piece in self._pieces:
            if self._gate is not None:
                due += 1 / RATE
                time.sleep(max(0.0, due - time.monotonic()))
            yield StreamDeltaEvent(TextDelta(piece, part_index=0))
        yield StreamEndEvent(finish_reason="stop", usage=self._usage)


def predict(tokens: int, gate: threading.Event | None = None, seconds: float = 0.0) -> Any:
    import dspy

    program = dspy.Predict("question -> answer")
    program.lm = dspy.LM("none/none", engine=Engine(tokens, gate, seconds), cache=False)
    return program


# --- ours, and the routes one would write for the same module -----------------------------------------------

TOKENS_OF_A_CALL = 8
SECONDS_OF_A_SLOW_CALL = 0.02
"""Less than any hosted model takes."""


def ours() -> Any:
    """Our app, as `dspy-cli serve` makes it: with its log in a file."""
    from dspy_cli import ServerSettings, create_app

    gate = threading.Event()
    programs = {
        "Stream": predict(RATE * SECONDS, gate),
        "Call": predict(TOKENS_OF_A_CALL),
        "Slow": predict(TOKENS_OF_A_CALL, seconds=SECONDS_OF_A_SLOW_CALL),
    }
    settings = ServerSettings(concurrency=200, queue=0, heartbeat_seconds=1.0, shutdown_seconds=0.1)
    folder = tempfile.mkdtemp(prefix="dspy-cli-bench-")
    app = create_app(programs, events=f"sqlite:///{folder}/events.db", settings=settings)
    for path, tell in {"/hold": gate.clear, "/speak": gate.set}.items():
        app.add_api_route(path, tell)
    gc.freeze()  # as serve does
    return app


def written_by_hand() -> Any:
    """`POST` of the same module: as DSPy's documents do it, and on a worker thread."""
    import dspy
    from fastapi import FastAPI
    from pydantic import BaseModel, ConfigDict

    class Inputs(BaseModel):
        model_config = ConfigDict(extra="forbid")
        question: str

    app, program = FastAPI(), predict(TOKENS_OF_A_CALL)
    asyncified, slow = dspy.asyncify(program), predict(TOKENS_OF_A_CALL, seconds=SECONDS_OF_A_SLOW_CALL)

    @app.post("/asyncify")
    async def asyncify(inputs: Inputs) -> dict[str, Any]:
        return (await asyncified(**inputs.model_dump())).toDict()

    @app.post("/thread")
    def thread(inputs: Inputs) -> dict[str, Any]:
        return program(**inputs.model_dump()).toDict()

    @app.post("/slow")
    def slowly(inputs: Inputs) -> dict[str, Any]:
        return slow(**inputs.model_dump()).toDict()

    return app


APPS: Mapping[str, Callable[[], Any]] = {
    "ours": ours,
    "fastapi": fastapi_stream,
    "starlette": starlette_stream,
    "sse-starlette": sse_starlette,
    "bare": bare_shared,
    "bare-paced": bare_paced,
    "by-hand": written_by_hand,
}

# --- what an app runs on ------------------------------------------------------------------------------------


def uvicorn(make: Callable[[], Any], port: int, http: Any = "httptools") -> None:
    import uvicorn

    uvicorn.run(
        make(), port=port, loop="uvloop", http=http, log_level="warning", access_log=False, backlog=4096
    )


def granian(make: Callable[[], Any], port: int) -> None:
    from granian.constants import Interfaces, Loops
    from granian.server import Server

    server = Server(
        f"apps:{make.__name__}",
        port=port,
        factory=True,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        log_access=False,
        log_enabled=False,
        backlog=4096,
    )
    server.serve()


SERVERS: Mapping[str, Callable[..., None]] = {
    "uvicorn": uvicorn,
    "h11": partial(uvicorn, http="h11"),
    "granian": granian,
}

if __name__ == "__main__":
    app, port, server = sys.argv[1:]
    SERVERS[server](APPS[app], int(port))
