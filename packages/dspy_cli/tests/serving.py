"""What tests of the server share: an app on a real socket, a served project, frames, a proxy that cuts."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import dspy
import httpx
import msgspec
import uvicorn
from dspy_cli.project.config import ServerSettings
from dspy_cli.project.programs import Program, program
from dspy_cli.server.app import create_app
from dspy_cli.server.runs import Runs
from fastapi import FastAPI
from own_servers import free_port
from scripted import chat, lm
from starlette.types import Receive, Scope, Send

SECONDS = 30.0
"""No wait of a test is longer."""

# --- programs -----------------------------------------------------------------------------------------------

ANSWER = "Six times seven is forty-two."


class QA(dspy.Module):
    """Answers questions."""

    def __init__(self) -> None:
        super().__init__()
        self.think = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.think(question=question)


class AsyncQA(dspy.Module):
    """Answers questions on the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.think = dspy.ChainOfThought("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        return await self.think.acall(question=question)


def qa(*replies: Any, module: type[dspy.Module] = QA, name: str | None = None, **script: Any) -> Program:
    """Return a program on a scripted model, which answers `ANSWER` unless it is told otherwise."""
    said = replies or (chat(reasoning="Multiply.", answer=ANSWER),)
    return program(module, name=name, lm=lm(*said, **script))


def endless(**script: Any) -> Program:
    """Return a program whose model talks for a minute, if nobody stops it."""
    slow: dict[str, Any] = {"size": 4, "seconds_a_chunk": 0.02}
    return qa(chat(reasoning="Hm.", answer="word " * 2400), **(slow | script))


def chunks(served: Program) -> int:
    """Return how many chunks a program's scripted model has sent."""
    return getattr(served.lm, "engine").chunks  # noqa: B009 - `engine` is the test's own


# --- frames -------------------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """One server-sent event as a client sees it."""

    id: int
    event: str
    data: Any
    at: float

    @property
    def key(self) -> tuple[int, str, str]:
        """What two deliveries of it have in common: all but when."""
        return self.id, self.event, msgspec.json.encode(self.data, order="sorted").decode()


def parse(body: bytes) -> list[Frame]:
    """Return the whole events in a stream's bytes; comments and `retry` are nobody's business here."""
    return [_frame(one) for one in body.split(b"\n\n")[:-1] if one.startswith(b"id: ")]


def _frame(text: bytes) -> Frame:
    fields = dict(line.split(b": ", 1) for line in text.split(b"\n"))
    data = msgspec.json.decode(fields[b"data"])
    return Frame(int(fields[b"id"]), fields[b"event"].decode(), data, monotonic())


def keys(frames: Sequence[Frame]) -> list[tuple[int, str, str]]:
    return [frame.key for frame in frames]


def text_of(frames: Sequence[Frame], field: str) -> str:
    """Return the joined tokens of a field."""
    tokens = (frame.data["data"] for frame in frames if frame.event == "token")
    return "".join(token["token"] for token in tokens if token["field"] == field)


async def read(response: httpx.Response) -> AsyncGenerator[Frame]:
    """Yield the events of a response as they arrive."""
    rest = b""
    async for chunk in response.aiter_raw():
        *whole, rest = (rest + chunk).split(b"\n\n")
        for one in whole:
            if one.startswith(b"id: "):
                yield _frame(one)


# --- an app on a socket -------------------------------------------------------------------------------------


class Served(NamedTuple):
    """An app that is being served, and ways to talk to it."""

    url: str
    app: FastAPI
    loop: asyncio.AbstractEventLoop

    async def call[T](self, function: Callable[[], T]) -> T:
        """Call something on the server's loop."""

        async def called() -> T:
            return function()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(called(), self.loop))

    @property
    def runs(self) -> Runs:
        return self.app.state.runs

    def client(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=SECONDS, **options)


@asynccontextmanager
async def serve(app: FastAPI) -> AsyncGenerator[Served]:
    """Serve `app` on a free port, in a thread with a loop of its own, until the end of the `with`."""
    loops: list[asyncio.AbstractEventLoop] = []
    started = threading.Event()

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        loops.append(asyncio.get_running_loop())
        started.set()
        await app(scope, receive, send)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(asgi, log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), name="uvicorn")
        thread.start()
        try:
            assert await asyncio.to_thread(started.wait, SECONDS), "the server does not start"
            yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", app, loops[0])
        finally:
            server.should_exit = True
            await asyncio.to_thread(thread.join, SECONDS)
            assert not thread.is_alive(), "the server does not stop"


@asynccontextmanager
async def serving(*programs: Program, events: str = "memory:", **settings: Any) -> AsyncGenerator[Served]:
    """Serve programs until the end of the `with`."""
    quick: dict[str, Any] = {"shutdown_seconds": 0.2}
    made = create_app(programs, events=events, settings=ServerSettings(**(quick | settings)))
    async with serve(made) as served:
        yield served


# --- asking -------------------------------------------------------------------------------------------------


async def stream(
    client: httpx.AsyncClient, name: str = "QA", *, question: str = "6 * 7?", **headers: str
) -> list[Frame]:
    """Run a program and return all frames of it."""
    async with watching(client, "POST", f"/{name}/stream", question=question, **headers) as frames:
        return [frame async for frame in frames]


@asynccontextmanager
async def watching(
    client: httpx.AsyncClient, method: str, path: str, *, question: str | None = None, **headers: str
) -> AsyncGenerator[AsyncGenerator[Frame]]:
    """Yield the frames of a stream; the connection ends with the `with`."""
    body = {} if question is None else {"json": {"question": question}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.stream(method, path, headers=named, **body) as response:
        assert response.status_code == 200, await response.aread()
        async with aclosing(read(response)) as frames:
            yield frames


async def resumed(client: httpx.AsyncClient, run_id: str, after: int) -> list[Frame]:
    """Return all frames of a run after a sequence, as an EventSource would ask for them; none on 204."""
    response = await client.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": str(after)})
    assert response.status_code in (200, 204), response.text
    return parse(response.content)


async def begun(
    client: httpx.AsyncClient, name: str = "QA", *, question: str = "6 * 7?", **headers: str
) -> str:
    """Start a run, do not wait for it, and return its id."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await client.post(
        f"/{name}", json={"question": question}, headers=named | {"Prefer": "respond-async"}
    )
    assert response.status_code == 202, response.text
    return response.json()["id"]


async def until[T](ask: Callable[[], Any], wanted: Callable[[Any], bool], *, seconds: float = SECONDS) -> Any:
    """Return what `ask` answers as soon as it is what is wanted."""
    said: Any = None
    try:
        async with asyncio.timeout(seconds):
            while not wanted(said := await ask()):  # noqa: ASYNC110 - what is awaited has no event
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"in {seconds} s it did not come to what was wanted: {said!r:.500}") from None
    return said


async def ended(client: httpx.AsyncClient, run_id: str, *, seconds: float = SECONDS) -> Any:
    """Wait until a run has ended, and return it."""

    async def ask() -> Any:
        return (await client.get(f"/runs/{run_id}")).json()

    # The status of a problem document is a number.
    return await until(ask, lambda run: run["status"] in _ENDS, seconds=seconds)


_ENDS = ("ok", "error", "cancelled", "timeout", "interrupted", "orphaned")


# --- a project served by the command ------------------------------------------------------------------------

PROJECT = '''
"""Programs for tests: the model is scripted, and what it does is in the inputs."""

import time

import dspy
import streamll
from scripted import chat, lm


class Talk(dspy.Module):
    """Says so many words, one chunk each `seconds`."""

    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str = "", words: int = 10, seconds: float = 0.0) -> dspy.Prediction:
        said = chat(answer=" ".join(f"w{number}" for number in range(words)))
        with dspy.context(lm=lm(said, size=4, seconds_a_chunk=seconds)):
            return self.predict(question=question)


class Stuck(dspy.Module):
    """Sleeps, and does not listen."""

    def forward(self, seconds: float = 600.0) -> dspy.Prediction:
        streamll.emit("asleep")
        time.sleep(seconds)
        return dspy.Prediction(answer="awake")
'''


def project(directory: Path, *, source: str = PROJECT, **server: Any) -> Path:
    """Make a project in `directory`, and return where it is."""
    modules = directory / "src" / "demo" / "modules"
    modules.mkdir(parents=True)
    for package in (modules, modules.parent):
        (package / "__init__.py").touch()
    (modules / "talk.py").write_text(source)
    (directory / "pyproject.toml").write_text('[project]\nname = "demo"\nversion = "0"\n')
    config = {"app_id": "demo", "server": server}
    (directory / "dspy.config.yaml").write_bytes(msgspec.json.encode(config))
    return directory


class Process:
    """`dspy-cli serve`, as a user starts it."""

    def __init__(self, *arguments: str | Path, cwd: Path, port: int) -> None:
        command = (sys.executable, "-m", "dspy_cli", "serve", *map(str, arguments), "--port", str(port))
        tests = Path(sys.modules["scripted"].__file__ or "").parent
        self.url = f"http://127.0.0.1:{port}"
        self.said: list[str] = []
        self._popen = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(tests), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # its workers end with it
        )
        self._reader = threading.Thread(target=self._read, name="reader")
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        with self._popen.stdout as lines:
            self.said.extend(line.rstrip() for line in iter(lines.readline, ""))

    @property
    def output(self) -> str:
        return "\n".join(self.said)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=SECONDS)

    async def ready(self) -> "Process":
        """Wait until it answers."""

        async def answers() -> bool:
            assert self._popen.poll() is None, self.output
            try:
                return (await client.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        async with self.client() as client:
            await until(answers, bool, seconds=60)
        return self

    def signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    async def exited(self, *, seconds: float = SECONDS) -> int:
        """Wait for its end, and return the exit status."""
        status = await asyncio.to_thread(self._popen.wait, seconds)
        await asyncio.to_thread(self._reader.join, SECONDS)
        return status

    def end(self) -> None:
        """Leave nothing of it."""
        if self._popen.poll() is None:
            os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait(SECONDS)
        self._reader.join(SECONDS)


@contextmanager
def command(*arguments: str | Path, cwd: Path, port: int | None = None) -> Generator[Process]:
    """Run `dspy-cli serve` until the end of the `with`."""
    process = Process(*arguments, cwd=cwd, port=port or free_port())
    try:
        yield process
    finally:
        process.end()


# --- the network --------------------------------------------------------------------------------------------


class Proxy:
    """A TCP proxy before a server, which breaks off each stream where it is told to.

    Args:
        upstream: URL of the server.
        events: Whole events that get through on each connection; then half of the next one, and a reset.
    """

    def __init__(self, upstream: str, events: int) -> None:
        self._port = int(upstream.rpartition(":")[2])
        self._events = events
        self.connections = 0
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["Proxy"]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        async with server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        up, down = await asyncio.open_connection("127.0.0.1", self._port)
        asking = asyncio.create_task(_pipe(reader, down))
        try:
            await self._answer(up, writer)
        finally:
            asking.cancel()
            down.close()

    async def _answer(self, up: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole = b""
        while chunk := await up.read(65536):
            # So that no test waits for a second at each of its cuts; as many bytes as before.
            chunk = chunk.replace(b"retry: 1000\n", b"retry: 0001\n")
            sent, whole = len(whole), whole + chunk
            starts = [found.start() for found in re.finditer(b"id: [0-9]+\nevent: ", whole)]
            if len(starts) > self._events:
                writer.write(whole[sent : max(sent, starts[self._events] + 40)])
                await writer.drain()
                writer.transport.abort()
                return
            writer.write(chunk)
            await writer.drain()
        writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
