"""The load: servers in processes of their own, and viewers that only keep what they get until it is over."""

import asyncio
import re
import socket
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple, cast

import psutil

_EVENT = re.compile(rb'id: (\d+)\nevent: (\w+)\ndata: (?:[^\n]*?"timestamp":"([^"]+)")?')
_END = b"0\r\n\r\n"
_READY_SECONDS = 60.0


# --- servers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """A server under load, with what it uses, all of its processes together."""

    name: str
    port: int
    process: psutil.Process

    def cpu(self) -> float:
        """Return the seconds of processor it has used."""
        return sum(sum(each.cpu_times()[:2]) for each in self._processes())

    def kib(self) -> float:
        """Return the resident memory."""
        return sum(each.memory_info().rss for each in self._processes()) / 1024

    def _processes(self) -> Sequence[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextmanager
def serving(app: str, server: str = "uvicorn") -> Generator[Server]:
    """Serve an app of `apps` inside the `with`."""
    port = free_port()
    script = Path(__file__).with_name("apps.py")
    started = subprocess.Popen([sys.executable, script, app, str(port), server])
    process = psutil.Process(started.pid)
    try:
        listening(port, started).close()
        yield Server(app if server == "uvicorn" else f"{app} on {server}", port, process)
    finally:
        for each in [*process.children(recursive=True), process]:
            each.kill()
        started.wait()


def listening(port: int, process: subprocess.Popen[bytes]) -> socket.socket:
    """Return a connection to a server, as soon as it takes some."""
    until = time.monotonic() + _READY_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            time.sleep(0.002)
    raise RuntimeError(f"The server on port {port} did not begin to listen.")


# --- viewers ------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """An event as it arrived at a viewer."""

    sequence: int
    name: bytes
    sent: float
    got: float


class Viewer(asyncio.Protocol):
    """One connection that reads a stream; `stalled` ones read nothing after its beginning."""

    def __init__(self, request: bytes, *, stalled: bool = False) -> None:
        self._request, self._stalled = request, stalled
        self._got: list[tuple[float, bytes]] = []
        self._open = asyncio.Event()
        self._over = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._got.append((time.time(), data))
        if len(self._got) == 1:
            self._open.set()
            if self._stalled:
                self.transport.pause_reading()
        elif data.endswith(_END):
            self._over.set()

    async def opened(self) -> None:
        """Wait for the first bytes of the answer."""
        await self._open.wait()

    async def ended(self) -> None:
        """Wait for the last ones."""
        await self._over.wait()

    def events(self) -> Sequence[Seen]:
        """Return what arrived, in order. Chunks of the transfer coding never cut a frame, packets may."""
        whole = b"".join([data for _, data in self._got])
        if not whole.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"A viewer was answered {whole[:200]!r}.")
        ends = list(accumulate(len(data) for _, data in self._got))
        return [
            Seen(
                int(found[1]),
                found[2],
                datetime.fromisoformat(found[3].decode()).timestamp() if found[3] else 0.0,
                self._got[bisect_left(ends, found.end())][0],
            )
            for found in _EVENT.finditer(whole)
        ]


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def connected(server: Server, paths: Iterable[str], *, stalled: bool = False) -> list[Viewer]:
    """Return a viewer for each path, all of them answered."""
    loop = asyncio.get_running_loop()
    viewers: list[Viewer] = []
    for path in paths:
        made = await loop.create_connection(
            lambda: Viewer(get(path), stalled=stalled),  # noqa: B023 - called at once
            sock=_connected_socket(server.port, small=stalled),
        )
        viewers.append(made[1])
    async with asyncio.timeout(60):
        await asyncio.gather(*[viewer.opened() for viewer in viewers])
    return viewers


def _connected_socket(port: int, *, small: bool) -> socket.socket:
    """Return a socket that, if `small`, is soon full."""
    made = socket.socket()
    if small:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", port))
    made.setblocking(False)
    return made


# --- calls --------------------------------------------------------------------------------------------------


class Caller:
    """A connection that is kept: one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, server: Server) -> "Caller":
        return cls(*await asyncio.open_connection("127.0.0.1", server.port))

    async def call(self, request: bytes) -> bytes:
        """Return the body of the answer, which has to be a success."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        body = await self._reader.readexactly(int(length[1])) if length else b""
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"{request[:60]!r} was answered {head + body!r:.300}.")
        return body

    def close(self) -> None:
        self._writer.close()


# --- numbers ------------------------------------------------------------------------------------------------


class Delay(NamedTuple):
    """Milliseconds from an event's time to its arrival."""

    p50: float
    p99: float


def delay(events: Iterable[Seen]) -> Delay:
    cuts = quantiles([(event.got - event.sent) * 1000 for event in events], n=100)
    return Delay(cuts[49], cuts[98])
