"""Sinks that keep events in a backend, and what they do while it is away.

Events wait in memory, in their wire form. A thread of the sink's own sends whatever waits, in one batch, and
then whatever has come meanwhile. While the server is away, what waits moves to a spill file, and is sent
first, in order, when the server is back. Past the stated limits the oldest go: they are counted, and a `gap`
event in the log of their execution says what is missing.
"""

import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack
from urllib.parse import quote

import msgspec

from streamll.core.events import Event, decode, encode
from streamll.errors import BadEvent, StreamllError, Unreachable
from streamll.sinks._gaps import Gap, Gaps
from streamll.sinks._spill import Spill, default_directory
from streamll.sinks.base import BaseSink
from streamll.transports import Retention, open_backend
from streamll.transports.base import DEFAULT_TARGET, Entry, backoff, without_password

logger = logging.getLogger("streamll")

_MIB = 1024 * 1024
_BATCH_EVENTS = 4096
_BATCH_BYTES = 4 * _MIB
_FEW = 64
_REST_SECONDS = 5.0
_IDLE_SECONDS = 60.0
_SPILL_AFTER_SECONDS = 1.0
"""A server away for longer is not back at once: from here a killed process loses nothing that waits."""
_SPILL_EVERY_SECONDS = 0.25
_LONGEST_PAUSE = 10.0


class SinkStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the sink was made, in events.

    Attributes:
        queued: Wait now, in memory, in flight or in the spill file.
        sent: Were acknowledged by the backend, `gap` markers included.
        retried: Were sent again, counted each time.
        spilled: Went through the spill file, or wait there.
        dropped: Are lost: past the limits of buffer and spill, or not to be stored.
        last_error: What went wrong last, None when nothing did.
    """

    queued: int
    sent: int
    retried: int
    spilled: int
    dropped: int
    last_error: str | None


class TransportSink(BaseSink):
    """Keeps events in the backend that a URL names, in order and without loss up to the limits.

    Neither a slow nor a dead nor a lying server is noticed by the program: it hands over and goes on.

    Args:
        url: Where; see `streamll.transports.open_backend`.
        target: Name of the log there.
        retention: What the log keeps; 24 hours unless said.
        buffer_events: Events that may wait in memory.
        buffer_bytes: Bytes of events that may wait in memory.
        spill_bytes: Bytes of events that may wait in the spill file; 0 is no file.
        spill_directory: Where spill files are; `$STREAMLL_SPILL`, else `~/.local/state/streamll`. A file
            left by a process that was killed is sent by the next sink of the same log.

    Raises:
        BadUrl: The URL names no backend.
        MissingExtra: The backend's client is not installed.
    """

    def __init__(
        self,
        url: str,
        target: str = DEFAULT_TARGET,
        *,
        retention: Retention | None = None,
        buffer_events: int = 100_000,
        buffer_bytes: int = 64 * _MIB,
        spill_bytes: int = 1024 * _MIB,
        spill_directory: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.url = url
        self.target = target
        self.backend = open_backend(url, target, retention=retention)
        self.buffer_events = buffer_events
        self.buffer_bytes = buffer_bytes
        self.spill_bytes = spill_bytes
        self.spill_directory = Path(spill_directory) if spill_directory else default_directory()
        self.counts = {"sent": 0, "retried": 0, "spilled": 0, "dropped": 0}
        self.last_error: str | None = None
        self._begin()

    def _begin(self) -> None:
        self.changed = threading.Condition()
        self.keeping = threading.Lock()
        self.queue: deque[Entry] = deque()
        self.queue_bytes = 0
        self.gaps = Gaps()
        self.moves = 0
        self.in_flight: Sequence[Entry] = ()
        self.marking = 0  # gap markers on their way
        self.in_spill = 0
        self.attempts_failed = 0
        self.leaving = False
        self.hurry = threading.Event()
        self._sender: _Sender | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({without_password(self.url)!r}, {self.target!r})"

    def stats(self) -> SinkStats:
        """Return how much waits, arrived and was lost."""
        with self.changed:
            return SinkStats(queued=self._waiting(), **self.counts, last_error=self.last_error)

    def _waiting(self) -> int:
        return len(self.queue) + len(self.in_flight) + self.in_spill + self.marking + bool(self.gaps)

    @property
    def is_away(self) -> bool:
        """True while the server cannot be written to: waiting for it is waiting for nothing."""
        return self._sender is not None and self._sender.attempt > 0

    # --- what the log calls, from its own thread ---

    def handle_event(self, event: Event) -> None:
        """Take one event; never blocks."""
        self.put([event])

    def put(self, events: Sequence[Event]) -> None:
        """Take events; never blocks."""
        entries, misfits = self._encoded(events)
        with self.changed:
            self.queue.extend(entries)
            self.queue_bytes += sum([len(entry.body) for entry in entries])
            for event in misfits:
                self.lose(event, -1 - event.sequence)
            self._drop()
            self.leaving = False
            self._employ()
            self.changed.notify_all()

    def _encoded(self, events: Sequence[Event]) -> tuple[Sequence[Entry], Sequence[Event]]:
        """Return events in their wire form, and those that have none or are bigger than all memory given."""
        entries: list[Entry] = []
        misfits: list[Event] = []
        for event in events:
            try:
                entries.append(Entry(event, encode(event)))
            except Exception as error:  # noqa: BLE001 - of a value that a redact function put in
                self.last_error = _shown(error)
                misfits.append(event)
        big = [entry for entry in entries if len(entry.body) > self.buffer_bytes]
        return [entry for entry in entries if entry not in big] if big else entries, [
            *misfits,
            *(entry.event for entry in big),
        ]

    def _employ(self) -> None:
        if self._sender is None:
            self.is_running = True
            self._sender = _Sender(self)

    def _drop(self) -> None:
        """Drop the oldest past the limits."""
        while self.queue and (len(self.queue) > self.buffer_events or self.queue_bytes > self.buffer_bytes):
            entry = self.queue.popleft()
            self.queue_bytes -= len(entry.body)
            self.lose(entry.event, 1 + self.moves)

    def put_back(self) -> None:
        """Take back what was in flight, as the oldest that waits."""
        self.queue.extendleft(reversed(self.in_flight))
        self.queue_bytes += sum([len(entry.body) for entry in self.in_flight])
        self.in_flight = ()
        self._drop()

    def lose(self, event: Event, place: int) -> None:
        """Count an event as lost, to be marked in its log; `place` 0 is the head of the spill."""
        if not self.counts["dropped"]:
            told = (
                "%r drops events: its limits are %d events and %d bytes in memory, %d bytes in its spill file"
            )
            logger.warning(told, self, self.buffer_events, self.buffer_bytes, self.spill_bytes)
        self.counts["dropped"] += event.event_type != "gap"  # a marker's events are counted
        self.gaps.add(event, place)

    # --- ends ---

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything is with the backend; while it is away, try again at once.

        Returns:
            False when `timeout` seconds were not enough; nothing is lost then.
        """
        self.hurry.set()
        with self.changed:
            if self.queue:
                self._employ()
            return self.changed.wait_for(lambda: not self._waiting(), timeout)

    def last_call(self, timeout: float) -> None:
        """Send what waits; what cannot be sent now goes to the spill file, for the next process to send."""
        failed = self.attempts_failed
        self.hurry.set()
        with self.changed:
            if self.queue:
                self._employ()
            gone = self.changed.wait_for(
                lambda: not self._waiting() or self.attempts_failed > failed, timeout
            )
        if not gone or self._waiting():
            self.leaving = True
            self._save()

    def _save(self) -> None:
        """Write what waits to files of its own; markers of what the spill dropped come before all else."""
        with self.keeping, self.changed:
            waiting = [*self.in_flight, *self.queue]  # stored twice is stored once, lost is lost
            if not self.spill_bytes or not (waiting or self.gaps):
                return
            heads = self.gaps.take_heads()
            entries, markers = self.gaps.take(waiting, all_of_them=True)
            try:
                self._write([gap.entry() for gap in heads], first=True)
                self._write(entries)
            except (OSError, sqlite3.Error) as error:
                logger.warning("%r cannot save %d events: %s", self, len(waiting), error)
                self.gaps.restore([*heads, *markers])
            else:
                self.queue.clear()
                self.queue_bytes = 0

    def _write(self, entries: Sequence[Entry], *, first: bool = False) -> None:
        if entries:
            spill = Spill(self.new_spill(first=first))
            try:
                spill.append([entry.body for entry in entries])
            finally:
                spill.close()

    def stop(self) -> None:
        """Send or spill what waits, and let go of the connection; the next event starts again."""
        self.last_call(_LONGEST_PAUSE)
        with self.changed:
            self.leaving = True
            self.hurry.set()
            self.changed.notify_all()
            self.changed.wait_for(lambda: self._sender is None or not self.leaving, _LONGEST_PAUSE)
        self.is_running = False

    def after_fork(self) -> None:
        """Forget, in a forked child, what is the parent's: its queue, its connection, its files."""
        if self._sender is not None:
            self._sender.abandon()
        self._begin()

    def sender_ended(self, sender: "_Sender") -> None:
        """Let the next event make another sender."""
        with self.changed:
            if self._sender is sender:
                self._sender, self.in_spill = None, 0
            if self.queue and not self.leaving:
                self._employ()
            self.changed.notify_all()

    # --- files ---

    def new_spill(self, *, first: bool = False) -> Path:
        """Return a new name; files are sent in the order of their names, which begin with the time."""
        made = 0 if first else time.time_ns()
        return self.spill_directory / f"{self._log_id()}-{made:020d}-{os.urandom(4).hex()}.db"

    def orphans(self) -> list[Path]:
        """Return the spill files of this log, oldest first, also those in use."""
        return sorted(self.spill_directory.glob(f"{self._log_id()}-*.db"))

    def _log_id(self) -> str:
        place = getattr(self.backend, "path", None) or without_password(self.url)
        return hashlib.sha256(f"{place}\n{self.target}".encode()).hexdigest()[:16]


# --- the thread ---------------------------------------------------------------------------------------------


class _Batch(NamedTuple):
    """What is sent at once: from the head of a spill, or from the queue."""

    entries: Sequence[Entry]
    gaps: Sequence[Gap] = ()
    spill: Spill | None = None
    rows: Sequence[tuple[int, bytes]] = ()


class _Sender:
    """One life of a sink's thread: its connection, its files, and the state of its circuit breaker."""

    def __init__(self, sink: TransportSink) -> None:
        self._sink = sink
        self._writer = sink.backend.writer()
        self._spills: list[Spill] = []
        self._own: Spill | None = None
        self.attempt = 0
        self._since: float | None = None
        self._thread = threading.Thread(
            target=self._work, name=f"streamll {type(sink).__name__}", daemon=True
        )
        self._thread.start()

    def abandon(self) -> None:
        """Leave everything to the process this one was forked from."""
        self._writer.abandon()
        for spill in self._spills:
            spill.abandon()

    def _work(self) -> None:
        try:
            self._adopt()
            while self._has_work():
                batch = self._take()
                if batch.entries:
                    self._send(batch)
                    self._gather(batch)
                elif batch.rows:  # none of them is an event
                    self._sent(batch, 0)
        except BaseException:  # nobody joins the thread to hear of it
            logger.exception("the thread of %r ended", self._sink)
            raise
        finally:
            self._writer.close()
            for spill in self._spills:  # before another sender looks for them
                spill.close()
            self._sink.sender_ended(self)

    # --- taking ---

    def _has_work(self) -> bool:
        """Wait for events; False when none came for so long that connection and thread are let go."""
        sink, quiet = self._sink, 0.0
        while True:
            with sink.changed:
                if sink.leaving or (quiet >= _IDLE_SECONDS and not sink.queue):
                    return False
                if sink.queue or self._spills or sink.gaps:
                    return True
                if not sink.changed.wait_for(lambda: sink.queue or sink.leaving, _REST_SECONDS):
                    quiet += _REST_SECONDS
            self._writer.rest()

    def _take(self) -> _Batch:
        """Return the oldest events that wait; those of a spill stay in its file until they are sent."""
        spill = self._spills[0] if self._spills else None
        rows = self._oldest(spill) if spill else ()
        if spill and not rows:
            self._close(spill)
            return _Batch(())
        sink = self._sink
        with sink.changed:
            entries = _entries(rows) if rows else self._from_queue()
            all_of_them = not rows and not sink.queue
            marked, gaps = sink.gaps.take(entries, all_of_them=all_of_them)
            sink.in_flight = () if rows else entries
            sink.marking = len(gaps)
        return _Batch(marked, gaps, spill if rows else None, rows)

    def _oldest(self, spill: Spill) -> Sequence[tuple[int, bytes]]:
        """Return the oldest events of a spill; one that cannot be read any more is left as it is."""
        try:
            return spill.first(_BATCH_EVENTS, _BATCH_BYTES)
        except (OSError, sqlite3.Error) as error:
            told = "%r lost %d events in %s: %s"
            logger.warning(told, self._sink, spill.events, spill.path, error)
            with self._sink.changed:
                self._sink.last_error = _shown(error)
                self._sink.in_spill -= spill.events
                self._sink.counts["dropped"] += spill.events
                self._sink.changed.notify_all()
            return ()

    def _from_queue(self) -> Sequence[Entry]:
        queue, size, number = self._sink.queue, 0, 0
        for entry in islice(queue, _BATCH_EVENTS):
            size += len(entry.body)
            number += 1
            if size > _BATCH_BYTES:
                break
        self._sink.moves += 1
        taken = [queue.popleft() for _ in range(number)]
        self._sink.queue_bytes -= sum([len(entry.body) for entry in taken])
        return taken

    def _gather(self, sent: _Batch) -> None:
        """Let the next events come together when these were few."""
        if self._writer.pace and len(sent.entries) < _FEW and not self._sink.leaving:
            time.sleep(self._writer.pace)

    # --- sending ---

    def _send(self, batch: _Batch) -> None:
        try:
            self._writer.append(batch.entries)
        except StreamllError as error:
            self._failed(batch, error)
        except Exception as error:  # noqa: BLE001 - of the client, on something in this batch
            self._send_singly(batch, error)
        else:
            self._sent(batch, len(batch.entries))

    def _sent(self, batch: _Batch, number: int) -> None:
        sink, self.attempt = self._sink, 0
        with sink.changed:
            sink.counts["sent"] += number
        if batch.spill:
            batch.spill.remove(batch.rows)
            if not batch.spill.events:
                self._close(batch.spill)
        elif not self._spills:
            self._caught_up()
        with sink.changed:  # only then: who waits for a flush finds it said
            sink.in_flight, sink.marking = (), 0
            sink.in_spill -= len(batch.rows)
            sink.counts["dropped"] += max(0, len(batch.rows) + len(batch.gaps) - len(batch.entries))
            sink.changed.notify_all()

    def _send_singly(self, batch: _Batch, error: Exception) -> None:
        """Send what can be stored of a batch that could not be, and drop the rest of it."""
        logger.warning("%r could not store %d events at once: %s", self._sink, len(batch.entries), error)
        sent = 0
        for entry in batch.entries:
            try:
                self._writer.append([entry])
                sent += 1
            except StreamllError as away:
                self._failed(batch, away)
                return
            except Exception as reason:  # noqa: BLE001 - as above
                self._sink.last_error = _shown(reason)
                if entry.event.event_type != "gap":  # a gap that cannot be marked stays unmarked
                    with self._sink.changed:
                        self._sink.lose(entry.event, -1 - entry.event.sequence)
        self._sent(batch, sent)

    # --- the server is away ---

    def _failed(self, batch: _Batch, error: StreamllError) -> None:
        """Put the batch back, and wait before the next try."""
        sink = self._sink
        with sink.changed:
            sink.put_back()
            sink.marking = 0
            sink.gaps.restore(batch.gaps)
            sink.counts["retried"] += len(batch.entries)
            sink.last_error = _shown(error)
            sink.attempts_failed += 1
            sink.changed.notify_all()
        self.attempt += 1
        if self._since is None:
            self._since = time.monotonic()
            told = "%r: events wait until it can be written to again: %s"
            logger.warning(told, sink, error)
        longest = _LONGEST_PAUSE if isinstance(error, Unreachable) else 3 * _LONGEST_PAUSE
        self._sit_out(backoff(self.attempt, longest=longest))

    def _sit_out(self, seconds: float) -> None:
        """Let `seconds` pass, unless somebody is in a hurry, and keep what waits safe meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self._sink.leaving:
            if self._sink.hurry.wait(min(left, _SPILL_EVERY_SECONDS)):
                self._sink.hurry.clear()
                break
            self._keep()
        self._keep()

    def _keep(self) -> None:
        """Move what waits in memory to the spill file, if the outage lasts or much waits."""
        sink = self._sink
        long = self._since is not None and time.monotonic() - self._since > _SPILL_AFTER_SECONDS
        much = len(sink.queue) > sink.buffer_events // 4 or sink.queue_bytes > sink.buffer_bytes // 4
        if (long or much) and sink.queue and sink.spill_bytes:
            with sink.keeping:
                self._spill()

    def _spill(self) -> None:
        sink = self._sink
        with sink.changed:
            sink.in_flight = tuple(sink.queue)
            entries, markers = sink.gaps.take(sink.in_flight, all_of_them=False, heads=False)
            sink.queue.clear()
            sink.queue_bytes = 0
        try:
            if self._own is None:
                self._own = Spill(sink.new_spill())
                self._spills.append(self._own)
            entries = self._fitting(entries)
            self._own.append([entry.body for entry in entries])
        except (OSError, sqlite3.Error) as error:
            sink.last_error = _shown(error)
            with sink.changed:
                sink.gaps.restore(markers)
                sink.put_back()  # memory holds what it may
            return
        with sink.changed:
            sink.in_flight = ()
            sink.moves += 1
            sink.in_spill += len(entries)
            sink.counts["spilled"] += len(entries)

    def _fitting(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Drop the oldest, of the spills and then of `entries`, until the rest is within the limit."""
        sink, size = self._sink, sum([len(entry.body) for entry in entries])
        while (spilled := sum(spill.bytes for spill in self._spills)) and spilled + size > sink.spill_bytes:
            spill = next(spill for spill in self._spills if spill.events)
            rows = spill.first(_BATCH_EVENTS // 16, _BATCH_BYTES)
            spill.remove(rows)
            with sink.changed:
                sink.in_spill -= len(rows)
                for entry in _entries(rows):
                    sink.lose(entry.event, 0)
        kept = deque(entries)
        while kept and size > sink.spill_bytes:
            dropped = kept.popleft()
            size -= len(dropped.body)
            with sink.changed:
                sink.lose(dropped.event, 0)
        return kept

    def _caught_up(self) -> None:
        """Say, once an outage, that what waited for its end is sent."""
        if self._since is None:
            return
        seconds, self._since, counts = time.monotonic() - self._since, None, self._sink.stats()
        told = (
            "%r caught up, %.1f s after it was cut off; so far %d events sent, %d of them spilled, %d dropped"
        )
        logger.info(told, self._sink, seconds, counts.sent, counts.spilled, counts.dropped)

    def _adopt(self) -> None:
        """Take over the files of processes that ended during an outage, to be sent before anything else."""
        found = map(Spill.orphan, self._sink.orphans())
        self._spills = [spill for spill in found if spill is not None]
        with self._sink.changed:
            self._sink.in_spill = sum(spill.events for spill in self._spills)

    def _close(self, spill: Spill) -> None:
        self._spills.remove(spill)
        spill.close()
        if spill is self._own:
            self._own = None
        if not self._spills and not self.attempt:
            self._caught_up()


def _entries(rows: Sequence[tuple[int, bytes]]) -> list[Entry]:
    entries: list[Entry] = []
    for _, body in rows:
        try:
            entries.append(Entry(decode(body), body))
        except BadEvent:
            logger.warning("a spill file holds %d bytes that are no event; they are left out", len(body))
    return entries


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


# --- by backend ---------------------------------------------------------------------------------------------


class Options(TypedDict, total=False):
    """What every sink below takes as keywords; see `TransportSink`."""

    retention: Retention | None
    buffer_events: int
    buffer_bytes: int
    spill_bytes: int
    spill_directory: str | os.PathLike[str] | None


class RedisSink(TransportSink):
    """Keeps events in Redis Streams: `stream_key` holds all of them, in the field `event`.

    Args:
        url: `redis://[user:password@]host:port/db` or `rediss://`; `$REDIS_URL`, else this machine's.
        stream_key: Key of the stream; the other keys of the log begin with it.
        redis_url: The same as `url`.
        options: See `TransportSink`.

    Raises:
        TypeError: `url` and `redis_url` are given and differ.
        MissingExtra: redis-py is not installed.
    """

    def __init__(
        self,
        url: str | None = None,
        stream_key: str = DEFAULT_TARGET,
        *,
        redis_url: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        place = _one(url, redis_url, "redis_url", "REDIS_URL", "redis://localhost:6379")
        super().__init__(place, stream_key, **options)


class RabbitMQSink(TransportSink):
    """Keeps events in a RabbitMQ stream queue, and routes them by `event_type.module` in a topic exchange.

    Args:
        url: `amqp://user:password@host:port/vhost` or `amqps://`; `$AMQP_URL`, else this machine's.
        queue: Name of the stream queue and of the exchange.
        rabbitmq_url: The same as `url`.
        options: See `TransportSink`.

    Raises:
        TypeError: `url` and `rabbitmq_url` are given and differ.
        MissingExtra: pika is not installed.
    """

    def __init__(
        self,
        url: str | None = None,
        queue: str = DEFAULT_TARGET,
        *,
        rabbitmq_url: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        place = _one(url, rabbitmq_url, "rabbitmq_url", "AMQP_URL", "amqp://guest:guest@localhost:5672")
        super().__init__(place, queue, **options)


class NatsSink(TransportSink):
    """Keeps events in a NATS JetStream stream, under the subject `streamll.<program>.<execution_id>`.

    Args:
        url: `nats://[user:password@]host:port` or `tls://`; `$NATS_URL`, else this machine's.
        stream: Name of the stream.
        nats_url: The same as `url`.
        options: See `TransportSink`.

    Raises:
        TypeError: `url` and `nats_url` are given and differ.
        MissingExtra: nats-py is not installed.
    """

    def __init__(
        self,
        url: str | None = None,
        stream: str = DEFAULT_TARGET,
        *,
        nats_url: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            _one(url, nats_url, "nats_url", "NATS_URL", "nats://localhost:4222"), stream, **options
        )


class SqliteSink(TransportSink):
    """Keeps events in an SQLite file, which any number of processes on this machine may write and read.

    Args:
        path: Of the file, or its URL `sqlite:///...`.
        table: Name of the table of events.
        options: See `TransportSink`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = "streamll_events.db",
        table: str = DEFAULT_TARGET,
        **options: Unpack[Options],
    ) -> None:
        name = os.fspath(path)
        url = name if name.startswith(("sqlite:", "memory:")) else f"sqlite:///{quote(name)}"
        super().__init__(url, table, **options)


def _one(url: str | None, other: str | None, name: str, variable: str, default: str) -> str:
    if url and other and url != other:
        given = (without_password(url), without_password(other))
        raise TypeError(f"url={given[0]!r} and {name}={given[1]!r} say two places; give one of them.")
    return url or other or os.environ.get(variable) or default
