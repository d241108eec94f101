"""Where a log is in RabbitMQ: what its URL says, what it is made with, and what errors there mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pika import URLParameters
from pika import exceptions as amqp
from pika.adapters.utils import connection_workflow as workflow

from streamll.errors import BadUrl, Refused, StreamllError, Unreachable
from streamll.transports.base import Retention, without_password

MISSING, LOCKED, OTHERWISE = 404, 405, 406
TRIES = 5  # with a stream that others are just declaring

_UNFINISHED = frozenset({506, 541})  # what RabbitMQ says of it, from 3.10 on
_REFUSALS = frozenset({402, 403, LOCKED, OTHERWISE, 530})  # 530: no such virtual host
_NOT_FOR_US = (
    amqp.ProbableAuthenticationError,
    amqp.ProbableAccessDeniedError,
    amqp.AuthenticationError,
    amqp.IncompatibleProtocolError,
)
_LONGEST = 255 - len(".making")
_SEGMENT_BYTES = 50_000_000
_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """A target on a server, and what its stream is made with."""

    shown: str
    target: str
    seconds: float
    parameters: URLParameters = field(repr=False)
    arguments: Mapping[str, object]

    def error(self, reason: BaseException) -> StreamllError:
        """Return what `reason` means to a caller."""
        cause = _root(reason)
        said = f"{type(cause).__name__}: {cause}"
        refused = isinstance(cause, _NOT_FOR_US) or getattr(cause, "reply_code", 0) in _REFUSALS
        kind, advice = Unreachable, "Check that it runs and can be reached from here."
        if refused and "timed out" not in said:  # 406 also ends a consumer that is too slow to acknowledge
            kind = Refused
            advice = "Check user, password, virtual host, permissions, and that AMQP 0-9-1 is spoken there."
        error = kind(f"RabbitMQ at {self.shown!r}, {self.target!r:.80}: {said:.300}. {advice}")
        error.__cause__ = cause
        return error

    def silence(self, why: str = "") -> Unreachable:
        """Return the error for a server that said nothing for too long."""
        return Unreachable(
            f"RabbitMQ at {self.shown!r} did not answer within {self.seconds:g} s{why}. "
            "Check that it runs and is no other kind of server; ?timeout= in the URL waits longer."
        )

    def nack(self) -> Unreachable:
        """Return the error for a server that answered that it did not store."""
        return Unreachable(f"RabbitMQ at {self.shown!r} could not store what it was sent: see its log.")


def place(url: str, target: str, retention: Retention) -> Place:
    """Return the place that a URL and a name say.

    Raises:
        BadUrl: They say none.
    """
    shown, parts = without_password(url), urlsplit(url)
    query = {"heartbeat": "60"} | dict(parse_qsl(parts.query))
    try:
        seconds = float(query.pop("timeout", _SECONDS))
        parameters = URLParameters(urlunsplit(parts._replace(query=urlencode(query))))
        if not 0 < seconds < inf:
            raise ValueError(seconds)
    except (ValueError, TypeError) as error:
        raise BadUrl(
            f"{shown!r:.80} is no place in RabbitMQ; expected "
            "amqp://user:password@host:port/virtual-host?timeout=10&heartbeat=60"
        ) from error
    parameters.socket_timeout = parameters.stack_timeout = None  # we look at the clock ourselves
    parameters.client_properties = {"connection_name": f"streamll {target}"}
    return Place(shown, named(target), seconds, parameters, _stream_arguments(retention))


def named(name: str) -> str:
    """Return `name` if a queue can have it."""
    if len(name.encode()) > _LONGEST:
        raise BadUrl(f"{name!r:.80} is too long for RabbitMQ; expected up to {_LONGEST} bytes of UTF-8.")
    return name


def _stream_arguments(retention: Retention) -> Mapping[str, object]:
    limit = retention.bytes or 4 * _SEGMENT_BYTES
    segment = max(1, min(_SEGMENT_BYTES, limit // 4))
    arguments: dict[str, object] = {"x-queue-type": "stream", "x-stream-max-segment-size-bytes": segment}
    if retention.bytes is not None:
        arguments["x-max-length-bytes"] = max(1, retention.bytes)
    if retention.age is not None:
        arguments["x-max-age"] = f"{max(1, round(retention.age.total_seconds()))}s"
    return arguments


def _root(error: BaseException) -> BaseException:
    """Return what went wrong below what pika wrapped around it."""
    match error:
        case workflow.AMQPConnectionWorkflowFailed():
            return _root(cast("Sequence[BaseException]", error.exceptions)[-1])
        case workflow.AMQPConnectorPhaseErrorBase():
            return _root(cast("BaseException", error.exception))
        case amqp.AMQPConnectionError(args=(BaseException() as inner,)):
            return _root(inner)
        case _:
            return error


def code(error: BaseException) -> int:
    """Return the reply code that the broker gave for an error of ours; 0 is none."""
    return getattr(error.__cause__, "reply_code", 0)


def is_unfinished(error: BaseException) -> bool:
    """Tell whether it failed because others were just declaring the stream: trying again helps."""
    return code(error) in _UNFINISHED
