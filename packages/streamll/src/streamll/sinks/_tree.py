"""One execution as a tree of calls, and the rows of a terminal that show it.

Rows are made from the last one upwards, so that a frame costs what it shows, however long the execution is.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic

from rich.cells import cell_len
from rich.text import Text

from streamll.core.events import SPANS, Event, JsonValue
from streamll.sinks._prose import Prose
from streamll.sinks._wording import (
    NO_DATA,
    brief,
    error_of,
    lm_facts,
    mapping,
    named,
    number,
    output_field,
    own_data,
    prose,
    summary,
    took,
    visible,
)

MAX_CHILDREN = 500
"""Calls shown of one call; of more, the oldest finished ones are only counted."""

type Part = tuple[str, str]
"""Text and its style."""

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_DONE: Mapping[str, Part] = {"lm": ("▸", "cyan"), "tool": ("⚙", "yellow"), "note": ("•", "dim")}
_ENDED = ("✓", "green")
_FAILED = ("✗", "red")
_LABEL_COLUMNS = 9  # `reasoning`, the longest of the usual ones, so that fields stand under each other
_MIN_COLUMNS = 16


@dataclass(slots=True, eq=False)
class Written:
    """An output field as it is typed."""

    label: str
    style: str
    text: Prose = field(default_factory=Prose)
    note: str = ""
    tool: str = ""


@dataclass(slots=True, eq=False)
class Node:
    """A call, or a note in the margin of one."""

    kind: str
    call_id: str = ""
    name: str = ""
    about: tuple[Part, ...] = ()
    facts: str = ""
    state: str = "done"
    began: float = field(default_factory=monotonic)
    written: dict[str, Written] = field(default_factory=dict[str, Written])
    children: list["Node"] = field(default_factory=list["Node"])
    folded: int = 0

    @property
    def mark(self) -> Part:
        if self.state == "running":
            return _SPINNER[int((monotonic() - self.began) * 10) % len(_SPINNER)], "cyan"
        return _FAILED if self.state == "failed" else _DONE.get(self.kind, _ENDED)

    def title(self, guide: str, width: int) -> Text:
        """Return the first row. What a call was about is cut, not how it went."""
        facts = took((monotonic() - self.began) * 1e3) if self.state == "running" else self.facts
        about = Text.assemble(*self.about)
        about.truncate(max(_MIN_COLUMNS, width - len(guide) - len(facts) - 4), overflow="ellipsis")
        return Text.assemble((guide, "dim"), self.mark, " ", about, (f"  {facts}" if facts else "", "dim"))


class Tree:
    """What is shown of one execution. `handle` takes its events in order; `tail` and `rows` show it."""

    def __init__(self, *, show_tokens: bool, show_data: bool) -> None:
        self._show_tokens = show_tokens
        self._show_data = show_data
        self._top = Node("top")
        self._calls: dict[str, Node] = {}
        self._sources: Counter[str] = Counter()
        self._ids: Mapping[str, JsonValue] = {}
        self._told = ""
        self._summary: tuple[Part, ...] = ()
        self._running = 0
        self.changed = monotonic()
        self.is_started = False

    @property
    def is_idle(self) -> bool:
        """True when no end is to be awaited: nothing runs, and a filter has kept the start from us."""
        return not self.is_started and self._running == 0

    # --- events ---

    def handle(self, event: Event) -> None:
        self.changed = monotonic()
        span, _, moment = event.event_type.rpartition("_")
        if event.event_type in _TAKEN:
            _TAKEN[event.event_type](self, event)
        elif span in SPANS and moment in _MOMENTS:
            _MOMENTS[moment](self, event, span)
        else:
            data = own_data(event, self._ids) if self._show_data else NO_DATA
            self._note(
                event,
                (visible(event.event_type), "magenta"),
                (f" {brief(dict(data), 200)}" if data else "", ""),
            )

    def begin(self, event: Event) -> None:
        self.is_started = True
        self._ids = own_data(event, {"program": event.data.get("program")})

    def end(self, event: Event) -> None:
        facts = " · ".join(summary(event.data, self._sources))
        if event.event_type == "execution_error":
            self._summary = (("✗", "red"), (f" failed: {error_of(event)[0]}", "red"), (f"  {facts}", "dim"))
        else:
            self._summary = ((facts, "dim"),)

    def token(self, event: Event) -> None:
        token = event.data.get("token")
        if not self._show_tokens or not isinstance(token, str):
            return
        written = self._written(event)
        written.note = ""
        if "value" in event.data:
            written.text.clear()
            token = brief(event.data["value"], 2_000)
        elif "tool_name" in event.data:
            token = _tool_call(event, written, token)
        if token:
            written.text.add(prose(token))

    def reset(self, event: Event) -> None:
        if self._show_tokens:
            written = self._written(event)
            written.text.clear()
            written.note, written.tool = f"↻ {visible(event.data.get('reason') or 'again')}", ""

    def status(self, event: Event) -> None:
        self._note(event, (visible(event.data.get("message") or ""), "italic cyan"))

    def started(self, event: Event, span: str) -> None:
        parent = self._calls.get(event.parent_call_id or "", self._top)
        if span.startswith("adapter_") or _is_inner_predictor(event, parent):
            self._calls[event.call_id or ""] = parent
            if span == "module":
                parent.about = ((visible(event.module_name), "bold"), *parent.about[1:])
            return
        node = Node(span, event.call_id or "", event.module_name or "", state="running")
        node.about = self._about(event, span, parent)
        self._calls[node.call_id] = node
        self._running += 1
        self._add(parent, node)

    def ended(self, event: Event, span: str) -> None:
        node = self._calls.get(event.call_id or "")
        if span == "lm":
            self._sources[visible(event.data.get("cost_source") or "unknown")] += 1
        if node is None:
            return
        if span == "module" and self._show_data:
            self._show_outputs(node, event)
        self._close(node, "done", event, span)

    def failed(self, event: Event, span: str) -> None:
        node = self._calls.get(event.call_id or "")
        code, message, hint = error_of(event)
        if message != self._told:
            self._told = message
            self._explain(event, code, message, hint)
        if node is not None:
            self._close(node, "failed", event, span)

    def _close(self, node: Node, state: str, event: Event, span: str) -> None:
        if node.call_id != event.call_id:  # a call without a row of its own
            self._calls.pop(event.call_id or "", None)
            return
        if node.state == "running":
            self._running -= 1
        node.state = state
        node.facts = (
            " · ".join(lm_facts(event.data)) if span == "lm" else took(number(event.data, "duration_ms"))
        )
        result = (
            event.data.get("result", event.data.get("outputs"))
            if span in _RETURNS and self._show_data
            else None
        )
        if result is not None:
            node.about += ((" → ", "dim"), (brief(result), ""))
        self._forget_children(node)

    def _forget_children(self, node: Node) -> None:
        """A call is addressed (by late tokens, say) until the call around it ends."""
        for child in node.children:
            self._calls.pop(child.call_id, None)

    def _about(self, event: Event, span: str, parent: Node) -> tuple[Part, ...]:
        name = visible(event.operation)
        if span == "lm":
            return ((name, "cyan"),)
        if span == "tool":
            return ((name, "bold"), (f"({named(self._given(event, 'arguments'))})", ""))
        if span == "module":
            given = self._given(event, "inputs") if parent is self._top else NO_DATA
            path = visible(event.module_name or name)
            return ((path, "bold"), (f" {name}" if name != path else "", "dim"), (_after(given), "dim"))
        inputs = {"inputs": event.data.get("inputs")}
        given = own_data(event, {**self._ids, **inputs}) if self._show_data else NO_DATA
        return ((name, "bold"), (_after(given), "dim"))

    def _given(self, event: Event, key: str) -> Mapping[str, JsonValue]:
        return mapping(event.data, key) if self._show_data else NO_DATA

    def _show_outputs(self, node: Node, event: Event) -> None:
        """Show what a predictor returned under its LM call, where it was not typed there."""
        lm = next((child for child in reversed(node.children) if child.kind == "lm"), None)
        if lm is None:
            return
        typed = {label.split("[")[0] for label in lm.written}
        for name, value in mapping(event.data, "outputs").items():
            label = visible(name)
            if label not in typed:
                lm.written[label] = Written(label, _style(label))
                lm.written[label].text.add(prose(value) if isinstance(value, str) else brief(value, 2_000))

    def _written(self, event: Event) -> Written:
        node = self._calls.get(event.call_id or "") or self._unannounced(event)
        thinking = event.event_type == "reasoning" or event.data.get("of") == "reasoning"
        label = "thinking" if thinking else output_field(event) or "text"
        if label not in node.written:
            node.written[label] = Written(label, "dim italic" if thinking else _style(label))
        return node.written[label]

    def _unannounced(self, event: Event) -> Node:
        """Return a node for a call whose start was filtered out."""
        name = visible(event.module_name or event.operation or "tokens")
        node = self._calls[event.call_id or ""] = Node("lm", event.call_id or "", about=((name, "bold"),))
        self._add(self._top, node)
        return node

    def _note(self, event: Event, *about: Part) -> None:
        self._add(self._calls.get(event.call_id or "", self._top), Node("note", about=about))

    def _explain(self, event: Event, code: str, message: str, hint: str) -> None:
        node = Node("error", state="failed", about=((code, "bold red"), ("", "")))
        if event.event_type.startswith("adapter_"):
            node.about = ((f"{visible(event.operation)} ", "red"), *node.about)
        node.written[""] = Written("", "red")
        node.written[""].text.add(message)
        if hint:
            node.written["hint"] = Written("", "dim")
            node.written["hint"].text.add(hint)
        self._add(self._calls.get(event.call_id or "", self._top), node)

    def _add(self, parent: Node, node: Node) -> None:
        parent.children.append(node)
        if len(parent.children) > MAX_CHILDREN:
            oldest = next((child for child in parent.children if child.state != "running"), None)
            if oldest is not None:
                parent.children.remove(oldest)
                parent.folded += 1
                self._calls.pop(oldest.call_id, None)

    # --- rows ---

    def rows(self, width: int) -> list[Text]:
        """Return all rows, for good."""
        return list(self._upwards(width))[::-1]

    def tail(self, width: int, height: int) -> list[Text]:
        """Return at most `height` rows: the first, and as many of the last as fit."""
        rows = list(islice(self._upwards(width), height + 1))[::-1]
        if len(rows) <= height or height < 3:
            return rows[-height:]
        head = self._top.children[0]
        return [head.title("", width), Text("⋮", "dim"), *rows[-(height - 2) :]]

    def _upwards(self, width: int) -> Iterator[Text]:
        tops = self._top.children
        for index in range(len(tops) - 1, -1, -1):
            closing = self._summary if index == len(tops) - 1 else ()
            yield from _node_upwards(tops[index], "", "", width, closing)
        if self._summary and not tops:
            yield Text.assemble(*self._summary)


def _node_upwards(
    node: Node, first: str, rest: str, width: int, closing: tuple[Part, ...] = ()
) -> Iterator[Text]:
    """Yield the rows of a node, the last one first. `first` and `rest` are the guides before its rows."""
    if closing:
        yield Text.assemble((f"{rest}└ ", "dim"), *closing)
    for index in range(len(node.children) - 1, -1, -1):
        is_last = index == len(node.children) - 1 and not closing
        yield from _node_upwards(
            node.children[index],
            rest + ("└ " if is_last else "├ "),
            rest + ("  " if is_last else "│ "),
            width,
        )
    if node.folded:
        yield Text.assemble((f"{rest}├ … {node.folded:,} earlier", "dim"))
    margin = rest + ("│ " if node.children or closing else "  ")
    for written in reversed(node.written.values()):
        yield from _written_upwards(written, margin, width)
    yield node.title(first, width)


def _written_upwards(written: Written, margin: str, width: int) -> Iterator[Text]:
    label = f"{written.label:<{_LABEL_COLUMNS}}  " if written.label else ""
    label_columns = cell_len(label)
    room = max(_MIN_COLUMNS, width - len(margin) - label_columns)
    for index in range(written.text.count(room) - 1, -1, -1):
        shown = (written.note, "dim yellow") if written.note else (written.text.row(index), written.style)
        yield Text.assemble(
            (margin, "dim"), (label if index == 0 else " " * label_columns, "dim cyan"), shown
        )


def _tool_call(event: Event, written: Written, token: str) -> str:
    """Return a fragment of a native tool call; the first of each call begins a line with the tool's name."""
    called = str(event.data.get("tool_call_id") or written.tool or "?")
    if called == written.tool:
        return token
    line = "\n" if written.tool else ""
    written.tool = called
    return f"{line}{event.data['tool_name']} {token}"


def _is_inner_predictor(event: Event, parent: Node) -> bool:
    """True for the `.predict` that a ChainOfThought consists of: one row tells of both."""
    return (
        event.event_type == "module_start"
        and parent.kind == "module"
        and not parent.children
        and event.module_name == f"{parent.name}.predict"
    )


def _after(values: Mapping[str, JsonValue]) -> str:
    return f"  {named(values)}" if values else ""


def _style(label: str) -> str:
    return "dim" if label.split("[")[0] == "reasoning" else ""


_RETURNS = ("tool", "evaluate", "interpreter")

_MOMENTS = {"start": Tree.started, "end": Tree.ended, "error": Tree.failed}

_TAKEN = {
    "execution_start": Tree.begin,
    "execution_end": Tree.end,
    "execution_error": Tree.end,
    "token": Tree.token,
    "reasoning": Tree.token,
    "stream_reset": Tree.reset,
    "status": Tree.status,
}
