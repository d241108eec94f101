"""Events as lines of JSON, in a file or a descriptor."""

import os
import weakref
from collections.abc import Callable
from typing import cast

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
        self._descriptor: int | None = None
        self._close: Callable[[], object] = _nothing

    def __repr__(self) -> str:
        return f"JsonlSink({self._target!r})"

    def start(self) -> None:
        if self._descriptor is None:
            if isinstance(self._target, int):
                self._descriptor = self._target
            else:
                self._descriptor = os.open(self._target, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                self._close = weakref.finalize(self, os.close, self._descriptor)
        super().start()

    def handle_event(self, event: Event) -> None:
        if self._descriptor is None:
            self.start()
        line = memoryview(encode(event) + b"\n")
        while line:  # a pipe may take only a part
            line = line[os.write(cast("int", self._descriptor), line) :]

    def stop(self) -> None:
        super().stop()
        self._close()
        self._descriptor, self._close = None, _nothing


def _nothing() -> None:
    return
