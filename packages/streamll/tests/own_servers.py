"""Servers that a test may stop, freeze and configure: each has its own port and directory."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import pytest


def free_port() -> int:
    """Return a port that nobody has, below 55,000: nodes of a Redis cluster talk at 10,000 above theirs."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 55_000:
            return port


class OwnServer:
    """A process that listens on one port, before and after it is started again."""

    def __init__(self, url: str, port: int, command: list[str], directory: Path) -> None:
        self.url = url
        self.port = port
        self._command = command
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=self._directory, stdout=log, stderr=log)
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        self.stop()
        raise TimeoutError(f"{self._command[0]} does not listen; see {self._directory}/server.log")

    def stop(self) -> None:
        """Kill it: what it had acknowledged must be on disk."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


@contextmanager
def running(server: OwnServer) -> Generator[OwnServer]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def program(name: str) -> str:
    """Return the path of a server's program, or skip the test when it is not installed."""
    path = which(name)
    if path is None:
        missing = f"{name} is not installed"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return path


@contextmanager
def redis_server(tmp_path: Path, *args: str) -> Generator[OwnServer]:
    """Run a Redis with `args`, which loses nothing it acknowledged over a restart."""
    port = free_port()
    directory = tmp_path / f"redis-{port}"
    directory.mkdir()
    options = ["--port", str(port), "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
    command = [program("redis-server"), "--bind", "127.0.0.1", *options, *args]
    with running(OwnServer(f"redis://127.0.0.1:{port}", port, command, directory)) as server:
        yield server
