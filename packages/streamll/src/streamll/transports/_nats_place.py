"""Where a NATS server is, as a URL names it, and what its errors mean to the caller."""

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from math import inf
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
import nats.errors

from streamll.errors import BadUrl, Refused, StreamllError, Unreachable
from streamll.transports.base import without_password

_TIMEOUT = 10.0
_REFUSALS = ("authorization", "authentication", "permissions violation", "jetstream not enabled")


class Place(NamedTuple):
    """A server, as the URL names it."""

    shown: str
    host: str
    port: int
    user: str | None
    password: str | None
    tls: bool
    seconds: float

    def __repr__(self) -> str:
        return self.shown

    def trouble(self, what: object) -> Unreachable:
        return Unreachable(f"NATS at {self.shown}: {what}")

    def refusal(self, what: object) -> Refused:
        return Refused(f"NATS at {self.shown}: {what}")

    def complaint(self, said: str) -> Unreachable | Refused:
        if any(word in said.lower() for word in _REFUSALS):
            return self.refusal(f"{said}; look at the URL's credentials and at what they may do")
        return self.trouble(said)

    @contextmanager
    def errors(self) -> Generator[None]:
        """Turn what sockets and nats-py raise into what a backend may raise."""
        try:
            yield
        except StreamllError:
            raise
        except ssl.SSLCertVerificationError as error:
            raise self.refusal(f"its certificate is not trusted: {error.verify_message}") from error
        except TimeoutError as error:
            raise self.trouble(f"no answer within {self.seconds:g} s; is it running?") from error
        except (ValueError, msgspec.DecodeError) as error:
            raise self.refusal(f"it does not speak the protocol of NATS: {error}") from error
        except (OSError, nats.errors.Error) as error:
            raise self.complaint(str(error) or type(error).__name__) from error

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def credentials(self) -> dict[str, str]:
        """Return what CONNECT says of us; a lone user is a token."""
        if self.user is None:
            return {}
        if self.password is None:
            return {"auth_token": self.user}
        return {"user": self.user, "pass": self.password}


def place_of(url: str) -> Place:
    try:
        parts = urlsplit(url)
        port = parts.port or 4222
        seconds = float(parse_qs(parts.query).get("timeout", [_TIMEOUT])[-1])
        host = parts.hostname or "127.0.0.1"
        if not 0 < seconds < inf:
            raise ValueError(seconds)
    except ValueError as error:
        raise BadUrl(
            f"{without_password(url.partition('?')[0])!r:.80} names no NATS server: expected "
            f"nats://[user:password@ or token@]host[:4222][?timeout=seconds]"
        ) from error
    user, password = (value and unquote(value) for value in (parts.username, parts.password))
    return Place(without_password(url), host, port, user, password, parts.scheme == "tls", seconds)
