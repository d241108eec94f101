"""Servers that a test may stop, freeze and configure: each has its own port and directory."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Sequence
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


def program(name: str) -> str:
    """Return the path of a server's program, or skip the test when it is not installed."""
    path = which(name) or which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        missing = f"{name} is not installed"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return path


class OwnServer:
    """A process that listens on one port, before and after it is started again."""

    ends_by = signal.SIGKILL  # what it had acknowledged must be on disk

    def __init__(self, url: str, port: int, command: Sequence[str], directory: Path) -> None:
        self.url = url
        self.port = port
        self._command = command
        self._log = directory / f"server-{port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=self._log.parent, stdout=log, stderr=log)
        until = time.monotonic() + 20
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop(kill=True)
                pytest.fail(f"{self._command[0]} does not answer: {self._log.read_text()[-2000:]}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, *, kill: bool = False) -> None:
        """Stop it as its kind is stopped, or at once with `kill`; a paused one too."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if kill else self.ends_by)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(20)
            self._process = None

    def pause(self) -> None:
        """Keep the port open and say nothing any more."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)  # until it has stopped

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


@contextmanager
def running[T: OwnServer](server: T) -> Generator[T]:
    server.start()
    try:
        yield server
    finally:
        server.stop(kill=True)


@contextmanager
def redis_server(tmp_path: Path, *args: str) -> Generator[OwnServer]:
    """Run a Redis with `args`, which loses nothing it acknowledged over a restart."""
    port = free_port()
    directory = tmp_path / f"redis-{port}"
    directory.mkdir()
    options = ("--port", str(port), "--save", "", "--appendonly", "yes", "--appendfsync", "always")
    command = (program("redis-server"), "--bind", "127.0.0.1", *options, *args)
    with running(OwnServer(f"redis://127.0.0.1:{port}", port, command, directory)) as server:
        yield server


class NatsServer(OwnServer):
    """One that loses nothing either when it is killed, but says goodbye when it is stopped."""

    ends_by = signal.SIGTERM

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as one:
                return one.recv(4) == b"INFO"
        except OSError:
            return False


@contextmanager
def nats_server(tmp_path: Path, *args: str, jetstream: bool = True) -> Generator[NatsServer]:
    """Run a NATS with its store under `tmp_path`; `args` are more of `nats-server`'s own."""
    port = free_port()
    store = ("-js", "-sd", str(tmp_path / "store")) if jetstream else ()
    command = (program("nats-server"), "-a", "127.0.0.1", "-p", str(port), *store, *args)
    with running(NatsServer(f"nats://127.0.0.1:{port}", port, command, tmp_path)) as server:
        yield server
