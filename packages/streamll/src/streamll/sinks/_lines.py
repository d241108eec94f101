"""One line per event: what a pipe, a log file and `grep` get."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from streamll.core.events import SPANS, Event, JsonValue
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
    quoted,
    summary,
    took,
    visible,
)

MAX_EXECUTIONS = 256
"""Executions remembered at a time; more can only be in flight when their ends are filtered out."""


@dataclass(slots=True)
class _Execution:
    number: int
    ids: Mapping[str, JsonValue]
    sources: Counter[str] = field(default_factory=Counter[str])
    told: str = ""
    is_one_of_many: bool = False


class Lines:
    """Write each event to `write` as it comes. An event of which there is nothing to say gives no line."""

    def __init__(self, write: Callable[[str], object], *, show_tokens: bool, show_data: bool) -> None:
        self._write = write
        self._show_tokens = show_tokens
        self._show_data = show_data
        self._executions: OrderedDict[str, _Execution] = OrderedDict()

    def handle(self, event: Event) -> None:
        if event.event_type == "execution_start":
            self._open(event)
        execution = self._executions.get(event.execution_id) or _Execution(0, {})
        if line := self._line(event, execution):
            execution.is_one_of_many |= len(self._executions) > 1 and execution.number > 0
            self._write(f"#{execution.number} {line}\n" if execution.is_one_of_many else f"{line}\n")
        if event.is_last:
            self._executions.pop(event.execution_id, None)

    def flush(self, timeout: float | None) -> bool:
        return True  # as every line already is

    def close(self) -> None:
        self._executions.clear()

    def _open(self, event: Event) -> None:
        taken = {execution.number for execution in self._executions.values()}
        free = next(n for n in range(1, len(taken) + 2) if n not in taken)
        self._executions[event.execution_id] = _Execution(
            free, own_data(event, {"program": event.data.get("program")})
        )
        if len(self._executions) > MAX_EXECUTIONS:
            self._executions.popitem(last=False)

    def _line(self, event: Event, execution: _Execution) -> str:
        known = self._LINES.get(event.event_type)
        if known is not None:
            return known(self, event, execution)
        span, _, moment = event.event_type.rpartition("_")
        if span not in SPANS or moment not in ("start", "end", "error"):
            return self._user_event(event, execution)
        if moment == "error":
            return self._error(event, execution)
        return "" if span.startswith("adapter_") else self._span(event, execution, span, moment)

    def _span(self, event: Event, execution: _Execution, span: str, moment: str) -> str:
        name = visible(event.operation)
        if span == "module":
            path = visible(event.module_name or event.operation)
            name = f"{path} {name}" if moment == "start" and path != name else path
        facts = took(number(event.data, "duration_ms")) if moment == "end" else "…"
        return f"[{span.upper()}] {name}{self._values(event, execution, span, moment)} {facts}".rstrip()

    def _values(self, event: Event, execution: _Execution, span: str, moment: str) -> str:
        """Return what goes in or comes out of a call, as far as it may be shown."""
        if not self._show_data:
            return ""
        if moment == "start":
            return self._given(event, execution, span)
        if outputs := mapping(event.data, "outputs"):
            return f" → {named(outputs)}"
        made = event.data.get("result", event.data.get("outputs"))
        return "" if made is None else f" → {brief(made)}"

    def _given(self, event: Event, execution: _Execution, span: str) -> str:
        if span == "tool":
            return f"({named(mapping(event.data, 'arguments'))})"
        given = own_data(event, execution.ids) if span == "trace" else mapping(event.data, "inputs")
        return f" {named(given)}" if given else ""

    def _lm_end(self, event: Event, execution: _Execution) -> str:
        execution.sources[visible(event.data.get("cost_source") or "unknown")] += 1
        return f"[LM] {visible(event.operation)} {', '.join(lm_facts(event.data))}".rstrip()

    def _lm_start(self, event: Event, _execution: _Execution) -> str:
        return f"[LM] {visible(event.operation)} …"

    def _token(self, event: Event, _execution: _Execution) -> str:
        token = event.data.get("token")
        if not self._show_tokens or not isinstance(token, str) or not token:
            return ""
        head = {"reasoning": "[REASONING]", "token": "[TOKEN]"}[event.event_type]
        name = output_field(event)
        return f"{head} {name}: {quoted(token)}" if name else f"{head} {quoted(token)}"

    def _reset(self, event: Event, _execution: _Execution) -> str:
        name = output_field(event) or visible(event.data.get("of") or "text")
        return f"[RESET] {name}: {visible(event.data.get('reason') or '')}" if self._show_tokens else ""

    def _status(self, event: Event, _execution: _Execution) -> str:
        return f"[STATUS] {visible(event.data.get('message') or '')}"

    def _error(self, event: Event, execution: _Execution) -> str:
        """Say an error once in full; the calls around it, which it passes through, only name its code."""
        code, message, hint = error_of(event)
        name = visible(event.module_name if event.event_type == "module_error" else event.operation)
        again, execution.told = execution.told == message, message
        words = code if again else f"{code}: {message}" + (f" — {hint}" if hint else "")
        return f"[ERROR] {name} {words}"

    def _user_event(self, event: Event, execution: _Execution) -> str:
        data = own_data(event, execution.ids) if self._show_data else NO_DATA
        return f"[{visible(event.event_type)}] {brief(dict(data), 200) if data else ''}".rstrip()

    def _begin(self, event: Event, _execution: _Execution) -> str:
        return f"[START] {visible(event.data.get('program') or event.operation)}"

    def _end(self, event: Event, execution: _Execution) -> str:
        name = visible(event.data.get("program") or event.operation)
        facts = summary(event.data, execution.sources)
        failed = [f"failed: {error_of(event)[0]}"] if event.event_type == "execution_error" else []
        return f"[END] {name} {', '.join([*failed, *facts])}".rstrip()

    _LINES: ClassVar[Mapping[str, Callable[..., str]]] = {
        "execution_start": _begin,
        "execution_end": _end,
        "execution_error": _end,
        "lm_start": _lm_start,
        "lm_end": _lm_end,
        "token": _token,
        "reasoning": _token,
        "stream_reset": _reset,
        "status": _status,
    }
