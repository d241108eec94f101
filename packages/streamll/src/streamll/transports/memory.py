"""Events in the memory of this process: the SQLite transport without a file."""

from urllib.parse import quote, unquote, urlsplit

from streamll.transports import sqlite
from streamll.transports._sqlite_file import Db
from streamll.transports.base import Retention


class Backend(sqlite.Backend):
    """A log that lives as long as the process: `memory:`, or `memory:name` for several."""

    def __init__(self, url: str, target: str, retention: Retention) -> None:
        super().__init__("sqlite:///memory", target, retention)
        name = unquote(urlsplit(url).path) or "streamll"
        # SQLite's memdb: connections of this process that name the same path share one database.
        self.path = f"file:/{quote(name, safe='')}?vfs=memdb"
        if self.path not in _kept:
            _kept[self.path] = self.connect()
            with _kept[self.path].use():
                pass


_kept: dict[str, Db] = {}
"""A connection to each: with the last one, the database would go."""
