"""`dspy-cli serve`: a project on a socket, in one process or several, with what people are told about it."""

import asyncio
import gc
import math
import os
import signal
import socket
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI
from streamll.errors import BadUrl, Refused, StreamllError

from dspy_cli.errors import BadSetting, PortTaken
from dspy_cli.project.config import ServerSettings, event_log
from dspy_cli.project.discover import Discovery, Failure, discover
from dspy_cli.server.app import create_app
from dspy_cli.server.auth import FILE as KEYS
from dspy_cli.server.auth import Auth
from dspy_cli.server.guard import check_binding, check_names

_STATE = ".dspy-cli"
_LAST_SECONDS = 2
_BACKLOG = 2048
_LOG_SECONDS = 3.0

type Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for on the command line; None leaves it to `dspy.config.yaml`."""

    target: str = "."
    host: str | None = None
    port: int | None = None
    events: str | None = None
    auth: bool = False
    insecure: bool = False
    reload: bool = False
    workers: int = 1
    mcp: bool = False
    debug: bool = False
    allowed_hosts: Sequence[str] = field(default=())

    def over(self, settings: ServerSettings, root: Path) -> ServerSettings:
        """Return `settings` with what was asked for in their place."""
        said = {"host": self.host, "port": self.port, "events": self.events}
        return replace(
            settings,
            **{name: value for name, value in said.items() if value is not None},
            allowed_hosts=(*settings.allowed_hosts, *self.allowed_hosts),
            debug=settings.debug or self.debug or self.reload,
            **({} if self.events else {"events": _placed(settings.events, root)}),
        )


def _placed(events: str, root: Path) -> str:
    """Return the URL of an event log; a file of the project's state is found from the project."""
    relative = f"sqlite:///{_STATE}/"
    return (
        events.replace("sqlite:///", f"sqlite:///{root.resolve()}/", 1)
        if events.startswith(relative)
        else events
    )


def serve(options: Options, tell: Tell) -> None:
    """Serve until told to stop.

    Args:
        options: What was asked for.
        tell: Prints a line to the person who started it.

    Raises:
        ExposedBinding: The host is reachable from elsewhere, and nobody would be asked for a key.
        PortTaken: Something else listens there.
        BadSetting: Runs cannot be kept where they are to be; a host or an origin is none.
        DspyCliError: Whatever is wrong with the project or its configuration.
    """
    found = discover(options.target)
    settings = options.over(found.config.server, found.root)
    check_binding(settings.host, auth=options.auth, insecure=options.insecure)
    check_names(settings)
    (found.root / _STATE).mkdir(mode=0o700, exist_ok=True)
    _check_log(settings, workers=options.workers, tell=tell)
    with _bound(settings) as listening:
        settings = replace(settings, port=listening.getsockname()[1])
        if options.auth:
            _tell_first_key(_auth(found.root), tell)
        announce = partial(_announce, found, settings, tell)
        if options.reload or options.workers > 1:
            _serve_in_children(options, found, settings, listening, announce)
        else:
            _serve_here(_app(found, settings, options), settings, listening, announce)


def _check_log(settings: ServerSettings, *, workers: int, tell: Tell) -> None:
    """Refuse a log that will never open; one that is only away may come back, which is waited for."""
    log = event_log(settings)
    if workers > 1 and urlsplit(settings.events).scheme == "memory":
        raise BadSetting(
            f"--workers {workers} would keep runs in the memory of each, where no other sees or cancels them."
            " Name a place they share, such as --events sqlite:///events.db, or serve with one worker."
        )
    try:
        asyncio.run(asyncio.wait_for(log.executions(1), _LOG_SECONDS))
    except (BadUrl, Refused) as error:
        raise BadSetting(f"`server.events`, or --events: {error}") from error
    except (StreamllError, TimeoutError) as error:
        why = str(error) or f"no answer within {_LOG_SECONDS:g} s."
        tell(f"The event log is away, serving without it until it is back: {why}")


def _bound(settings: ServerSettings) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise PortTaken(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror or error}. "
            f"Stop what listens there, or choose another: --port {settings.port + 1}."
        ) from error
    except (TypeError, ValueError) as error:
        raise BadSetting(
            f"`server.host`, or --host: {settings.host[:80]!r} is nothing to listen on: {error}."
            " Expected an address or a name of this machine, such as 127.0.0.1."
        ) from error


def _auth(root: Path) -> Auth:
    return Auth(root / KEYS)


def _app(found: Discovery, settings: ServerSettings, options: Options) -> FastAPI:
    return create_app(
        found.programs,
        events=settings.events,
        settings=settings,
        auth=_auth(found.root) if options.auth else None,
        mcp="stateless" if options.mcp and options.workers > 1 else options.mcp,
        failures=[_near(failure, found.root) for failure in found.failures],
    )


# --- running ------------------------------------------------------------------------------------------------


def _serve_here(
    served: FastAPI, settings: ServerSettings, listening: socket.socket, announce: Callable[[], None]
) -> None:
    config = _configured(_draining(served, announce), settings)
    with suppress(KeyboardInterrupt):  # it was stopped in good order, and says so once more
        uvicorn.Server(config).run([listening])


def _serve_in_children(
    options: Options,
    found: Discovery,
    settings: ServerSettings,
    listening: socket.socket,
    announce: Callable[[], None],
) -> None:
    from uvicorn.supervisors import ChangeReload, Multiprocess

    config = _configured(partial(_worker, options, settings), settings, factory=True)
    config.workers = options.workers
    announce()
    if options.reload:
        config.reload_dirs = [found.root]
        config.reload_includes = ["*.py", "*.yaml", ".env"]
        ChangeReload(config, target=uvicorn.Server(config).run, sockets=[listening]).run()
        return
    with tempfile.TemporaryDirectory(prefix="dspy-cli-metrics-") as metrics:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
        Multiprocess(config, sockets=[listening]).run()


def _worker(options: Options, settings: ServerSettings) -> FastAPI:
    """Return the app of a worker process, which finds the project for itself."""
    return _draining(_app(discover(options.target), settings, options))


def _configured(
    served: "FastAPI | Callable[[], FastAPI]", settings: ServerSettings, *, factory: bool = False
) -> uvicorn.Config:
    return uvicorn.Config(
        served,
        host=settings.host,
        port=settings.port,
        factory=factory,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_seconds) + _LAST_SECONDS,
        ws="none",
    )


def _draining(served: FastAPI, ready: Callable[[], None] | None = None) -> FastAPI:
    """Return `served`, whose runs are let come to their end as soon as the process is told to stop: uvicorn
    itself first waits for the connections that watch them."""
    inner = served.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with inner(app):
            gc.freeze()  # a full collection walks all that DSPy loads, and stops every stream for 50 ms
            with _on_stop(served.state.runs.begin_to_drain):
                if ready is not None:
                    ready()
                yield

    served.router.lifespan_context = lifespan
    return served


@contextmanager
def _on_stop(begin: Callable[[], None]) -> Generator[None]:
    """Call `begin` on the event loop at a signal to stop, besides what the server does then."""
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(begin)
        if callable(handler := before[signal.Signals(number)]):
            handler(number, frame)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _near(failure: Failure, root: Path) -> Failure:
    """Return `failure` with its path as seen from the project."""
    inside = failure.path.is_relative_to(root)
    return failure._replace(path=failure.path.relative_to(root)) if inside else failure


# --- telling ------------------------------------------------------------------------------------------------


def _tell_first_key(auth: Auth, tell: Tell) -> None:
    """Make a key where there is none, and show it this once."""
    if not auth.known_keys() and "DSPY_CLI_API_KEY" not in os.environ:
        _, secret = auth.create_key("first")
        tell(f"API key (shown once; more with `dspy-cli keys create`): {secret}")
    auth.close()


def _announce(found: Discovery, settings: ServerSettings, tell: Tell) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    for program in found.programs:
        model = f"  on {program.model}" if program.model else ""
        tell(f"  POST /{program.name}  {program.kind}{model}")
    for failure in found.failures:
        tell(f"  not served: {_near(failure, found.root).path}: {failure.error}")
    tell(f"Serving {len(found.programs)} program(s) at http://{host}:{settings.port}  (Ctrl+C stops)")
