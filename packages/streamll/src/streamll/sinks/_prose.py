"""Text that grows a piece at a time and is always wrapped."""

from collections.abc import Sequence

from rich.cells import cell_len


class Prose:
    """The rows of a growing text. Adding a piece costs what the piece is long, not what came before it."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._rows: list[str] = []
        self._last = ""
        self._width = 0

    def add(self, piece: str) -> None:
        self._pieces.append(piece)
        if self._width:
            self._wrap(piece)

    def clear(self) -> None:
        self._pieces.clear()
        self._rows, self._last = [], ""

    def count(self, width: int) -> int:
        """Return the number of rows in `width` columns; a newline at the end makes no empty row."""
        if width != self._width:
            self._width, self._rows, self._last = width, [], ""
            self._wrap("".join(self._pieces))
        return len(self._rows) + bool(self._last or not self._rows)

    def row(self, index: int) -> str:
        """Return a row, of those that `count` has just counted."""
        return self._rows[index] if index < len(self._rows) else self._last

    def _wrap(self, piece: str) -> None:
        *lines, last = (self._last + piece).split("\n")
        for line in lines:
            self._rows += wrapped(line, self._width)
        *rows, self._last = wrapped(last, self._width)
        self._rows += rows


def wrapped(line: str, width: int) -> Sequence[str]:
    """Return `line` in rows of at most `width` columns, broken at spaces where there are any."""
    rows: list[str] = []
    start = 0
    while (end := _reach(line, start, width)) < len(line):
        space = line.rfind(" ", start, end + 1)
        cut = space if space > start else end
        rows.append(line[start:cut])
        start = cut + (line[cut] == " ")
    return [*rows, line[start:]]


def _reach(line: str, start: int, width: int) -> int:
    """Return the index after the last character that fits into `width` columns from `start`."""
    part = line[start : start + width]
    while not part.isascii() and (excess := cell_len(part) - width) > 0:
        part = part[: -max(1, excess // 2)]
    return start + max(1, len(part)) if start < len(line) else start
