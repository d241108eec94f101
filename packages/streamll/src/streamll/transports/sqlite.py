"""Events in an SQLite file: the log of one machine, for any number of processes, without a server.

WAL mode, one transaction a batch. A committed batch survives a killed process; a power failure may take the
last ones (`synchronous=NORMAL`). Readers in the process that writes are woken by it. To others SQLite has no
way to ring: they look at `PRAGMA data_version`, which costs microseconds, every 1 to 25 ms.
"""

import os
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from typing import NamedTuple, cast
from urllib.parse import unquote, urlsplit

from streamll.core.events import Event, decode
from streamll.errors import BadUrl, EventsExpired, Unreachable
from streamll.transports._sqlite_file import Changes, Db, bell, off_loop
from streamll.transports.base import (
    DeadLetter,
    Delivery,
    Entry,
    Group,
    Page,
    Retention,
    Start,
    Subscription,
    Summary,
    decode_letter,
    encode_letter,
    summary,
)

_PAGE = 512
_CUT_SECONDS = 1.0
_TOMBSTONES = 10_000
_DEAD_LETTERS = 10_000
_SUSPECT = 3  # at the third attempt

_TABLES = """
CREATE TABLE IF NOT EXISTS {t} (
  position INTEGER PRIMARY KEY AUTOINCREMENT, execution_id TEXT NOT NULL, sequence INTEGER NOT NULL,
  time INTEGER NOT NULL, body TEXT NOT NULL, UNIQUE (execution_id, sequence));
CREATE INDEX IF NOT EXISTS {time} ON {t} (time);
CREATE TABLE IF NOT EXISTS {executions} (
  execution_id TEXT PRIMARY KEY, started INTEGER NOT NULL, touched INTEGER NOT NULL, ended INTEGER,
  events INTEGER NOT NULL, bytes INTEGER NOT NULL, last TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS {started} ON {executions} (started) WHERE last IS NULL;
CREATE INDEX IF NOT EXISTS {ended} ON {executions} (ended) WHERE last IS NULL;
CREATE INDEX IF NOT EXISTS {cut} ON {executions} (ended) WHERE last IS NOT NULL;
CREATE TABLE IF NOT EXISTS {state} (one INTEGER PRIMARY KEY CHECK (one = 1), trimmed INTEGER NOT NULL);
INSERT OR IGNORE INTO {state} VALUES (1, 0);
CREATE TABLE IF NOT EXISTS {groups} (
  name TEXT PRIMARY KEY, position INTEGER NOT NULL, told INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS {held} (
  name TEXT NOT NULL, position INTEGER NOT NULL, until REAL NOT NULL, attempts INTEGER NOT NULL,
  PRIMARY KEY (name, position)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS {until} ON {held} (name, until);
CREATE TABLE IF NOT EXISTS {dead} (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL);
"""
"""`last` holds the last event of an execution that was cut; `trimmed` is the highest position ever cut."""

_PARTS = ("time", "executions", "started", "ended", "cut", "state", "groups", "held", "until", "dead")


class Backend:
    """A log in a file: `sqlite:///events.db` (beside the process), `sqlite:////var/lib/events.db`."""

    def __init__(self, url: str, target: str, retention: Retention) -> None:
        self.target = target
        self.retention = retention
        self.path = _path(url)
        self.names = {"t": _quoted(target)} | {part: _quoted(f"{target}.{part}") for part in _PARTS}

    def connect(self) -> Db:
        """Return a connection of its own."""
        return Db(self.path, self.names, self._prepare)

    def _prepare(self, db: Db) -> None:
        if db.row("SELECT 1 FROM sqlite_master WHERE name = ?", f"{self.target}.dead") is None:
            for statement in _TABLES.split(";"):
                db.run(statement)

    @contextmanager
    def connected(self) -> Generator[Db]:
        db = self.connect()
        try:
            yield db
        finally:
            db.close()

    def writer(self) -> "Writer":
        return Writer(self)

    async def read(self, execution_id: str, after: int) -> AsyncGenerator[Sequence[bytes]]:
        with self.connected() as db, bell(self.path, self.target).heard() as rung:
            changes = Changes(db, rung)
            after = await off_loop(_beginning, db, execution_id, after)
            yield ()
            while True:
                rows = await off_loop(_page, db, execution_id, after)
                if rows:
                    changes.found()
                    after = rows[-1][0]
                    yield [body for _, body in rows]
                else:
                    await changes.wait()

    @asynccontextmanager
    async def follow(self, start: Start, group: Group | None) -> AsyncGenerator[Subscription]:
        with self.connected() as db, bell(self.path, self.target).heard() as rung:
            place = await off_loop(self._place, db, start)
            kind = _Alone if group is None else _Member
            follower = await off_loop(kind, self, db, Changes(db, rung), place, cast("Group", group))
            try:
                yield follower
            finally:
                await follower.release(follower.untaken)

    def _place(self, db: Db, start: Start) -> "_Place":
        """Return the place after which a follower begins."""
        with db.use():
            if start == "earliest":
                return _Place(-1, *db.row("SELECT trimmed FROM {state}"))
            if isinstance(start, datetime):
                first = "SELECT position FROM {t} WHERE time >= ? ORDER BY time LIMIT 1"
                if found := db.row(first, _microseconds(start)):
                    return _Place(found[0] - 1)
            elif start != "latest":
                return _cursor(start)
            used = db.row("SELECT seq FROM sqlite_sequence WHERE name = ?", self.target)
            return _Place(used[0] if used else 0)

    async def executions(self, limit: int) -> Sequence[Summary]:
        return await off_loop(self._executions, limit)

    def _executions(self, limit: int) -> list[Summary]:
        body = "(SELECT body FROM {{t}} WHERE execution_id = e.execution_id ORDER BY sequence {} LIMIT 1)"
        asked = (
            f"SELECT {body.format('')}, {body.format('DESC')}, events"
            " FROM {executions} e WHERE last IS NULL ORDER BY started DESC LIMIT ?"
        )
        with self.connected() as db, db.use():
            rows = db.rows(asked, limit)
        return [summary(decode(first), decode(last), events) for first, last, events in rows]

    async def bury(self, letter: DeadLetter) -> None:
        await off_loop(self._bury, encode_letter(letter).decode())

    def _bury(self, letter: str) -> None:
        with self.connected() as db, db.transaction():
            row = db.run("INSERT INTO {dead} (body) VALUES (?)", letter).lastrowid or 0
            db.run("DELETE FROM {dead} WHERE id <= ?", row - _DEAD_LETTERS)

    async def dead_letters(self, limit: int) -> Sequence[DeadLetter]:
        with self.connected() as db, db.use():
            rows = db.rows("SELECT body FROM {dead} ORDER BY id DESC LIMIT ?", limit)
        return [decode_letter(body) for (body,) in rows]


# --- writing ------------------------------------------------------------------------------------------------


class Writer:
    """Appends a batch in one transaction, and cuts what retention lets go of."""

    pace = 0.005

    def __init__(self, backend: Backend) -> None:
        self._db = backend.connect()
        self._bell = bell(backend.path, backend.target)
        self._retention = backend.retention
        self._next_cut = 0.0

    def append(self, entries: Sequence[Entry]) -> None:
        try:
            self._db.follow_file()
            with self._db.transaction():
                _insert(self._db, entries)
                if time.monotonic() >= self._next_cut:
                    _cut(self._db, self._retention)
                    self._next_cut = time.monotonic() + _CUT_SECONDS
        except Unreachable:
            self.close()
            raise
        self._bell.ring()

    def rest(self) -> None:
        return

    def close(self) -> None:
        self._db.close()

    def abandon(self) -> None:
        return  # the connection was closed before the fork


def _insert(db: Db, entries: Sequence[Entry]) -> None:
    """Insert what is not there yet, and keep the account of each execution."""
    rows = [
        (event.execution_id, event.sequence, _microseconds(event.timestamp), body.decode())
        for event, body in entries
    ]
    into = "INSERT OR IGNORE INTO {t} (execution_id, sequence, time, body) VALUES (?, ?, ?, ?)"
    inserted = db.many(into, rows)
    upsert = (
        "INSERT INTO {executions} (execution_id, started, touched, ended, events, bytes) VALUES (?,?,?,?,?,?)"
        " ON CONFLICT DO UPDATE SET touched = max(touched, excluded.touched),"
        " ended = coalesce(excluded.ended, ended), events = events + excluded.events,"
        " bytes = bytes + excluded.bytes"
    )
    by_execution: dict[str, list[tuple[Event, int, int]]] = {}
    for (event, body), (name, _, moment, _) in zip(entries, rows, strict=True):
        by_execution.setdefault(name, []).append((event, moment, len(body)))
    db.many(upsert, [(name, *_account(its)) for name, its in by_execution.items()])
    if inserted != len(rows):  # some were there: count again
        counted = "SELECT count(*), coalesce(sum(length(body)), 0) FROM {t} WHERE execution_id = ?"
        again = [(*db.row(counted, name), name) for name in by_execution]
        db.many("UPDATE {executions} SET events = ?, bytes = ? WHERE execution_id = ?", again)


def _account(its: Sequence[tuple[Event, int, int]]) -> tuple[int, int, int | None, int, int]:
    """Return what a batch says of an execution: started, touched, ended, events, bytes."""
    last, touched, _ = its[-1]
    return its[0][1], touched, touched if last.is_last else None, len(its), sum([size for _, _, size in its])


def _cut(db: Db, keep: Retention) -> None:
    """Cut the executions that ended first, as far as retention says."""
    now = time.time_ns() // 1000
    silent = "UPDATE {executions} SET ended = touched WHERE ended IS NULL AND last IS NULL AND touched < ?"
    db.run(silent, now - _span(keep.abandoned))
    events, size = 0, 0
    if keep.events is not None or keep.bytes is not None:
        events, size = db.row("SELECT sum(events), sum(bytes) FROM {executions} WHERE last IS NULL")
    oldest = 0 if keep.age is None else now - _span(keep.age)
    over = (
        "SELECT execution_id, events, bytes, ended FROM {executions}"
        " WHERE last IS NULL AND ended IS NOT NULL ORDER BY ended"
    )
    for name, its_events, its_bytes, ended in db.run(over):
        too_many = keep.events is not None and events > keep.events
        too_big = keep.bytes is not None and size > keep.bytes
        if not (too_many or too_big or ended < oldest):
            break
        _cut_execution(db, name.decode())
        events, size = events - its_events, size - its_bytes
    forgotten = (
        "DELETE FROM {executions} WHERE execution_id IN (SELECT execution_id FROM {executions}"
        " WHERE last IS NOT NULL ORDER BY ended DESC LIMIT -1 OFFSET ?)"
    )
    db.run(forgotten, _TOMBSTONES)


def _cut_execution(db: Db, name: str) -> None:
    """Delete its events; the last one stays, beside them, for readers that have all the others."""
    last = "(SELECT body FROM {t} WHERE execution_id = ? ORDER BY sequence DESC LIMIT 1)"
    db.run(f"UPDATE {{executions}} SET last = coalesce({last}, '') WHERE execution_id = ?", name, name)
    highest = "(SELECT coalesce(max(position), 0) FROM {t} WHERE execution_id = ?)"
    db.run(f"UPDATE {{state}} SET trimmed = max(trimmed, {highest})", name)
    db.run("DELETE FROM {t} WHERE execution_id = ?", name)


# --- reading ------------------------------------------------------------------------------------------------


def _beginning(db: Db, execution_id: str, after: int) -> int:
    """Return the sequence to read after: `after`, or less if the end is there, or comes, before that."""
    with db.use():
        asked = "SELECT ended IS NOT NULL, last FROM {executions} WHERE execution_id = ?"
        known = db.row(asked, execution_id)
        if known is None:
            return -1
        has_ended, cut = known
        if cut is not None:
            return after
        (highest,) = db.row("SELECT max(sequence) FROM {t} WHERE execution_id = ?", execution_id)
        return min(after, highest - has_ended)


def _page(db: Db, execution_id: str, after: int) -> list[tuple[int, bytes]]:
    """Return the next events, or the one that was spared when the others were cut."""
    asked = "SELECT sequence, body FROM {t} WHERE execution_id = ? AND sequence > ? ORDER BY sequence LIMIT ?"
    with db.transaction("DEFERRED"):
        rows = db.rows(asked, execution_id, after, _PAGE)
        cut = db.row("SELECT last FROM {executions} WHERE execution_id = ? AND last > ''", execution_id)
    if rows or cut is None:
        return rows
    last = decode(cut[0])
    if after < last.sequence - 1:
        raise EventsExpired(
            f"Events of execution {execution_id!r:.80} after sequence {after} were cut by retention; "
            f"sequence {last.sequence} is the first there is.",
            last.sequence,
        )
    return [(last.sequence, cut[0])]


class _Place(NamedTuple):
    """A position, and the highest cut that its follower was told of: what was spared below it still comes."""

    position: int
    told: int = 0

    def __str__(self) -> str:
        return f"{self.position}~{self.told}" if self.told > self.position else str(self.position)


def _cursor(text: str) -> _Place:
    position, _, told = text.partition("~")
    if not (position + told).isdecimal():
        raise BadUrl(f"{text!r:.80} is no place to start: expected latest, earliest, a moment or a cursor.")
    return _Place(int(position), int(told or 0))


class _Follower:
    """What followers of both kinds have."""

    def __init__(self, backend: Backend, db: Db, changes: Changes, place: _Place, group: Group) -> None:
        self._db = db
        self._changes = changes
        self._place = place
        self._group = group
        self._target = backend.target
        self._bell = bell(backend.path, backend.target)
        self.untaken: Sequence[Delivery] = ()  # handed out to who no longer waited
        with db.transaction():
            self._enter()

    def _enter(self) -> None:
        self._check()

    def _check(self) -> None:
        """Raise if something after the place was cut; -1 is a follower that takes what is there."""
        (trimmed,) = self._db.row("SELECT trimmed FROM {state}")
        if 0 <= self._place.position < trimmed and self._place.told < trimmed:
            left = _Place(self._place.position, trimmed)
            raise EventsExpired(
                f"Events of {self._target!r:.80} after cursor {left.position} were cut by retention; "
                f"follow from {str(left)!r} for what is left.",
                str(left),
            )


class _Alone(_Follower):
    """A follower that sees everything."""

    @property
    def cursor(self) -> str | None:
        return str(self._place) if self._place.position >= 0 else None

    async def next(self) -> Sequence[Delivery]:
        while not (rows := await off_loop(self._page)):
            await self._changes.wait()
        self._changes.found()
        self._place = _Place(rows[-1][0], self._place.told)
        return [Delivery(body, str(_Place(position, self._place.told))) for position, body in rows]

    def _page(self) -> list[tuple[int, bytes]]:
        with self._db.transaction("DEFERRED"):
            self._check()
            asked = "SELECT position, body FROM {t} WHERE position > ? ORDER BY position LIMIT ?"
            return self._db.rows(asked, self._place.position, _PAGE)

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        return

    renew = release = settle


class _Member(_Follower):
    """A member of a group: what it holds is in a table, with the moment from which others may take it."""

    cursor = None

    def _enter(self) -> None:
        self._page = Page()
        self._db.run("INSERT OR IGNORE INTO {groups} VALUES (?, ?, ?)", self._group.name, *self._place)

    async def next(self) -> Sequence[Delivery]:
        page = self._page.asked()
        while not await off_loop(self._take, page):
            await self._changes.wait(await off_loop(self._next_claim))
        self._changes.found()
        taken, self.untaken = self.untaken, ()
        self._page.took(len(taken))
        return taken

    def _take(self, page: int) -> Sequence[Delivery]:
        db, expired, name = self._db, None, self._group.name
        with db.transaction():
            taken = self._claimed(page)
            if not taken:
                try:
                    taken = self._fresh(page)
                except EventsExpired as error:
                    expired = error  # told once: that it was, is to be committed
            until = time.time() + self._group.claim_after.total_seconds()
            held = [(name, position, until, attempts) for position, attempts in taken]
            db.many("INSERT OR REPLACE INTO {held} VALUES (?, ?, ?, ?)", held)
            bodies = [db.row("SELECT body FROM {t} WHERE position = ?", position)[0] for position, _ in taken]
        if expired:
            raise expired
        both = zip(taken, bodies, strict=True)
        self.untaken = [Delivery(body, str(place), tries, place) for (place, tries), body in both]
        return self.untaken

    def _claimed(self, page: int) -> list[tuple[int, int]]:
        """Return what other members held for too long, with the number of this attempt."""
        there = "(SELECT 1 FROM {t} WHERE position = {held}.position)"
        self._db.run(f"DELETE FROM {{held}} WHERE name = ? AND NOT EXISTS {there}", self._group.name)
        late = (
            "SELECT position, attempts + 1 FROM {held}"
            " WHERE name = ? AND until <= ? ORDER BY position LIMIT ?"
        )
        rows = self._db.rows(late, self._group.name, time.time(), page)
        # Members died of one of those, perhaps: the next one shall not take others with it.
        return [row for row in rows if row[1] < _SUSPECT] or rows[:1]

    def _fresh(self, page: int) -> list[tuple[int, int]]:
        """Move the group's place on, and return the positions it passed."""
        db, name = self._db, self._group.name
        self._place = _Place(*db.row("SELECT position, told FROM {groups} WHERE name = ?", name))
        try:
            self._check()
        except EventsExpired:
            db.run("UPDATE {groups} SET told = (SELECT trimmed FROM {state}) WHERE name = ?", name)
            raise
        fresh = "SELECT position, 1 FROM {t} WHERE position > ? ORDER BY position LIMIT ?"
        rows = db.rows(fresh, self._place.position, page)
        if rows:
            db.run("UPDATE {groups} SET position = ? WHERE name = ?", rows[-1][0], name)
        return rows

    def _next_claim(self) -> float | None:
        """Return in how many seconds something may be claimed from another member."""
        with self._db.use():
            (until,) = self._db.row("SELECT min(until) FROM {held} WHERE name = ?", self._group.name)
        return None if until is None else max(0.0, until - time.time())

    async def settle(self, deliveries: Sequence[Delivery]) -> None:
        await off_loop(self._change, "DELETE FROM {held} WHERE name = ? AND position = ?", deliveries)

    async def renew(self, deliveries: Sequence[Delivery]) -> None:
        until = time.time() + self._group.claim_after.total_seconds()
        held = f"UPDATE {{held}} SET until = {until} WHERE name = ? AND position = ?"
        await off_loop(self._change, held, deliveries)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await off_loop(
            self._change,
            "UPDATE {held} SET until = 0, attempts = attempts - 1 WHERE name = ? AND position = ?",
            deliveries,
        )
        self._bell.ring()

    def _change(self, statement: str, deliveries: Sequence[Delivery]) -> None:
        with self._db.transaction():
            self._db.many(statement, [(self._group.name, delivery.handle) for delivery in deliveries])


# --- names and numbers --------------------------------------------------------------------------------------


def _path(url: str) -> str:
    parts = urlsplit(url)
    path = unquote(parts.path)[1:]
    if parts.netloc or not path:
        raise BadUrl(f"{url!r:.80} names no file; write sqlite:///events.db or sqlite:////var/lib/events.db.")
    return os.path.abspath(path)  # what it means must not change with the process's directory


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def _span(length: timedelta) -> int:
    return min(length // timedelta(microseconds=1), 2**62)
