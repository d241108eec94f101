"""Trees that are redrawn while their executions run: at the bottom of a terminal, or in a notebook's cell."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from streamll.core.events import Event
from streamll.sinks._prints import Prints
from streamll.sinks._tree import Tree

FRAME_SECONDS = 0.08
"""Between two frames: 12 a second look smooth, and cost little."""
MAX_TREES = 64
"""Executions shown at a time; more can only be in flight when their ends are filtered out."""
_IDLE_SECONDS = 0.5


class Canvas(Protocol):
    """Where trees are shown."""

    def open(self) -> None: ...
    def draw(self, trees: Sequence[Tree]) -> None: ...
    def keep(self, tree: Tree, ended: float) -> None:
        """Show a tree for the last time, and for good; `ended` is when, in seconds since the epoch."""
        ...

    def close(self) -> None: ...


class Live:
    """The executions in flight, a tree each, drawn by a thread that lives as long as there are any."""

    def __init__(self, canvas: Canvas, *, show_tokens: bool, show_data: bool) -> None:
        self._canvas = canvas
        self._tree: Callable[[], Tree] = lambda: Tree(show_tokens=show_tokens, show_data=show_data)
        self._trees: OrderedDict[str, Tree] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._painter: threading.Thread | None = None

    def handle(self, event: Event) -> None:
        with self._lock:
            tree = self._trees.get(event.execution_id)
            if tree is None:
                tree = self._trees[event.execution_id] = self._tree()
            tree.handle(event)
            if event.is_last:
                self._keep(event.execution_id, event.timestamp.timestamp())
            elif len(self._trees) > MAX_TREES:
                self._keep(next(iter(self._trees)), time.time())
            if self._trees and self._painter is None:
                self._start()

    def flush(self, timeout: float | None) -> bool:
        """Draw what there is; when nothing runs, leave the terminal alone. False after `timeout`."""
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            return False
        try:
            self._draw()
            if not self._trees:
                self._stop()
            return True
        finally:
            self._lock.release()

    def close(self) -> None:
        """Keep every tree as it is."""
        with self._lock:
            painter = self._painter
            for execution_id in list(self._trees):
                self._keep(execution_id, time.time())
            self._stop()
        if painter is not None:
            painter.join()

    def _keep(self, execution_id: str, ended: float) -> None:
        self._canvas.keep(self._trees.pop(execution_id), ended)

    def _start(self) -> None:
        self._closed = threading.Event()
        self._canvas.open()
        self._painter = threading.Thread(
            target=self._paint, args=(self._closed,), name="streamll live", daemon=True
        )
        self._painter.start()

    def _stop(self) -> None:
        if self._painter is not None:
            self._painter = None
            self._closed.set()
            self._canvas.close()

    def _paint(self, closed: threading.Event) -> None:
        while not closed.wait(FRAME_SECONDS):
            with self._lock:
                if closed.is_set():
                    return
                self._draw()
                if not self._trees:
                    self._stop()

    def _draw(self) -> None:
        now = time.monotonic()
        for execution_id, tree in list(self._trees.items()):
            if tree.is_idle and now - tree.changed > _IDLE_SECONDS:
                self._keep(execution_id, time.time())
        self._canvas.draw(list(self._trees.values()))


# --- a terminal ---------------------------------------------------------------------------------------------

_BEGIN_FRAME, _END_FRAME = (
    "\x1b[?2026h",
    "\x1b[?2026l",
)  # a terminal that knows synchronized output shows no half frame

_START_AND_ERASE = "\r\x1b[2K"  # the cursor's row: a terminal may have echoed ^C there
_UP_AND_ERASE = (
    "\x1b[1A\x1b[2K"  # row by row: tmux keeps what "erase to the end" wipes from the top of the screen
)


class Bottom:
    """The last rows of a terminal, redrawn in place; what is kept or printed goes above them.

    `write` puts text on the terminal. `prints` is None when the program's own output goes elsewhere.
    """

    def __init__(
        self, console: Console, write: Callable[[str], object], prints: Prints | None = None
    ) -> None:
        self._console = console
        self._write = write
        self._prints = prints
        self._shown: list[int] = []
        self._frame = ""

    def open(self) -> None:
        if self._prints is not None:
            self._prints.hold()

    def close(self) -> None:
        self._replace(self._prints.release() if self._prints else "")

    def draw(self, trees: Sequence[Tree]) -> None:
        if not self._console.is_terminal:
            return
        above = (
            self._prints.take(time.time() - FRAME_SECONDS, whole_lines=bool(trees)) if self._prints else ""
        )
        self._replace(above, self._region(trees))

    def keep(self, tree: Tree, ended: float) -> None:
        before = self._prints.take(ended, whole_lines=True) if self._prints else ""
        rows = tree.rows(self._columns)
        self._replace(before + (self._ansi([*rows, Text("")]) if rows else ""))

    @property
    def _columns(self) -> int:
        return self._console.width - 1  # a full last column makes some terminals wrap

    def _region(self, trees: Sequence[Tree]) -> list[Text]:
        """Return the rows to show: a fair share of the screen for each tree, the newest if there are many."""
        height = max(4, self._console.height - 1)
        fitting = trees[-max(1, height // 4) :]
        share = height // max(1, len(fitting)) - 1
        rows = [row for tree in fitting for row in (*tree.tail(self._columns, share), Text(""))]
        hidden = len(trees) - len(fitting)
        return [*([Text(f"… {hidden} more running", "dim")] if hidden else []), *rows[:-1]][:height]

    def _replace(self, above: str, region: Sequence[Text] = ()) -> None:
        frame = self._ansi(region)
        if not above and frame == self._frame:
            return
        redrawn = f"{self._cleared()}{above}{frame}"
        self._write(f"{_BEGIN_FRAME}{redrawn}{_END_FRAME}" if self._console.is_terminal else redrawn)
        self._frame = frame
        self._shown = [min(cell_len(row.plain), self._columns) for row in region]

    def _cleared(self) -> str:
        """Return what wipes the region; a terminal that has become narrower has wrapped its rows."""
        rows = sum(max(1, -(-columns // self._console.width)) for columns in self._shown)
        return _START_AND_ERASE + _UP_AND_ERASE * rows if rows else ""

    def _ansi(self, rows: Sequence[Text]) -> str:
        with self._console.capture() as captured:
            for row in rows:
                self._console.print(row, no_wrap=True, overflow="ellipsis", width=self._columns)
        return captured.get()


# --- a notebook ---------------------------------------------------------------------------------------------


class Cells:
    """A display of its own for each tree, updated in place. `display` is IPython's."""

    COLUMNS = 110
    ROWS = 60

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display = display
        self._handles: dict[Tree, tuple[Any, float]] = {}

    def open(self) -> None: ...

    def close(self) -> None:
        self._handles.clear()

    def draw(self, trees: Sequence[Tree]) -> None:
        for tree in trees:
            _, drawn = self._handles.get(tree, (None, -1.0))
            if tree.changed > drawn:
                self._show(tree, tree.tail(self.COLUMNS, self.ROWS))

    def keep(self, tree: Tree, ended: float) -> None:
        self._show(tree, tree.rows(self.COLUMNS))
        self._handles.pop(tree)

    def _show(self, tree: Tree, rows: Sequence[Text]) -> None:
        handle, _ = self._handles.get(tree, (None, 0))
        shown = Text("\n", no_wrap=True).join(rows)
        if handle is None:
            handle = self._display(shown, display_id=True)
        else:
            handle.update(shown)
        self._handles[tree] = handle, time.monotonic()
