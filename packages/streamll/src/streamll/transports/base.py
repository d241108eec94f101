"""What a transport is: one backend that keeps events, written by a sink's thread, read from anywhere.

A backend stores the wire form of events under a *target* (a Redis key, a RabbitMQ exchange, a JetStream
stream, a table). What it must do is here; `EventLog` and `EventConsumer` add what is the same for all:
decoding, order, duplicates, reconnecting.
"""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import random
from time import monotonic
from typing import ClassVar, Literal, NamedTuple, Protocol

import msgspec

from streamll.core.events import Event, JsonValue

DEFAULT_TARGET = "streamll_events"

type Start = Literal["latest", "earliest"] | str | datetime
"""Where a reader begins: what comes from now on, all there is, after a cursor, or at a moment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """How much a log keeps. An unfinished execution is never cut, unless it is silent for `abandoned`.

    Attributes:
        age: How long after its end an execution is kept; None for ever.
        events: How many events the log keeps, roughly; None is any number.
        bytes: How many bytes of events the log keeps, roughly; None is any number.
        abandoned: An execution without an end (its process was killed) counts as over after this silence.
    """

    age: timedelta | None = timedelta(hours=24)
    events: int | None = None
    bytes: int | None = None
    abandoned: timedelta = timedelta(days=7)


class Entry(NamedTuple):
    """An event on its way to a backend, with its wire form."""

    event: Event
    body: bytes


class Delivery(NamedTuple):
    """One stored event handed to a follower.

    Attributes:
        body: The wire form, or whatever somebody else put there.
        cursor: Where it is; following from it begins with the next one.
        attempts: How often it was handed out in its group, this time included; 1 without a group.
        handle: The backend's own, by which it is settled.
    """

    body: bytes
    cursor: str
    attempts: int = 1
    handle: object = None


class Group(NamedTuple):
    """Consumers that share the work: each event goes to one of them, until one has settled it.

    Attributes:
        name: Of the group; it keeps its place in the log when nobody is there.
        consumer: Of this member, unique among those alive.
        claim_after: What a member held this long without renewing it goes to another one.
    """

    name: str
    consumer: str
    claim_after: timedelta = timedelta(seconds=60)


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """What could not be handled, and why.

    Attributes:
        body: The wire form as it was delivered; bytes that are no UTF-8 are escaped.
        error: Type and message of the error.
        attempts: How often it was tried.
        cursor: Where it was in the log.
        group: In which group, if any.
        timestamp: When it was given up.
    """

    body: str
    error: str
    attempts: int
    cursor: str
    group: str | None
    timestamp: datetime


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One execution, as a list of executions shows it.

    Attributes:
        execution_id: For `EventLog.read`.
        status: "running" until its last event is stored.
        program: Class of the outermost program, or name of the outermost call.
        context: Correlation ids, from `set_context`.
        started: When its first stored event happened.
        seconds: From the first stored event to the last one, so far.
        events: How many are stored.
        error: The `code` of the error that ended it; None when none did.
    """

    execution_id: str
    status: Literal["running", "ok", "error"]
    program: str | None
    context: Mapping[str, JsonValue]
    started: datetime
    seconds: float
    events: int
    error: str | None = None


def summary(first: Event, last: Event, events: int) -> Summary:
    """Return what the first and the last stored event of an execution say of it."""
    opens = first.event_type == "execution_start"
    error = last.data.get("error") if last.event_type == "execution_error" else None
    return Summary(
        execution_id=first.execution_id,
        status=("error" if last.event_type == "execution_error" else "ok") if last.is_last else "running",
        program=str(first.data["program"]) if opens and "program" in first.data else first.operation,
        context={name: value for name, value in first.data.items() if name != "program"} if opens else {},
        started=first.timestamp,
        seconds=(last.timestamp - first.timestamp).total_seconds(),
        events=events,
        error=str(error["code"]) if isinstance(error, dict) and "code" in error else None,
    )


class Writer(Protocol):
    """Appends events. Used by one thread at a time; connects when first used, and again after an error."""

    pace: ClassVar[float]
    """Seconds to let events come together after an `append` of few: when it costs the same for many."""

    def append(self, entries: Sequence[Entry]) -> None:
        """Store `entries`, in order; returns when the backend has acknowledged all of them.

        Appending the same entries again, after an error that left it open what was stored, makes no
        duplicate that a reader of the execution sees. Never takes much longer than the backend's timeout.

        Raises:
            Unreachable: The server is away, slow beyond the timeout, or broke off.
            Refused: It does not let us; trying again soon is pointless.
        """
        ...

    def rest(self) -> None:
        """Keep the connection alive: called every few seconds while nothing is written. Never raises."""
        ...

    def close(self) -> None:
        """Let go of the connection; the next `append` makes another. Never raises."""
        ...

    def abandon(self) -> None:
        """Forget the connection without a word to the server: it belongs to the parent of a fork."""
        ...


class Subscription(Protocol):
    """A place in the log that moves on."""

    @property
    def cursor(self) -> str | None:
        """Where to follow on from when this subscription breaks, as a `Start`; None is where it began."""
        ...

    async def next(self) -> Sequence[Delivery]:
        """Wait for events, without polling, and return those there are, oldest first; at least one.

        Raises:
            Unreachable: The connection broke.
            EventsExpired: What comes after the cursor has been cut; `available` is the cursor to go on from.
        """
        ...

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Say that these were handled: the group never hands them out again. Nothing without a group."""
        ...

    async def renew(self, deliveries: Sequence[Delivery]) -> None:
        """Say that these are still being worked on, so that nobody else claims them."""
        ...

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give these back, for another member of the group to have at once."""
        ...


class Backend(Protocol):
    """One target in one backend. Reading methods may be used from any event loop, each call for itself.

    Raises, from every method: `Unreachable`, `Refused`.
    """

    def writer(self) -> Writer:
        """Return a writer of its own connection; does not connect yet."""
        ...

    def read(self, execution_id: str, after: int) -> AsyncGenerator[Sequence[bytes]]:
        """Yield the stored events of an execution above the sequence `after`, in order, then wait for more.

        Never ends by itself. May repeat events, and begin earlier than asked: the caller looks at sequences.
        The last event of an execution is always among them, whatever `after` is, if it ended or when it does.
        An execution that nothing is known of is waited for. A first, empty batch says that the server is
        there.

        Raises:
            EventsExpired: Events after `after` have been cut; `available` is the first sequence there is.
        """
        ...

    def follow(self, start: Start, group: Group | None) -> AbstractAsyncContextManager[Subscription]:
        """Follow everything. With a group, `start` says where a group begins that does not exist yet.

        When the context is entered the place is taken: "latest" means everything stored after that.

        Raises:
            EventsExpired: `start` is a cursor, and what comes after it has been cut.
        """
        ...

    async def executions(self, limit: int) -> Sequence[Summary]:
        """Return the `limit` latest executions, newest first."""
        ...

    async def bury(self, letter: DeadLetter) -> None:
        """Store what could not be handled in the target's dead-letter stream."""
        ...

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        """Return the `limit` latest dead letters, newest first."""
        ...


# --- what several backends need -----------------------------------------------------------------------------

encode_letter = msgspec.json.Encoder().encode
decode_letter = msgspec.json.Decoder(DeadLetter).decode


class Page:
    """How much a member of a group takes at once: little while it is slow, as nobody else can have it."""

    def __init__(self, *, smallest: int = 32, largest: int = 1024) -> None:
        self.size = smallest
        self._smallest = smallest
        self._largest = largest
        self._taken = 0
        self._at = 0.0

    def asked(self) -> int:
        """Return the size to take now, from how long the member worked on what it took before."""
        seconds = monotonic() - self._at
        if seconds > 1.0:
            self.size = max(self._smallest, self.size // 2)
        elif seconds < 0.25 and self._taken >= self.size:
            self.size = min(self._largest, self.size * 4)
        return self.size

    def took(self, number: int) -> None:
        """Say how many there were."""
        self._taken, self._at = number, monotonic()


_FIRST_DELAY = 0.1


def backoff(attempt: int, *, longest: float = 10.0) -> float:
    """Return how many seconds to wait before try number `attempt`, counted from 1.

    Source: exponential backoff with full jitter,
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return random() * min(longest, _FIRST_DELAY * 2 ** min(attempt, 16))


_TIMED = re.compile(r"[0-9a-f]{12}(?=[0-9a-f]{16})")


def begun(execution_id: str) -> datetime | None:
    """Return when an execution began, to the millisecond, if its id is one of ours: those begin with it."""
    found = _TIMED.match(execution_id)
    return datetime.fromtimestamp(int(found[0], 16) / 1000, UTC) if found else None


def without_password(url: str) -> str:
    """Return `url` as it may be shown: the user's name stays, password, token and query do not."""
    scheme, colon, rest = url.partition("://")
    if scheme in ("sqlite", "memory"):
        return url
    credentials, at, place = (rest if colon else url).rpartition(
        "@"
    )  # a password may hold anything, unquoted
    if not colon:
        return f"***@{place}" if at else url
    user, has_password, _ = credentials.partition(":")
    if "?" in credentials:  # or that @ is in the query: who knows
        return f"{scheme}://***"
    is_token = scheme in ("nats", "tls") and not has_password
    shown = "***" if is_token else f"{user}:***" if has_password else user
    return f"{scheme}://{shown if at else ''}{at}{place.partition('?')[0]}"
