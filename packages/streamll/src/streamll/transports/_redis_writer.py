"""The writer of a log in Redis: what it sends for a batch, and when it cuts what retention lets go of."""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import chain
from typing import Any

from streamll.core.events import Event
from streamll.errors import StreamllError
from streamll.transports._redis_places import milliseconds
from streamll.transports._redis_scripts import Command, Keys, Value
from streamll.transports._redis_server import Server, Wire, pack
from streamll.transports.base import Entry, Retention

_BATCH = (512, 1_000_000)  # events and bytes: a script holds up the whole server, about 5 ms of it
_BURST = (4_096, 4_000_000)
_FEW = 16  # a script is cheaper for them than a transaction
_UNAVAILABLE = ("NOPERM", "ERR")  # not allowed by the ACL, not known to a proxy
_CUTS = 100  # executions a round
_TIDY_SECONDS = 1.0
_TOMBSTONE = timedelta(days=1)

type _Runs = Mapping[str, Sequence[Entry]]
"""The entries of each execution."""


class Writer:
    """Sends a batch in one round trip, and about once a second what retention asks for."""

    pace = 0.0

    def __init__(self, server: Server, keys: Keys, retention: Retention) -> None:
        self._wire = Wire(server)
        self._keys = keys
        self._retention = retention
        self._may_burst: bool | None = None
        self._tidy_at = 0.0
        keep = 0 if retention.age is None else milliseconds(4 * retention.age + timedelta(hours=1))
        self._lives = (keep and keep + milliseconds(retention.abandoned), keep)

    def append(self, entries: Sequence[Entry]) -> None:
        for burst in _batches(entries, *_BURST):
            if not self._burst(burst):
                for batch in _batches(burst, *_BATCH):
                    self._wire.ask(self._script(batch))
        if time.monotonic() >= self._tidy_at:
            self._tidy()

    def rest(self) -> None:
        if self._wire.is_open:
            with suppress(StreamllError):
                self._tidy()

    def close(self) -> None:
        self._wire.close()

    abandon = close  # redis-py closes the descriptor only, and says nothing, if it is another process's

    def _script(self, batch: Sequence[Entry]) -> Command:
        """Return the command that stores of `batch` what is not there yet."""
        runs = _runs(batch)
        place = {name: number for number, name in enumerate(runs, 1)}
        events = [(place[event.execution_id], event.sequence + 1, body) for event, body in batch]
        heads = (*self._lives, len(runs), *_heads(runs))
        return self._keys.append(runs, *heads, *chain.from_iterable(events))

    def _burst(self, entries: Sequence[Entry]) -> bool:
        """Store all of `entries` by a transaction, or nothing if the server has some of them already."""
        if len(entries) < _FEW or not self._transacts():
            return False
        runs = _runs(entries)
        if not all(map(_ascends, runs.values())):
            return False
        firsts = {name: its[0].event.sequence + 1 for name, its in runs.items()}
        before = (*self._keys.protection(firsts), ("MULTI",))
        adds = self._keys.additions([body for _, body in entries])
        keep = self._keys.burst(runs, *self._lives, len(runs), *_heads(runs), *_sums(runs))
        packed = (*map(pack, before), adds, pack(keep), pack(("EXEC",)))
        done: list[Any] | Exception | None = self._wire.ask_all(
            *packed, number=len(before) + len(entries) + 2
        )[-1]
        return isinstance(done, list) and not any(isinstance(one, Exception) for one in done)

    def _transacts(self) -> bool:
        """Return whether there are transactions for us; else what was meant as one is stored in pieces."""
        if self._may_burst is None:
            asked = (("WATCH", self._keys.log), ("MULTI",), ("EXEC",))
            said = self._wire.ask_all(*map(pack, asked), number=len(asked))
            self._may_burst = not any(str(one).startswith(_UNAVAILABLE) for one in said)
        return self._may_burst

    def _tidy(self) -> None:
        """Cut what retention lets go of; in the next batch again if that is more than one round."""
        keep, keys = self._retention, self._keys
        age = "" if keep.age is None else milliseconds(keep.age)
        most, biggest = ("" if limit is None else limit for limit in (keep.events, keep.bytes))
        asked = keys.tidy(age, most, biggest, milliseconds(keep.abandoned), _CUTS)
        due: list[str] = [execution.decode() for execution in self._wire.ask(asked)]
        if due:
            self._wire.ask(keys.cutting(due, milliseconds(max(keep.age or _TOMBSTONE, _TOMBSTONE))))
        self._tidy_at = time.monotonic() + (_TIDY_SECONDS if len(due) < _CUTS else 0)


def _batches(entries: Sequence[Entry], most: int, most_bytes: int) -> Generator[Sequence[Entry]]:
    begin = size = 0
    for end, entry in enumerate(entries):
        size += len(entry.body)
        if end - begin == most or (size > most_bytes and end > begin):
            yield entries[begin:end]
            begin, size = end, len(entry.body)
    if begin < len(entries):
        yield entries[begin:]


def _runs(entries: Sequence[Entry]) -> _Runs:
    runs: dict[str, list[Entry]] = {}
    for entry in entries:
        runs.setdefault(entry.event.execution_id, []).append(entry)
    return runs


def _ascends(its: Sequence[Entry]) -> bool:
    sequences = [event.sequence for event, _ in its]
    return sequences == sorted(set(sequences))


def _heads(runs: _Runs) -> list[Value]:
    """Return of each execution its id, when it started, and whether it ends here."""
    heads: list[Value] = []
    for name, its in runs.items():
        heads += (name, _started(its[0].event), int(any(event.is_last for event, _ in its)))
    return heads


def _sums(runs: _Runs) -> list[Value]:
    """Return of each execution the number of its last event, how many, their size, their bodies."""
    sums: list[Value] = []
    for its in runs.values():
        bodies = [body for _, body in its]
        sums += (its[-1].event.sequence + 1, len(its), sum(map(len, bodies)), b"\n".join(bodies))
    return sums


def _started(event: Event) -> int:
    return round(event.timestamp.timestamp() * 1e6)
