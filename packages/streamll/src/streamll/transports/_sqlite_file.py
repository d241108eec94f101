"""A connection to an SQLite file that survives forks, and ways to wait for what others write to it."""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any
from weakref import WeakSet

from streamll.errors import Refused, StreamllError, Unreachable

_BUSY_SECONDS = 5.0
_LOOKS = (0.001, 0.025)
"""Seconds between two looks at what other processes write: after something came, and when it is quiet."""


class Db:
    """One connection, and statements with the names of tables filled in: `{t}` is `names["t"]`.

    SQLite forbids using a connection after a fork, in parent and child alike as soon as both go on. So it is
    closed before a fork, and opened again when it is next used.
    """

    def __init__(self, path: str, names: Mapping[str, str], prepare: Callable[["Db"], None]) -> None:
        self.path = path
        self._names = names
        self._prepare = prepare
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None
        self.connected = 0
        self.lock = threading.RLock()
        _open.add(self)

    @contextmanager
    def use(self) -> Generator[None]:
        """Hold the connection, and turn what goes wrong with it into our errors."""
        with self.lock, _typed_errors(self.path):
            if self._connection is None:
                self._connect()
            yield

    def _connect(self) -> None:
        uri = self.path.startswith("file:")
        self.connected += 1
        self._connection = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=uri
        )
        try:
            self._connection.text_factory = bytes
            self._write_ahead()
            self.run("PRAGMA synchronous=NORMAL")
            self._prepare(self)
            self._inode = _inode(self.path)
        except BaseException:  # Ctrl+C too leaves no half-made connection
            self.close()
            raise

    def _write_ahead(self) -> None:
        """Have readers and the writer not wait for each other. SQLite itself does not wait to change this."""
        until = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self.run("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
            time.sleep(0.005)

    def abandon(self) -> None:
        """Forget, in a forked child, a connection in use: closing it would drop the parent's locks."""
        _abandoned.append(self._connection)
        self._connection, self.lock = None, threading.RLock()

    def close(self) -> None:
        with self.lock:
            if self._connection is not None:
                with suppress(sqlite3.Error):
                    self._connection.close()
                self._connection = None

    def follow_file(self) -> None:
        """Let go of a file that was deleted or replaced meanwhile; the next use makes or finds another."""
        if self._inode is not None and self._inode != _inode(self.path):
            self.close()

    @contextmanager
    def transaction(self, kind: str = "IMMEDIATE") -> Generator[None]:
        """All that happens inside or nothing; `DEFERRED` only reads, and sees the file at one moment."""
        with self.use():
            self.run(f"BEGIN {kind}")
            try:
                yield
            except BaseException:  # all or nothing, whatever interrupts
                with suppress(sqlite3.Error):  # a full disk has rolled back already
                    self.run("ROLLBACK")
                raise
            self.run("COMMIT")

    # --- statements ---

    def run(self, statement: str, *values: object) -> sqlite3.Cursor:
        assert self._connection is not None
        return self._connection.execute(statement.format_map(self._names), values)

    def rows(self, statement: str, *values: object) -> list[Any]:
        return self.run(statement, *values).fetchall()

    def row(self, statement: str, *values: object) -> Any:
        """Return the first row, None when there is none."""
        return self.run(statement, *values).fetchone()

    def many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> int:
        """Run `statement` on each row, and return how many rows of the table changed."""
        assert self._connection is not None
        before = self._connection.total_changes
        self._connection.executemany(statement.format_map(self._names), rows)
        return self._connection.total_changes - before


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None


_open: WeakSet[Db] = WeakSet()
_held: list[Db] = []
_abandoned: list[object] = []
_FORK_WAITS_SECONDS = 0.05


def _before_fork() -> None:
    for db in list(_open):
        if db.lock.acquire(timeout=_FORK_WAITS_SECONDS):  # else it waits for another process
            _held.append(db)
            db.close()


def _after_fork() -> None:
    for db in _held:
        db.lock.release()
    _held.clear()


def _in_child() -> None:
    for db in list(_open):
        if db not in _held:
            db.abandon()
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)

_AWAY = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR")


@contextmanager
def _typed_errors(path: str) -> Generator[None]:
    try:
        yield
    except StreamllError:
        raise
    except sqlite3.DatabaseError as error:
        name: str = getattr(error, "sqlite_errorname", "")
        if name.startswith(_AWAY):
            raise Unreachable(f"SQLite cannot write {path!r} now: {error}.") from error
        raise Refused(
            f"SQLite refuses {path!r}: {error}. Expected a file this process may read and write, "
            "or none yet in a directory that exists."
        ) from error


async def off_loop[**A, R](call: Callable[A, R], *args: A.args, **kwargs: A.kwargs) -> R:
    """Run `call` in a thread, and see it through even if cancelled: its connection is closed next."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


# --- waiting ------------------------------------------------------------------------------------------------


class Bell:
    """Wakes the readers of a target that are in this process."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def ring(self) -> None:
        for event, loop in tuple(self._waiting.items()):
            with suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(event.set)

    @contextmanager
    def heard(self) -> Generator[asyncio.Event]:
        event = asyncio.Event()
        self._waiting[event] = asyncio.get_running_loop()
        try:
            yield event
        finally:
            del self._waiting[event]


@cache
def bell(path: str, target: str) -> Bell:
    """Return the one bell of a target in a file."""
    return Bell()


class Changes:
    """Waits until something may have changed in the file since it was read."""

    def __init__(self, db: Db, rung: asyncio.Event) -> None:
        self._db = db
        self._rung = rung
        self._version: object = None
        self._look = _LOOKS[0]

    def found(self) -> None:
        """Look often again: something of the reader's own came."""
        self._look = _LOOKS[0]

    async def wait(self, seconds: float | None = None) -> None:
        """Return when the bell has rung, another connection has written, or `seconds` have passed.

        A busy file changes all the time for other targets' sake: until `found`, looks become fewer.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._rung.is_set():
            pause = self._look if deadline is None else min(self._look, deadline - time.monotonic())
            if pause <= 0:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._rung.wait(), pause)
            self._look = min(_LOOKS[1], self._look * 1.5)
            if self._written():
                break
        self._rung.clear()

    def _written(self) -> bool:
        before = self._version
        with self._db.use():
            self._version = (self._db.connected, *self._db.row("PRAGMA data_version"))
        return self._version != before
