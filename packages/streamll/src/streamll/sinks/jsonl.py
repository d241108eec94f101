"""Events as lines of JSON, in a file or a descriptor."""

import os
from pathlib import Path
from typing import BinaryIO

from streamll.core.events import Event, encode
from streamll.sinks.base import BaseSink


class JsonlSink(BaseSink):
    """Append each event to `target`, one JSON object a line.

    Args:
        target: A path, which is created and appended to, or an open file descriptor, which stays open.

    Raises:
        OSError: From the write, on the sink's worker: counted and logged there, once per doubling.
    """

    def __init__(self, target: str | os.PathLike[str] | int) -> None:
        super().__init__()
        self._target = target
        self._file: BinaryIO | None = None

    def __repr__(self) -> str:
        return f"JsonlSink({self._target!r})"

    def start(self) -> None:
        if self._file is None:
            opened = self._target if isinstance(self._target, int) else Path(self._target)
            self._file = open(opened, "ab", buffering=0, closefd=not isinstance(opened, int))  # noqa: SIM115
        super().start()

    def handle_event(self, event: Event) -> None:
        if self._file is None:
            self.start()
        assert self._file is not None  # start() has opened it
        line = memoryview(encode(event) + b"\n")
        while line:  # a raw write to a pipe may take only a part
            line = line[self._file.write(line) :]

    def stop(self) -> None:
        super().stop()
        if self._file is not None:
            self._file.close()
            self._file = None
