"""The backends that keep events, each a module that writes and reads one; a URL says which."""

from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from streamll.errors import BadUrl, MissingExtra
from streamll.transports.base import DEFAULT_TARGET, Backend, Retention, without_password

__all__ = ["Retention", "open_backend"]


class _Home(NamedTuple):
    module: str
    client: str
    extra: str | None


_SQLITE = _Home("sqlite", "sqlite3", None)
_REDIS = _Home("redis", "redis", "redis")
_RABBITMQ = _Home("rabbitmq", "pika", "rabbitmq")
_NATS = _Home("nats", "nats", "nats")

_HOMES: Mapping[str, _Home] = {
    "memory": _Home("memory", "sqlite3", None),
    "sqlite": _SQLITE,
    "redis": _REDIS,
    "rediss": _REDIS,
    "amqp": _RABBITMQ,
    "amqps": _RABBITMQ,
    "nats": _NATS,
    "tls": _NATS,
}


def open_backend(url: str, target: str = DEFAULT_TARGET, *, retention: Retention | None = None) -> Backend:
    """Return the backend that `url` names; it connects when it is used.

    Args:
        url: `memory:`, `memory:name`, `sqlite:///events.db`, `redis://`, `rediss://`, `amqp://`, `amqps://`,
            `nats://` or `tls://` (NATS).
        target: Name of the log in it: Redis key, RabbitMQ exchange, JetStream stream, table.
        retention: What writers keep; 24 hours unless said.

    Raises:
        BadUrl: The scheme is none of these, or the target is no name.
        MissingExtra: The client is not installed.
    """
    home = _HOMES.get(urlsplit(url).scheme)
    if home is None:
        expected = ", ".join(f"{scheme}:" for scheme in _HOMES)
        raise BadUrl(
            f"{without_password(url)!r:.80} names no place for events; it begins with one of {expected}"
        )
    if not target or not target.isprintable() or len(target) > 200:
        raise BadUrl(f"{target!r:.80} is no name for a log; expected up to 200 printable characters.")
    try:
        module = import_module(f"streamll.transports.{home.module}")
    except ImportError as error:
        if (
            home.extra is None
            or error.name is None
            or error.name.split(".")[0] not in (home.client, "hiredis")
        ):
            raise
        raise MissingExtra(
            f"{urlsplit(url).scheme}: needs {home.client}, which is not installed: "
            f"uv add 'streamll[{home.extra}]'",
            name=error.name,
        ) from error
    return cast("Backend", module.Backend(url, target, retention or Retention()))
