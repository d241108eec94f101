"""What a program prints while a live region is on its terminal.

`sys.stdout` and `sys.stderr` are replaced as long as there is a region, never longer. A printed line is held
for a moment: the region is drawn by another thread, a little later than things happen, and
`print(program(...))` is to stand below the tree of that call, not in the middle of it.
"""

import os
import sys
from collections import deque
from time import time
from typing import Any, TextIO, cast

from streamll.sinks._output import is_terminal

_MAX_HELD = 10_000

type _Held = deque[tuple[float, TextIO, str]]


class Prints:
    """The program's printed text, in order, until `take` fetches it."""

    def __init__(self) -> None:
        self._held: _Held = deque()
        self._part = ""
        self._streams: dict[str, _Stream] = {}

    def hold(self) -> None:
        """Begin: what goes to a terminal through `sys.stdout` or `sys.stderr` is held from here on."""
        for name in ("stdout", "stderr"):
            stream = original(getattr(sys, name))
            if name not in self._streams and stream is not None and is_terminal(stream):
                self._streams[name] = _Stream(stream, self._held)
                setattr(sys, name, self._streams[name])

    def take(self, before: float, *, whole_lines: bool) -> str:
        """Return what was printed before that time, in seconds since the epoch."""
        text = self._part
        while self._held and self._held[0][0] <= before:
            text += self._held.popleft()[2]
        cut = text.rfind("\n") + 1 if whole_lines else len(text)
        self._part = text[cut:]
        return text[:cut]

    def release(self) -> str:
        """End: give the streams back. Returns what is still held."""
        for name, stream in self._streams.items():
            stream.is_open = False
            if getattr(sys, name) is stream:
                setattr(sys, name, stream.original)
        self._streams.clear()
        return self.take(float("inf"), whole_lines=False)


class _Stream:
    """Stands in for a text stream; a reference to it that outlives the region writes straight through."""

    def __init__(self, stream: TextIO, held: _Held) -> None:
        self.original = stream
        self.is_open = True
        self._held = held
        self._process = os.getpid()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def write(self, text: str) -> int:
        if os.getpid() != self._process:  # forked: nobody draws here, and what is held is the parent's
            return self.original.write(text)
        self._held.append((time(), self.original, text))
        if not self.is_open or len(self._held) > _MAX_HELD or sys.is_finalizing():
            self._pass_on()
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        if not self.is_open or sys.is_finalizing():  # the interpreter's last flush
            self._pass_on()
            self.original.flush()

    def _pass_on(self) -> None:
        while self._held:
            _, stream, text = self._held.popleft()
            stream.write(text)


def original(stream: TextIO | None) -> TextIO | None:
    """Return the stream that another one stands in for."""
    return cast("Any", stream).original if isinstance(stream, _Stream) else stream
