"""A Redis: where a URL leads, connections to it, and what its errors mean to the caller."""

import asyncio
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

import hiredis
import redis
import redis.asyncio
from redis.asyncio.connection import parse_url as parse_async_url
from redis.connection import parse_url  # pyright: ignore[reportUnknownVariableType]
from redis.exceptions import AskError, MovedError

from streamll.errors import BadUrl, Refused, StreamllError, Unreachable
from streamll.transports._redis_scripts import Command
from streamll.transports.base import without_password

_TIMEOUT = 10.0
_CONNECT_TIMEOUT = 5.0

_REFUSED: Mapping[str, str] = {
    "Authentication|NOAUTH|WRONGPASS|unauthenticated": "Check the user and the password in the URL.",
    "Authorization|NoPermission|NOPERM|ACL failure": "Let its ACL run streams and scripts on these keys.",
    "ReadOnly|READONLY": "This is a replica: give the URL of the primary.",
    "InvalidResponse": "What answers there is no Redis: check host, port and TLS.",
    "CERTIFICATE_VERIFY|WRONG_VERSION": "Check the server's certificate, or whether it speaks TLS at all.",
    "WRONGTYPE": "Something else has the name of this log: choose another target.",
    "": "Expected Redis 6.2 or later.",
}
"""What to do about errors in whose type or text this is found; the first that fits."""

_LOST = (redis.ConnectionError, redis.TimeoutError, OSError, AskError)
_PASSING = re.compile(
    "OutOfMemory|OOM|MISCONF|BUSY|LOADING|Down|DOWN|TRYAGAIN|TryAgain|NOREPL|UNBLOCKED|NOGROUP"
)

_TOLD = ("driver_info",) if hasattr(redis, "DriverInfo") else ("lib_name", "lib_version")
_ANONYMOUS: Mapping[str, None] = dict.fromkeys(_TOLD)
"""The client's name is not told: some other kind of server hangs up on it before we read what it said."""


class Server:
    """Where a URL leads, and what its errors mean."""

    def __init__(self, url: str) -> None:
        self.shown = without_password(url)
        self._url = url
        self._home: dict[str, Any] = {}
        try:
            self.timeout = self._options(parse_url)["socket_timeout"]
            self.connection()
            if not self.timeout > 0:
                raise ValueError("a timeout is more than 0")
        except (ValueError, TypeError) as error:
            raise BadUrl(f"{self.shown!r:.80} is no URL of a Redis: {_said(error)}.") from error

    def connection(self) -> redis.Connection:
        options = self._options(parse_url)
        kind = options.pop("connection_class", redis.Connection)
        return cast("type[redis.Connection]", kind)(**options)

    def async_connection(self) -> redis.asyncio.Connection:
        options = self._options(parse_async_url)
        kind = options.pop("connection_class", redis.asyncio.Connection)
        return kind(**options)

    def _options(self, parse: Any) -> dict[str, Any]:
        options = cast("dict[str, Any]", dict(parse(self._url)))
        timeout = options.pop("timeout", _TIMEOUT)
        waits = {"socket_timeout": timeout, "socket_connect_timeout": min(timeout, _CONNECT_TIMEOUT)}
        fixed = {"protocol": 2, "decode_responses": False, "health_check_interval": 0, **_ANONYMOUS}
        return waits | options | fixed | self._home

    def elsewhere(self, error: Exception, *, used: bool) -> bool:
        """Return whether another connection helps: to the node that has the log, or for one that was idle."""
        if isinstance(error, MovedError):  # a node that does not know its own name sends none
            self._home = {"port": error.port} | ({"host": error.host} if error.host else {})
        return used or isinstance(error, MovedError)

    @contextmanager
    def errors(self) -> Generator[None]:
        """Turn what redis-py and sockets raise into what a backend may raise."""
        try:
            yield
        except (redis.RedisError, OSError) as error:
            self._home = {}
            raise _meaning(error, self.shown) from error


def _meaning(error: Exception, place: str) -> StreamllError:
    """Return what an error of Redis or of its client says to the caller."""
    named = f"{type(error).__name__}: {error}"
    remedy = next(remedy for pattern, remedy in _REFUSED.items() if re.search(pattern, named))
    if remedy == _REFUSED[""] and (isinstance(error, _LOST) or _PASSING.search(named)):
        return Unreachable(f"Redis at {place} is away: {_said(error)}. Worth another try.")
    return Refused(f"Redis at {place} refuses: {_said(error)}. {remedy}")


def _said(error: Exception) -> str:
    """Return what an error says, without a full stop."""
    return str(error).rstrip(". ") or type(error).__name__


def pack(command: Command) -> bytes:
    return cast("bytes", hiredis.pack_command(cast("Any", command)))


class Wire:
    """A blocking connection: made when first used, and again after an error."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: redis.Connection | None = None

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def ask(self, command: Command) -> Any:
        """Send `command`, and return its reply."""
        return self._exchanged(partial(_reply, packed=pack(command)))

    def ask_all(self, *packed: bytes, number: int) -> list[Any]:
        """Send `number` commands together, and return their replies; errors of commands are among them."""
        return self._exchanged(partial(_replies, packed=b"".join(packed), number=number))

    def _exchanged[T](self, exchange: Callable[[redis.Connection], T]) -> T:
        with self._server.errors():
            for again in (True, True, False):
                used = self.is_open
                connection = self._connection = self._connection or self._server.connection()
                try:
                    return exchange(connection)
                except (MovedError, redis.ConnectionError) as error:
                    self.close()
                    if not self._server.elsewhere(error, used=used) or not again:
                        raise
                except BaseException:  # its answer may still come, and be taken for the next one's
                    self.close()
                    raise
        raise AssertionError


def _reply(connection: redis.Connection, *, packed: bytes) -> Any:
    connection.send_packed_command([packed], check_health=False)
    return cast("Any", connection.read_response())


def _replies(connection: redis.Connection, *, packed: bytes, number: int) -> list[Any]:
    """By the connection's socket: redis-py's own way costs microseconds for each reply."""
    connection.connect_check_health(check_health=False)  # connects, unless it is
    sock, reader = cast("Any", connection)._sock, hiredis.Reader(protocolError=redis.InvalidResponse)
    replies: list[Any] = []
    try:
        sock.sendall(packed)
        while len(replies) < number:
            received = sock.recv(65_536)
            if not received:
                raise redis.ConnectionError("Redis closed the connection")
            reader.feed(received)
            while (reply := reader.gets()) is not False:
                replies.append(reply)
    except TimeoutError as error:
        raise redis.TimeoutError("Redis did not answer in time") from error
    except OSError as error:
        raise redis.ConnectionError(str(error)) from error
    return replies


class Link:
    """A connection of a reader: made when first used, and again after an error; one exchange at a time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: redis.asyncio.Connection | None = None
        self._lock = asyncio.Lock()

    async def ask(self, *commands: Command) -> list[Any]:
        """Send `commands` together, and return their replies."""
        packed = b"".join(map(pack, commands))
        async with self._lock:
            with self._server.errors():
                for again in (True, True, False):
                    used = self._connection is not None
                    try:
                        return await self._answers(packed, len(commands))
                    except (MovedError, redis.ConnectionError) as error:
                        if not self._server.elsewhere(error, used=used) or not again:
                            raise
        raise AssertionError

    async def _answers(self, packed: bytes, number: int) -> list[Any]:
        connection = self._connection = self._connection or self._server.async_connection()
        try:
            await connection.send_packed_command(packed, check_health=False)
            return [await connection.read_response() for _ in range(number)]
        except BaseException:  # also cancelled: the replies that are under way belong to nobody
            await self.close()
            raise

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(redis.RedisError):
                await connection.disconnect()
