"""A file that holds events while their server is away: first in, first out, and it outlives the process."""

import fcntl
import os
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

_SCHEMA = "CREATE TABLE IF NOT EXISTS spill (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL)"


class Spill:
    """A queue of wire forms in an SQLite file, which belongs to one process at a time.

    A lock on the file beside it says so; the system lets go of it when the process dies, however it dies. So
    a spill whose lock is free is nobody's, and who finds it may send what is in it. The SQLite file is open
    only while it is used, because SQLite forbids carrying an open one over a fork; and not in WAL mode, in
    which even reading takes space on the disk.

    Raises:
        OSError, sqlite3.Error: From every method: the directory or the disk does not allow it.
        BlockingIOError: The spill is another's.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        self._removed = 0
        fresh = not path.exists()
        self._lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # prompts are in it
            with self._open() as db:
                db.execute(_SCHEMA)
                counted = "SELECT count(*), coalesce(sum(length(body)), 0) FROM spill"
                self.events, self.bytes = db.execute(counted).fetchone()
        except BaseException:  # whatever it was, the lock is not kept
            if fresh:
                self._unlink()
            os.close(self._lock)
            raise

    @classmethod
    def orphan(cls, path: Path) -> Self | None:
        """Open the spill that a dead process left behind; None when it is not to be had."""
        try:
            return cls(path)
        except (OSError, sqlite3.Error):
            return None

    @contextmanager
    def _open(self) -> Generator[sqlite3.Connection]:
        db = sqlite3.connect(self.path)
        try:
            with db:  # commits, or rolls back
                yield db
        finally:
            db.close()

    def append(self, bodies: Sequence[bytes]) -> None:
        with self._open() as db:
            db.executemany("INSERT INTO spill (body) VALUES (?)", [(body,) for body in bodies])
        self.events += len(bodies)
        self.bytes += sum(map(len, bodies))

    def first(self, number: int, size: int) -> list[tuple[int, bytes]]:
        """Return the oldest, up to `number` or a little over `size` bytes, with the ids to remove them by."""
        rows: list[tuple[int, bytes]] = []
        with self._open() as db:
            oldest = "SELECT id, body FROM spill WHERE id > ? ORDER BY id LIMIT ?"
            for row in db.execute(oldest, (self._removed, number)):
                rows.append(row)
                size -= len(row[1])
                if size <= 0:
                    break
        return rows

    def remove(self, rows: Sequence[tuple[int, bytes]]) -> None:
        """Remove the rows that `first` returned; on a full disk they stay, and this process forgets them."""
        self._removed = rows[-1][0]
        with suppress(sqlite3.Error), self._open() as db:
            db.execute("DELETE FROM spill WHERE id <= ?", (self._removed,))
        self.events -= len(rows)
        self.bytes -= sum(len(body) for _, body in rows)

    def close(self) -> None:
        """Let go of it; an empty one is deleted."""
        if not self.events:
            self._unlink()
        os.close(self._lock)

    def _unlink(self) -> None:
        for suffix in (".db", ".db-journal", ".lock"):
            self.path.with_suffix(suffix).unlink(missing_ok=True)

    def abandon(self) -> None:
        """Leave it to the process this one was forked from."""
        os.close(self._lock)


def default_directory() -> Path:
    """Return where spills are kept unless said: `$STREAMLL_SPILL`, or the user's directory for state."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(os.environ.get("STREAMLL_SPILL") or Path(state, "streamll")).expanduser()
