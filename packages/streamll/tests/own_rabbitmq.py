"""A RabbitMQ of the test's own, which it may stop, kill and freeze."""

import os
import signal
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

import pytest
from own_servers import free_port

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class OwnRabbitMQ:
    """A server with its own data, on a port it keeps. Starts in 4 to 6 s, again in 3 to 4 s."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}"
        self._home = home
        self._distribution = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid  # the script replaces itself by the Erlang machine

    def start(self) -> None:
        """Start it where it was stopped, and return when it takes connections.

        For some 0.3 s more what it kept may still be refused: "home node is down or inaccessible".
        """
        for name in ("mnesia", "log", "user"):
            (self._home / name).mkdir(parents=True, exist_ok=True)
        (self._home / "plugins").write_text("[].\n")
        with (self._home / "output").open("ab") as output:
            self._process = subprocess.Popen(
                SERVER, env=os.environ | self._environment(), stdout=output, stderr=output
            )
        self._wait()

    def stop(self) -> None:
        """End it in order; takes about a second, and loses nothing."""
        if self._process is not None:
            self._process.terminate()
            self.resume()
            self._process.wait(60)
            self._process = None

    def kill(self) -> None:
        """End it as a crash would.

        What was declared in the last second or so may be unusable afterwards: "home node is down".
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Freeze it: connections stay, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def control(self, *command: str) -> None:
        """Run `rabbitmqctl`; takes about a second."""
        name = f"test{self.port}@localhost"
        subprocess.run(
            [SERVER.with_name("rabbitmqctl"), "-n", name, *command],
            env=os.environ | self._environment(),
            check=True,
            capture_output=True,
        )

    def _environment(self) -> dict[str, str]:
        return {
            "HOME": str(self._home / "user"),  # the cookie is made there
            "RUNNING_UNDER_SYSTEMD": "1",  # or else the script stays as the parent of the machine
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": str(self._home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._home / "log"),
            "RABBITMQ_PID_FILE": str(self._home / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._home / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self._home / "none"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }

    def _wait(self, seconds: float = 60) -> None:
        assert self._process is not None
        deadline = monotonic() + seconds
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                if probe.recv(1):
                    return
            if monotonic() > deadline or self._process.poll() is not None:
                pytest.fail(f"RabbitMQ did not start: {(self._home / 'output').read_text()[-2000:]}")
            sleep(0.05)


@contextmanager
def rabbitmq_server(tmp_path: Path) -> Generator[OwnRabbitMQ]:
    """Run a RabbitMQ under `tmp_path`; skips the test where none is installed."""
    if not SERVER.exists():
        missing = f"no {SERVER}"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    server = OwnRabbitMQ(tmp_path / "rabbitmq")
    try:
        server.start()
        yield server
    finally:
        server.kill()
