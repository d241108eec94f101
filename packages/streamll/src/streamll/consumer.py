"""The reading side of a log: handlers called with the events they asked for, each at least once."""

import asyncio
import inspect
import itertools
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Self, TypedDict, Unpack, cast

from streamll.core.events import Event, JsonValue, decode
from streamll.errors import BadEvent, EventsExpired, StreamllError, Unreachable
from streamll.transports import open_backend
from streamll.transports.base import (
    DEFAULT_TARGET,
    DeadLetter,
    Delivery,
    Group,
    Start,
    Subscription,
    backoff,
    without_password,
)

logger = logging.getLogger("streamll")

_SETTLE_SECONDS = 1.0
_REMEMBERED = 65_536
"""Events of which a consumer knows that it had them: a duplicate comes sooner than that."""

type Handler = Callable[[Event], Awaitable[object] | object]
type Where = Mapping[str, JsonValue] | Callable[[Event], bool]


@dataclass(frozen=True, slots=True)
class _Subscriber:
    pattern: str
    handler: Handler
    wants: Callable[[Event], bool] | None


class _Item(NamedTuple):
    event: Event
    delivery: Delivery


class EventConsumer:
    """Follows everything a log gets: all of it alone, or sharing the work in a group.

    Alone, each consumer sees every event. In a group each event goes to one member and is acknowledged after
    its handlers returned: at least once, so what a killed member held goes to another. Events that a producer
    had to send twice are handed out once. When the connection breaks it is made again, and following goes on
    where it was.

    Args:
        url: Of the backend: `redis://`, `amqp://`, `nats://`, `sqlite:///events.db`, `memory:`.
        target: Name of the log, the same as the sink's.
        start: Where to begin: "latest" (what comes from `start()` on), "earliest", a cursor, or a moment. A
            group that exists goes on where it was.
        group: Name of the group to share the work with.
        consumer: Name of this member, unique among those alive; host and process by default.
        retries: How often a handler that raised is called again, before the event becomes a dead letter.
        max_deliveries: In a group, how often an event is handed out that is never acknowledged. (RabbitMQ and
            NATS count it, too, when a member that stops gives back what it only fetched.)
        claim_after: Seconds after which what a silent member held goes to another one.
        dead_letters: False only logs what cannot be handled: for one who just looks.

    Raises:
        BadUrl: `url` names no backend.
        MissingExtra: The backend's client is not installed.
    """

    def __init__(
        self,
        url: str,
        target: str = DEFAULT_TARGET,
        *,
        start: Start = "latest",
        group: str | None = None,
        consumer: str | None = None,
        retries: int = 3,
        max_deliveries: int = 10,
        claim_after: float = 60.0,
        dead_letters: bool = True,
    ) -> None:
        self.url = url
        self.target = target
        self.retries = retries
        self.max_deliveries = max_deliveries
        self.dead_letters = dead_letters
        self.backend = open_backend(url, target)
        name = consumer or f"{socket.gethostname()}-{os.getpid()}-{os.urandom(2).hex()}"
        self._group = Group(group, name, timedelta(seconds=claim_after)) if group else None
        self._position = start
        self._subscribers: list[_Subscriber] = []
        self._by_type: dict[str, Sequence[_Subscriber]] = {}
        self._had: dict[tuple[str, int], None] = {}
        self._stopping = False
        self._placed = asyncio.Event()
        self._idle: asyncio.Future[object] | None = None
        self._source: AsyncGenerator[_Holding] | None = None
        self._coming: asyncio.Future[_Holding | None] | None = None
        self._singly: AsyncGenerator[_Item] | None = None
        self._pull: asyncio.Future[_Item | None] | None = None
        self._running: asyncio.Task[object] | None = None
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        shared = f", group={self._group.name!r}" if self._group else ""
        return f"{type(self).__name__}({without_password(self.url)!r}, {self.target!r}{shared})"

    # --- what a program writes ---

    def on[H: Handler](self, pattern: str, *, where: Where | None = None) -> Callable[[H], H]:
        """Register a handler for events of a type.

        Handlers of one event are called in the order of registration, each after the other returned; async
        ones are awaited, and a sync one that blocks holds up the whole event loop.

        Args:
            pattern: An event type, or a pattern: `token`, `lm_*`, `*_error`, `*`.
            where: Values that the event's data must have, `{"conversation_id": "conv_123"}`, or a predicate.
        """

        def register(handler: H) -> H:
            self._subscribers.append(_Subscriber(pattern, handler, _predicate(where)))
            self._by_type.clear()
            return handler

        return register

    async def run(self) -> None:
        """Call the handlers with what comes, until `stop()`, SIGINT or SIGTERM; the one in hand is finished.

        An event whose handler raises is tried again, `retries` times, then moved to the dead letters with the
        error; so is what is no event at all. Neither ends `run`.

        Raises:
            StreamllError: No handler is registered.
            EventsExpired: Retention has cut what came next. Run again to go on with what there is.
            Refused: The server does not let us.
        """
        if not self._subscribers:
            raise StreamllError(f"{self!r} has no handler; register one with @consumer.on('token') first.")
        with self._signals():
            async with aclosing(self._items()) as items:
                async for item in items:
                    await self._handle(item)

    async def start(self) -> None:
        """Take the place in the log, and begin to receive; waits for a server that cannot be reached yet.

        Raises:
            EventsExpired: `start` is a cursor, and what comes after it was cut by retention.
            Refused: The server does not let us.
        """
        if self._source is not None and self._placed.is_set():
            return
        if self._source is None:
            self._stopping = False
            self._ended, self._placed = asyncio.Event(), asyncio.Event()  # of the loop that runs now
            self._source = self._batches()
            self._coming = asyncio.ensure_future(anext(self._source, None))
        placed = asyncio.ensure_future(self._placed.wait())
        try:
            both = {placed, cast("asyncio.Future[object]", self._coming)}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            placed.cancel()
        if self._coming and self._coming.done() and not self._placed.is_set():
            coming, self._coming, self._source = self._coming, None, None
            coming.result()

    async def consume_one(self, timeout: float | None = 1.0) -> Event | None:  # noqa: ASYNC109 - published
        """Return the next event; the one before counts as handled. Handlers are not called.

        Args:
            timeout: Seconds; None waits for ever.

        Returns:
            None when nothing came in time, or the consumer was stopped.

        Raises:
            As `run`.
        """
        if self._stopping and self._source is None:
            return None
        await self.start()
        self._singly = self._singly or self._items()
        self._pull = self._pull or asyncio.ensure_future(anext(self._singly, None))
        await asyncio.wait({self._pull}, timeout=timeout)
        if not self._pull.done():
            return None
        pull, self._pull = self._pull, None
        if not pull.cancelled() and pull.exception() is not None:
            self._singly, self._stopping = None, False  # the next call begins again
        item = None if pull.cancelled() else pull.result()
        return item and item.event

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Yield events until `stop()`; one counts as handled when the loop asks for the next."""
        async with aclosing(self._items()) as items:
            async for item in items:
                yield item.event

    async def _items(self) -> AsyncGenerator[_Item]:
        """Yield what comes; an item counts as handled when the next one is asked for."""
        self._running = asyncio.current_task()
        try:
            await self.start()
            while (holding := await self._next()) is not None:
                for delivery in holding.batch:
                    if self._stopping:
                        break
                    event = await self._opened(delivery)
                    if event is not None:
                        yield _Item(event, delivery)
                        self._remember(event)
                    if self._group is None:
                        self._position = delivery.cursor
                    if holding.done():
                        await holding.settle()
        finally:
            self._running = None
            await self._close()

    async def stop(self) -> None:
        """Finish the event in hand, give back what else was fetched, and let go of the connection."""
        self._stop()
        if self._singly:
            if self._pull is None:  # what consume_one returned last was handled
                await anext(self._singly, None)
            else:
                await asyncio.gather(self._pull, return_exceptions=True)
            singly, self._singly, self._pull = self._singly, None, None
            await singly.aclose()
        elif self._running is None:
            await self._close()
        elif self._running is not asyncio.current_task():
            await self._ended.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # --- handling ---

    async def _handle(self, item: _Item) -> None:
        for subscriber in self._for(item.event.event_type):
            for tries in itertools.count(1):
                try:
                    await _called(subscriber, item.event)
                    break
                except Exception as error:  # noqa: BLE001 - the user's handler, or predicate
                    if tries > self.retries:
                        await self._bury(item.delivery, error, tries)
                        return
                    logger.warning("%r: a handler failed on %s: %r", self, item.event.event_id, error)
                    await asyncio.sleep(backoff(tries))

    def _for(self, event_type: str) -> Sequence[_Subscriber]:
        found = self._by_type.get(event_type)
        if found is None:
            found = tuple(one for one in self._subscribers if fnmatchcase(event_type, one.pattern))
            self._by_type[event_type] = found
        return found

    async def _bury(self, delivery: Delivery, error: Exception, attempts: int) -> None:
        """Move what cannot be handled to the dead letters; a server that is away is waited for."""
        letter = DeadLetter(
            body=delivery.body.decode(errors="backslashreplace"),
            error=f"{type(error).__name__}: {error}",
            attempts=attempts,
            cursor=delivery.cursor,
            group=self._group and self._group.name,
            timestamp=datetime.now(UTC),
        )
        told = "%r gives up what is at %s, after %d tries: %s"
        logger.error(told, self, delivery.cursor, attempts, letter.error)
        if not self.dead_letters:
            return
        for attempt in itertools.count(1):
            try:
                await self.backend.bury(letter)
                return
            except Unreachable:
                if self._stopping:
                    raise
                await asyncio.sleep(backoff(attempt))

    # --- following ---

    async def _next(self) -> "_Holding | None":
        """Return the next batch; the one before is over. None when the consumer was stopped."""
        if self._source is None:
            return None
        coming, self._coming = self._coming, None
        return await (coming or anext(self._source, None))

    async def _batches(self) -> "AsyncGenerator[_Holding]":
        """Yield what comes, over any number of connections."""
        attempt = 0
        while not self._stopping:
            try:
                async with self.backend.follow(self._position, self._group) as subscription:
                    self._position = subscription.cursor or self._position
                    self._placed.set()
                    attempt = 0
                    while (batch := await self._idly(subscription.next())) is not None:
                        async with self._held(subscription, batch) as holding:
                            yield holding
            except EventsExpired as expired:
                self._position = expired.available if isinstance(expired.available, str) else "earliest"
                raise
            except Unreachable as error:
                attempt += 1
                if attempt == 1:
                    logger.warning("%r lost its server, trying again: %s", self, error)
                await self._idly(asyncio.sleep(backoff(attempt)))

    @asynccontextmanager
    async def _held(
        self, subscription: Subscription, batch: Sequence[Delivery]
    ) -> "AsyncGenerator[_Holding]":
        """Keep a batch from being claimed by others while it is worked on; at the end give back the rest."""
        holding = _Holding(subscription, batch)
        renewing = asyncio.ensure_future(self._renew(holding)) if self._group else None
        try:
            yield holding
        finally:
            if renewing:
                renewing.cancel()
            with suppress(Unreachable):  # then the group hands them out again
                await holding.end()

    async def _idly[T](self, waiting: Awaitable[T]) -> T | None:
        """Wait for what may take long; None when the consumer is stopped."""
        idle = asyncio.ensure_future(waiting)
        self._idle = cast("asyncio.Future[object]", idle)
        if self._stopping:
            idle.cancel()
        try:
            return await idle
        except asyncio.CancelledError:
            if self._stopping:
                return None
            idle.cancel()
            raise
        finally:
            self._idle = None

    async def _opened(self, delivery: Delivery) -> Event | None:
        """Return the event in a delivery; None for a duplicate, and for what becomes a dead letter."""
        try:
            event = decode(delivery.body)
        except BadEvent as error:
            await self._bury(delivery, error, delivery.attempts)
            return None
        if (event.execution_id, event.sequence) in self._had:
            return None
        if delivery.attempts > self.max_deliveries:
            given_up = StreamllError(f"handed out {delivery.attempts} times, and never acknowledged")
            await self._bury(delivery, given_up, delivery.attempts)
            return None
        return event

    def _remember(self, event: Event) -> None:
        self._had[event.execution_id, event.sequence] = None
        if len(self._had) > _REMEMBERED:
            del self._had[next(iter(self._had))]

    async def _renew(self, holding: "_Holding") -> None:
        """Keep what is held from being claimed by others while it is worked on."""
        assert self._group
        while True:
            await asyncio.sleep(self._group.claim_after.total_seconds() / 3)
            with suppress(Unreachable):
                await holding.renew()

    # --- ending ---

    def _stop(self) -> None:
        self._stopping = True
        if self._idle:
            self._idle.cancel()

    async def _close(self) -> None:
        """End the source: what was handled is acknowledged, what was only fetched is given back."""
        self._stop()
        source, coming, self._source, self._coming = self._source, self._coming, None, None
        if coming:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        if source:
            await source.aclose()
        self._ended.set()

    @contextmanager
    def _signals(self) -> Generator[None]:
        """Stop gracefully on SIGINT and SIGTERM, where the program has no handlers of its own."""
        loop, before = asyncio.get_running_loop(), dict[signal.Signals, Any]()
        if threading.current_thread() is threading.main_thread():
            before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
        ours = [one for one, handler in before.items() if _is_default(handler)]
        _running.add(self)
        for one in ours:
            loop.add_signal_handler(one, _stop_running)
        try:
            yield
        finally:
            _running.discard(self)
            for one in ours:
                loop.remove_signal_handler(one)
                signal.signal(one, before[one])


_running: set[EventConsumer] = set()
"""Those that a signal stops."""


def _stop_running() -> None:
    for consumer in tuple(_running):
        consumer._stop()  # pyright: ignore[reportPrivateUsage]


class _Holding:
    """A batch that is being worked on: acknowledged about once a second, the rest given back at the end."""

    def __init__(self, subscription: Subscription, batch: Sequence[Delivery]) -> None:
        self.batch = batch
        self._subscription = subscription
        self._lock = asyncio.Lock()  # a subscription does one thing at a time
        self._handled = 0
        self._settled = 0
        self._due = time.monotonic() + _SETTLE_SECONDS

    def done(self) -> bool:
        """Count the next one as handled; True when it is time to settle."""
        self._handled += 1
        return time.monotonic() >= self._due

    async def settle(self) -> None:
        async with self._lock:
            handled = self.batch[self._settled : self._handled]
            if handled:
                await self._subscription.settle(handled)
            self._settled += len(handled)
            self._due = time.monotonic() + _SETTLE_SECONDS

    async def renew(self) -> None:
        async with self._lock:
            await self._subscription.renew(self.batch[self._settled :])

    async def end(self) -> None:
        await self.settle()
        rest = self.batch[self._handled :]
        if rest:
            async with self._lock:
                await self._subscription.release(rest)


async def _called(subscriber: _Subscriber, event: Event) -> None:
    if subscriber.wants is None or subscriber.wants(event):
        result = subscriber.handler(event)
        if result is not None and inspect.isawaitable(result):
            await result


def _is_default(handler: object) -> bool:
    """True for a signal handler that is Python's own, `asyncio.run`'s, or the one that flushes our sinks."""
    made_by = getattr(getattr(handler, "func", handler), "__module__", "")
    return handler in (signal.SIG_DFL, signal.default_int_handler) or made_by in _DEFAULTS


_DEFAULTS = ("asyncio.runners", "streamll.core.log")


def _predicate(where: Where | None) -> Callable[[Event], bool] | None:
    if where is None or callable(where):
        return where
    asked = dict(where)
    return lambda event: all(event.data.get(name) == value for name, value in asked.items())


# --- by backend ---------------------------------------------------------------------------------------------


class Options(TypedDict, total=False):
    """The keywords of `EventConsumer`."""

    start: Start
    group: str | None
    consumer: str | None
    retries: int
    max_deliveries: int
    claim_after: float
    dead_letters: bool


class RedisStreamConsumer(EventConsumer):
    """An `EventConsumer` on Redis, at `$REDIS_URL` or on this machine unless a URL is given."""

    def __init__(
        self, url: str | None = None, target: str = DEFAULT_TARGET, **options: Unpack[Options]
    ) -> None:
        super().__init__(url or os.environ.get("REDIS_URL") or "redis://localhost:6379", target, **options)


class RabbitMQConsumer(EventConsumer):
    """An `EventConsumer` on RabbitMQ, at `$AMQP_URL` or on this machine unless a URL is given."""

    def __init__(
        self, url: str | None = None, target: str = DEFAULT_TARGET, **options: Unpack[Options]
    ) -> None:
        here = "amqp://guest:guest@localhost:5672"
        super().__init__(url or os.environ.get("AMQP_URL") or here, target, **options)


class NatsConsumer(EventConsumer):
    """An `EventConsumer` on NATS JetStream, at `$NATS_URL` or on this machine unless a URL is given."""

    def __init__(
        self, url: str | None = None, target: str = DEFAULT_TARGET, **options: Unpack[Options]
    ) -> None:
        super().__init__(url or os.environ.get("NATS_URL") or "nats://localhost:4222", target, **options)
