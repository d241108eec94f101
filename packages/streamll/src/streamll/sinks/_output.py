"""A text stream that is written to at once, in what its encoding can say, until nobody reads it any more."""

import errno
from typing import Any, TextIO, cast

_PLAIN = str.maketrans(
    {"→": "->", "…": "...", "·": "-", "—": "--", "✓": "+", "✗": "x", "▸": ">", "⚙": "*", "•": "-"}
    | {"│": "|", "├": "|", "└": "`", "⋮": ":", "↻": "~"}
    | dict.fromkeys("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "*")
)
"""For an encoding without them."""
_NOBODY_READS = (errno.EPIPE, errno.EIO, errno.EBADF)


class Output:
    """Writes to `stream`. When its reader has left, as `| head` does, it becomes silent."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        self._is_gone = False

    def write(self, text: str) -> None:
        if self._is_gone:
            return
        encoded = self._encoded(text)
        try:
            self._put(encoded)
        except OSError as error:
            if error.errno not in _NOBODY_READS:
                raise
            self._is_gone = True
        except ValueError:  # the file was closed
            self._is_gone = True

    def _encoded(self, text: str) -> bytes:
        try:
            return text.encode(self._encoding)
        except UnicodeEncodeError:
            return text.translate(_PLAIN).encode(self._encoding, "backslashreplace")

    def _put(self, encoded: bytes) -> None:
        """Write past the stream's buffer: what stays in it when a pipe breaks is complained about at exit."""
        self.stream.flush()
        raw = cast("Any", getattr(getattr(self.stream, "buffer", None), "raw", None))
        if raw is None:
            self.stream.write(encoded.decode(self._encoding))
            self.stream.flush()
            return
        rest = memoryview(encoded)
        while rest:
            rest = rest[raw.write(rest) or 0 :]


def is_terminal(stream: TextIO) -> bool:
    """Return whether a person looks at `stream`; nobody does when it is closed."""
    return not stream.closed and stream.isatty()
