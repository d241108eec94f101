"""A NATS server of a test's own, which it may stop, pause and kill."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest


class NatsServer:
    """A server on a port of its own; started again, it has the same port and store."""

    def __init__(self, directory: Path, *args: str) -> None:
        self.port = _free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._log = directory / f"nats-{self.port}.log"
        address = ("-a", "127.0.0.1", "-p", str(self.port), "-l", str(self._log))
        self._command = (_program(), *address, *args)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(self._command)
        until = monotonic() + 20
        while not _answers(self.port):
            assert self._process.poll() is None, self._log.read_text()
            assert monotonic() < until, self._log.read_text()
            sleep(0.02)

    def stop(self, *, kill: bool = False) -> None:
        """Stop it, at once with `kill`; a paused one too."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
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
def nats_server(tmp_path: Path, *args: str, jetstream: bool = True) -> Generator[NatsServer]:
    """Run a server with its store under `tmp_path`; `args` are more of `nats-server`'s own."""
    store = ("-js", "-sd", str(tmp_path / "store")) if jetstream else ()
    own = NatsServer(tmp_path, *store, *args)
    own.start()
    try:
        yield own
    finally:
        own.stop(kill=True)


def _program() -> str:
    found = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        missing = "no nats-server here; install one"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return found


def _free_port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as one:
            return one.recv(4) == b"INFO"
    except OSError:
        return False
