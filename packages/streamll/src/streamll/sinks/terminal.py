"""Events for a person: a live tree on a terminal or in a notebook, one line per event anywhere else."""

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, Protocol, TextIO

from rich.console import Console

from streamll.core.events import Event
from streamll.sinks._lines import Lines
from streamll.sinks._live import Bottom, Cells, Live
from streamll.sinks._output import Output, is_terminal
from streamll.sinks._prints import Prints, original
from streamll.sinks.base import BaseSink

type TokenFormat = Literal["inline", "lines"]


class _View(Protocol):
    def handle(self, event: Event) -> None: ...
    def flush(self, timeout: float | None) -> bool: ...
    def close(self) -> None: ...


class TerminalSink(BaseSink):
    """Show what programs do, as they do it.

    "lines" gives one line per event, such as `[TOKEN] answer: "Machine"`, flushed at once; while several
    programs run, each line says whose it is (`#2 `). "inline" shows every execution as a tree that grows in
    place and stays in the scrollback when it ends; into a plain file it writes the finished trees only. Both
    leave out what adapters do, unless it fails. No control character of a model, tool or name gets through.

    While a tree is on the terminal, `sys.stdout` and `sys.stderr` are replaced, so that what the program
    prints appears above it, at most a tenth of a second later. A program that asks its user questions there
    is better off with "lines".

    Args:
        output: A text stream; None is `sys.stdout`, whatever that is when an event comes.
        token_format: None is "inline" on a terminal and in a notebook, else "lines".
        show_tokens: False leaves out what models write until it is complete.
        show_data: False leaves out arguments, results, outputs and the data of your own events.

    Raises:
        ValueError: `token_format` is neither of the two.
        OSError: From the write, on the sink's worker. A reader that has left (`| head`) is no error: the sink
            becomes silent.
    """

    def __init__(
        self,
        output: TextIO | None = None,
        *,
        token_format: TokenFormat | None = None,
        show_tokens: bool = True,
        show_data: bool = True,
    ) -> None:
        super().__init__()
        if token_format not in (None, "inline", "lines"):
            raise ValueError(f'token_format={token_format!r:.80}: expected "inline", "lines" or None.')
        self._output = output
        self._format = token_format
        self._shown = {"show_tokens": show_tokens, "show_data": show_data}
        self._view: _View | None = None
        self._on: tuple[TextIO | None, int] = None, 0

    def __repr__(self) -> str:
        return f"TerminalSink(token_format={self._format!r})"

    def handle_event(self, event: Event) -> None:
        self._follow_output()
        if self._view is not None:
            self._view.handle(event)

    def flush(self, timeout: float | None = None) -> bool:
        return self._view is None or self._view.flush(timeout)

    def stop(self) -> None:
        if self._view is not None:
            self._view.close()
        super().stop()

    def _follow_output(self) -> None:
        """Begin anew when `sys.stdout` has changed, and in a forked process, whose view nobody draws."""
        stream = original(self._output or sys.stdout)
        on, process = self._on
        if stream is on and os.getpid() == process:
            return
        if self._view is not None and os.getpid() == process:
            self._view.close()
        self._on = stream, os.getpid()
        self._view = None if stream is None else self._view_on(stream)

    def _view_on(self, stream: TextIO) -> _View:
        is_own = stream is original(sys.stdout)
        console = Console(file=stream, highlight=False, markup=False, emoji=False)
        in_notebook = is_own and console.is_jupyter
        write = Output(stream).write
        if (self._format or chosen(stream, os.environ, in_notebook=in_notebook)) == "lines":
            return Lines(write, **self._shown)
        if in_notebook:
            return Live(Cells(_display()), **self._shown)
        return Live(Bottom(console, write, Prints() if is_own else None), **self._shown)


def chosen(stream: TextIO, environ: Mapping[str, str], *, in_notebook: bool) -> TokenFormat:
    """Return the format for a stream that nobody chose one for."""
    if in_notebook:
        return "inline"
    is_capable = environ.get("TERM", "").lower() not in ("dumb", "unknown")
    return "inline" if is_capable and is_terminal(stream) else "lines"


def _display() -> Any:
    return import_module("IPython.display").display
