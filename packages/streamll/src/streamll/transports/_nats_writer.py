"""The writer of a log in NATS."""

import logging
from collections.abc import Sequence

from streamll.core.events import Event
from streamll.errors import Refused, StreamllError, Unreachable
from streamll.transports._nats_log import Log
from streamll.transports._nats_retention import Trimmer
from streamll.transports._nats_wire import Wire
from streamll.transports.base import Entry, Retention

logger = logging.getLogger("streamll")

_KNOWN_SUBJECTS = 4_096


class Writer:
    """Appends over a connection of its own, and cuts what retention lets go of."""

    pace = 0.0

    def __init__(self, log: Log, retention: Retention) -> None:
        self._log = log
        self._wire: Wire | None = None
        self._subjects: dict[str, str] = {}
        self._trimmer = Trimmer(log, retention)

    def append(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        try:
            wire = self._wire or self._connected()
            wire.publish(
                [wire.message(self._subject(event), event.event_id, body) for event, body in entries]
            )
        except BaseException:  # half a message may be out: nothing can follow it
            self.close()
            raise
        self._trim(wire)

    def _connected(self) -> Wire:
        self._wire = Wire(self._log.place)
        self._log.ensured(self._wire)
        return self._wire

    def _subject(self, event: Event) -> str:
        """Return where the events of an execution go: the program is known from its start, or not at all."""
        if (known := self._subjects.get(event.execution_id)) is None:
            program = str(event.data.get("program", "-")) if event.event_type == "execution_start" else "-"
            known = self._log.subject(program, event.execution_id)
            if len(self._subjects) >= _KNOWN_SUBJECTS:
                del self._subjects[next(iter(self._subjects))]
            self._subjects[event.execution_id] = known
        return known

    def _trim(self, wire: Wire) -> None:
        try:
            self._trimmer.trim(wire)
        except Refused as error:
            logger.warning("%r keeps everything, because it may not cut: %s", self._log, error)
            self._trimmer.stop()
            self.close()
        except Unreachable:  # the events are stored; the next append tells
            self.close()

    def rest(self) -> None:
        if self._wire is not None:
            try:
                self._wire.ping()
            except StreamllError:
                self.close()

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    abandon = close  # closing sends nothing, and the parent's copy of the socket keeps the connection
