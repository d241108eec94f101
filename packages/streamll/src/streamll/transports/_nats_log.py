"""A log in NATS JetStream: what its streams and subjects are called, and what is asked of them."""

import asyncio
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

from nats.aio.msg import Msg

from streamll.core.events import Event, decode
from streamll.errors import BadEvent
from streamll.transports._nats_place import Place
from streamll.transports._nats_wire import Stored, Wire, token
from streamll.transports.base import DEFAULT_TARGET, begun

_DUPLICATE_WINDOW = 120 * 10**9  # nanoseconds in which the server itself refuses what it has already


class Run(NamedTuple):
    """An execution in the log: when it began, and how many messages each of its subjects has."""

    began: datetime
    token: str
    subjects: Mapping[str, int]

    @property
    def events(self) -> Sequence[str]:
        return [subject for subject in self.subjects if not _is_part(subject)]

    @property
    def number(self) -> int:
        return sum(self.subjects[subject] for subject in self.events)


def _is_part(subject: str) -> bool:
    return subject.count(".") > 2


class Log:
    """A log: one stream, whose subjects begin with `prefix`, and two small ones beside it."""

    def __init__(self, place: Place, target: str) -> None:
        self.place = place
        self.stream = token(target)
        self.prefix = "streamll" if target == DEFAULT_TARGET else self.stream
        if target == "streamll":
            self.prefix = "streamll="  # the plain one is the default target's

    def __repr__(self) -> str:
        return f"Log({self.place.shown!r}, {self.stream!r})"

    @contextmanager
    def wire(self) -> Generator[Wire]:
        with closing(Wire(self.place)) as wire:
            yield wire

    def ensured(self, wire: Wire) -> dict[str, Any]:
        """Return the state of the log's stream; makes it when it is not there."""
        config = {"subjects": [f"{self.prefix}.>"], "duplicate_window": _DUPLICATE_WINDOW}
        return wire.ensured(self.stream, **config)

    # subjects

    def subject(self, program: str, execution_id: str) -> str:
        """Return where the events of an execution go."""
        return f"{self.prefix}.{token(program)}.{token(execution_id)}"

    def all_of(self, execution_id: str) -> str:
        """Return the filter for the events of an execution."""
        return f"{self.prefix}.*.{token(execution_id)}"

    def last_of(self, run: Run) -> Mapping[str, str]:
        return {"last_by_subj": f"{self.prefix}.*.{run.token}"}

    def expired(self, execution_id: str) -> str:
        """Return the subject of what is left of an execution that was cut."""
        return f"{self.prefix}_expired.{token(execution_id)}"

    # reading

    @property
    def beat(self) -> int:
        """Nanoseconds between two signs of life from the server."""
        return int(max(0.1, min(self.place.seconds / 3, 10)) * 1e9)

    def consume(self, wire: Wire, inbox: str, **config: object) -> None:
        """Have messages sent to `inbox`, from where and of which subjects `config` says."""
        where = {"deliver_subject": inbox, "mem_storage": True, "num_replicas": 1}
        pace = {"idle_heartbeat": self.beat, "flow_control": True, "ack_policy": "none"}
        consumer = {**where, **pace, **config}
        wire.ask(f"CONSUMER.CREATE.{self.stream}", stream_name=self.stream, config=consumer)

    async def body(self, message: Msg) -> bytes:
        """Return what a message holds, or its parts."""
        parts: str | None = (message.headers or {}).get("Streamll-Parts")
        return await asyncio.to_thread(self._joined, parts) if parts else message.data

    def _joined(self, sequences: str) -> bytes:
        with self.wire() as wire:
            return wire.joined(self.stream, sequences)

    # listing

    def runs(self, wire: Wire) -> list[Run]:
        """Return all executions, oldest first."""
        subjects: dict[str, dict[str, int]] = {}
        for subject, number in self._counts(wire).items():
            subjects.setdefault(subject.split(".")[2], {})[subject] = number
        began = {name: begun(name) for name in subjects}
        foreign = [name for name, moment in began.items() if moment is None]
        firsts = [{"seq": 1, "next_by_subj": next(iter(subjects[name]))} for name in foreign]
        for name, first in zip(foreign, wire.stored(self.stream, firsts), strict=True):
            began[name] = first and first.time
        runs = [Run(began[name] or datetime.now(UTC), name, its) for name, its in subjects.items()]
        return sorted(runs, key=lambda run: run.began)

    def _counts(self, wire: Wire) -> Mapping[str, int]:
        """Return how many messages each subject has."""
        counts: dict[str, int] = {}
        asked: dict[str, object] = {"subjects_filter": f"{self.prefix}.>"}
        while page := wire.ask(f"STREAM.INFO.{self.stream}", **asked, offset=len(counts)):
            counts |= (some := page["state"].get("subjects") or {})
            if not some or len(counts) >= page.get("total", 0):
                break
        return counts


def event_of(stored: Stored | None) -> Event | None:
    try:
        return decode(stored.body) if stored else None
    except BadEvent:
        return None
