"""What a sink had to drop, and the `gap` events that say so in the log of each execution."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from streamll.core.events import Event, encode
from streamll.transports.base import Entry

_MOST = 10_000
"""Executions with gaps that are remembered; past that the oldest gap is only in the count."""


@dataclass(slots=True)
class Gap:
    """Events `first` to `last` of an execution, `count` of them: a filter may have left holes before.

    `place` is where they were dropped: what is dropped at one place, one after the other, is one gap.
    """

    execution_id: str
    place: int
    first: int
    last: int
    count: int = 1
    ended: bool = False

    def overlaps(self, other: "Gap") -> bool:
        return self.first <= other.last and other.first <= self.last

    def joined(self, other: "Gap") -> "Gap":
        return Gap(
            self.execution_id,
            other.place,
            min(self.first, other.first),
            max(self.last, other.last),
            self.count + other.count,
            self.ended or other.ended,
        )

    def entry(self) -> Entry:
        event = Event(
            event_id=f"{self.execution_id}-{self.last}",
            execution_id=self.execution_id,
            sequence=self.last,
            timestamp=datetime.now(UTC),
            event_type="gap",
            data={"first": self.first, "last": self.last, "count": self.count, "ended": self.ended},
        )
        return Entry(event, encode(event))


class Gaps:
    """Dropped events, by execution, until their markers are in the log."""

    def __init__(self) -> None:
        self._gaps: dict[str, list[Gap]] = {}

    def __bool__(self) -> bool:
        return bool(self._gaps)

    def add(self, event: Event, place: int) -> None:
        """Take down that `event` was dropped at `place`; a marker counts for what it says."""
        first = int(str(event.data["first"])) if event.event_type == "gap" else event.sequence
        count = int(str(event.data["count"])) if event.event_type == "gap" else 1
        new = Gap(event.execution_id, place, first, event.sequence, count, event.is_last)
        self._put(new)
        if len(self._gaps) > _MOST:
            del self._gaps[next(iter(self._gaps))]

    def restore(self, gaps: Iterable[Gap]) -> None:
        """Take back gaps whose markers could not be sent."""
        for gap in gaps:
            self._put(gap)

    def _put(self, new: Gap) -> None:
        """Insert by sequence; what was dropped at one place, or overlaps, becomes one."""
        gaps = self._gaps.setdefault(new.execution_id, [])
        while old := next((gap for gap in gaps if gap.place == new.place or gap.overlaps(new)), None):
            gaps.remove(old)
            new = old.joined(new)
        gaps.append(new)
        gaps.sort(key=lambda gap: gap.first)

    def take(
        self, entries: Sequence[Entry], *, all_of_them: bool, heads: bool = True
    ) -> tuple[Sequence[Entry], Sequence[Gap]]:
        """Return `entries` with each marker before what follows its gap, and the gaps that are in them.

        `heads` False: but those of what the spill dropped, which belong before all of it. `all_of_them`:
        nothing comes after `entries`, so markers of gaps after which nothing came are due too.
        """
        if not self._gaps:
            return entries, ()
        marked: list[Entry] = []
        taken: list[Gap] = []
        for entry in entries:
            due = self._due(entry.event.execution_id, entry.event.sequence, heads=heads)
            marked += [*(gap.entry() for gap in due), entry]
            taken += due
        if all_of_them:
            rest = [gap for gaps in self._gaps.values() for gap in gaps]
            self._gaps.clear()
            marked += [gap.entry() for gap in rest]
            taken += rest
        return marked, taken

    def take_heads(self) -> Sequence[Gap]:
        """Return the gaps that the spill dropped from its head, older than all that waits."""
        heads = [gap for gaps in self._gaps.values() for gap in gaps if gap.place == 0]
        for gap in heads:
            self._remove(gap)
        return heads

    def _due(self, execution_id: str, sequence: int, *, heads: bool) -> list[Gap]:
        gaps = self._gaps.get(execution_id, ())
        due = [gap for gap in gaps if gap.first < sequence and (heads or gap.place != 0)]
        for gap in due:
            self._remove(gap)
        return due

    def _remove(self, gap: Gap) -> None:
        gaps = self._gaps[gap.execution_id]
        gaps.remove(gap)
        if not gaps:
            del self._gaps[gap.execution_id]
