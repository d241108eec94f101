"""Where things are in a stream of Redis: ids, moments, what was cut, and entries as they come."""

import re
from datetime import datetime, timedelta
from typing import Any, cast

from streamll.errors import BadUrl, EventsExpired
from streamll.transports.base import Start

type Rows = list[tuple[bytes, list[bytes]]]
"""Entries of a stream: their ids, and their fields and values in turn."""

NOTHING = b"0-0"


def rows_of(reply: Any) -> Rows:
    """Return the entries in a reply to XREAD of one stream."""
    return cast("Rows", reply[0][1]) if reply else []


def lines(body: bytes) -> list[bytes]:
    """Return the events in an entry of an execution's stream."""
    return body.split(b"\n")


def id_of(text: str | bytes) -> tuple[int, int]:
    milliseconds, _, number = (text if isinstance(text, str) else text.decode()).partition("-")
    return int(milliseconds), int(number)


def milliseconds(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


def place(start: Start, newest: bytes | None, cut: bytes | None) -> str:
    """Return the id after which a follower begins."""
    if isinstance(start, datetime):
        moment = f"{max(1, int(start.timestamp() * 1000)) - 1}-{2**64 - 1}"
        return max(moment, (cut or NOTHING).decode(), key=id_of)
    ends = {"latest": newest or NOTHING, "earliest": cut or NOTHING}
    if start not in ends and not re.fullmatch(r"\d+-\d+", start):
        raise BadUrl(f"{start!r:.80} is no place to start: expected latest, earliest, a moment or a cursor.")
    return ends[start].decode() if start in ends else start


def expired(cursor: str, cut: bytes | None, log: str) -> EventsExpired | None:
    return gap(log, cut, cursor) if cut and id_of(cursor) < id_of(cut) else None


def gap(log: str, cut: bytes, cursor: str = "of the group") -> EventsExpired:
    left = cut.decode()
    return EventsExpired(
        f"Events of {log!r:.80} after cursor {cursor} were cut by retention; follow from {left!r}.", left
    )


def check_whole(rows: Rows, after: int, execution_id: str) -> None:
    """Raise if events after `after` have been cut; the tombstone comes before what is left."""
    entry_id, fields = rows[0]
    last = id_of(entry_id)[0] - 1
    if fields[0] == b"cut" and after < last - 1:
        raise EventsExpired(
            f"Events of execution {execution_id!r:.80} after sequence {after} were cut by retention; "
            f"sequence {last} is the first there is.",
            last,
        )
