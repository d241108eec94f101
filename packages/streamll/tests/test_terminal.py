"""What a person sees. `Log` makes events of one execution; `screen` is a terminal that shows the bytes."""

import io
import os
import pty
import re
import select
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from time import monotonic, perf_counter, sleep
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from streamll.core.events import Event, TokenEvent
from streamll.sinks import TerminalSink
from streamll.sinks._live import Cells, Live
from streamll.sinks._prose import Prose
from streamll.sinks.terminal import chosen

# --- events, and a terminal ---------------------------------------------------------------------------------

_TOTALS = {"lm_calls": 1, "tool_calls": 0, "input_tokens": 120, "output_tokens": 38, "cost_usd": 0.0002}
_LM_END: dict[str, Any] = {
    "duration_ms": 812.0,
    "tokens_per_second": 61.2,
    "input_tokens": 120,
    "output_tokens": 38,
    "cost_usd": 0.0002,
    "cost_source": "priced",
    "cached": False,
    "finish_reason": "stop",
}
_ERROR = {"type": "RateLimitError", "code": "rate_limit", "message": "slow down", "hint": "Wait."}
_MODEL = "openai/gpt-4o-mini"


class Log:
    """Sends the events of one execution to a sink."""

    def __init__(self, sink: TerminalSink | Live, execution_id: str = "e") -> None:
        self._send = sink.handle_event if isinstance(sink, TerminalSink) else sink.handle
        self._id = execution_id
        self._sequence = 0

    def send(self, event_type: str, data: dict[str, Any] | None = None, **about: Any) -> None:
        kind = TokenEvent if event_type == "token" else Event
        event = kind(
            event_id=f"{self._id}-{self._sequence}",
            execution_id=self._id,
            sequence=self._sequence,
            timestamp=datetime.now(UTC),
            event_type=event_type,
            data=data or {},
            **about,
        )
        self._sequence += 1
        self._send(event)

    def start(self, program: str = "QA", **data: Any) -> None:
        root = {"call_id": "root", "module_name": program, "operation": program}
        self.send("execution_start", {"program": program}, **root)
        self.send("module_start", data, **root)

    def end(self, program: str = "QA", **totals: Any) -> None:
        root = {"call_id": "root", "module_name": program, "operation": program}
        self.send("module_end", {"duration_ms": 1234.5}, **root)
        self.send("execution_end", {"program": program, "duration_ms": 1234.5, **_TOTALS, **totals}, **root)

    def lm_start(self, call_id: str = "lm", parent: str = "root") -> None:
        self.send("lm_start", {"model": _MODEL}, call_id=call_id, parent_call_id=parent, operation=_MODEL)

    def lm_end(self, call_id: str = "lm", **data: Any) -> None:
        self.send("lm_end", _LM_END | data, call_id=call_id, parent_call_id="root", operation=_MODEL)

    def tokens(self, *tokens: str, field: str | None = "answer", call_id: str = "lm", **data: Any) -> None:
        for index, token in enumerate(tokens):
            self.send(
                "token", {"token": token, "token_index": index, "field": field, **data}, call_id=call_id
            )


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def screen(written: str) -> str:
    """Return what a terminal shows and keeps in its scrollback after `written`."""
    rows, row = [""], 0
    for part in re.split(r"(\x1b\[[?\d;]*[a-zA-Z]|\n|\r)", written):
        if part == "\n":
            row += 1
            rows += [""] * (row == len(rows))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            rows[row] = ""
        elif part and not re.fullmatch(r"\r|\x1b\[\?2026[hl]|\x1b\[[\d;]*m", part):
            rows[row] += part
    return "\n".join(row.rstrip() for row in rows).rstrip()


def lines(*, output: io.StringIO | None = None, **options: Any) -> tuple[TerminalSink, Log, io.StringIO]:
    output = output or io.StringIO()
    sink = TerminalSink(output, **options)
    return sink, Log(sink), output


def inline(**options: Any) -> tuple[TerminalSink, Log, Terminal]:
    output = Terminal()
    sink = TerminalSink(output, token_format="inline", **options)
    return sink, Log(sink), output


@pytest.fixture(autouse=True)
def _hundred_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": "100", "LINES": "40", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)


# --- lines: one per event -----------------------------------------------------------------------------------


def test_a_token_is_a_line_with_its_field_and_a_json_string() -> None:
    _, log, output = lines()

    log.tokens("Machine", " learning", 'a "b"\n')

    assert output.getvalue() == (
        '[TOKEN] answer: "Machine"\n[TOKEN] answer: " learning"\n[TOKEN] answer: "a \\"b\\"\\n"\n'
    )


def test_the_empty_token_that_closes_a_field_gives_no_line() -> None:
    _, log, output = lines()

    log.tokens("", finish_reason="stop")
    log.tokens("", field="tags", value=["a"], finish_reason="stop")

    assert output.getvalue() == ""


def test_one_of_several_candidates_is_named() -> None:
    _, log, output = lines()

    log.tokens("Paris", candidate=1)

    assert output.getvalue() == '[TOKEN] answer[1]: "Paris"\n'


def test_a_token_without_a_field_and_thinking_have_no_name() -> None:
    _, log, output = lines()

    log.tokens("Hi", field=None)
    log.send("reasoning", {"token": "so…", "field": None, "of": "reasoning"}, call_id="lm")

    assert output.getvalue() == '[TOKEN] "Hi"\n[REASONING] "so…"\n'


def test_a_program_reads_as_a_log_of_its_calls() -> None:
    _, log, output = lines()
    tool = {"call_id": "t", "parent_call_id": "root", "operation": "search"}

    log.start(inputs={"question": "Why?"})
    log.send("tool_start", {"arguments": {"query": "sky", "k": 3}}, **tool)
    log.send("tool_end", {"result": "blue", "duration_ms": 12.4}, **tool)
    log.lm_start()
    log.lm_end()
    log.send("docs_found", {"count": 3}, call_id="root")
    log.send("status", {"message": "Searching the handbook…"}, call_id="root")
    log.send("stream_reset", {"field": "answer", "reason": "retry"}, call_id="lm")
    log.end()

    assert output.getvalue().splitlines() == [
        "[START] QA",
        '[MODULE] QA question="Why?" …',
        '[TOOL] search(query="sky", k=3) …',
        '[TOOL] search → "blue" 12 ms',
        f"[LM] {_MODEL} …",
        f"[LM] {_MODEL} 0.8 s, 61 tok/s, 120→38 tokens, $0.0002",
        '[docs_found] {"count": 3}',
        "[STATUS] Searching the handbook…",
        "[RESET] answer: retry",
        "[MODULE] QA 1.2 s",
        "[END] QA 1.2 s, 1 LM call, 120→38 tokens, $0.0002 (priced)",
    ]


def test_an_error_says_code_message_and_hint_once() -> None:
    _, log, output = lines()

    log.start()
    log.send("lm_error", {"error": _ERROR}, operation=_MODEL)
    log.send("module_error", {"error": _ERROR}, module_name="generate.predict", operation="Predict")

    assert output.getvalue().splitlines()[2:] == [
        f"[ERROR] {_MODEL} rate_limit: RateLimitError: slow down — Wait.",
        "[ERROR] generate.predict rate_limit",
    ]


def test_what_is_missing_is_left_out_instead_of_invented() -> None:
    _, log, output = lines()

    log.send("lm_end", {}, operation="m")
    log.send("tool_error", {}, operation="search")
    log.send("module_end", {}, module_name="QA", operation="QA")
    log.send("execution_end", {"program": "QA"})

    assert output.getvalue().splitlines() == ["[LM] m", "[ERROR] search error", "[MODULE] QA", "[END] QA"]


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [(0.2, "< 1 ms"), (12.4, "12 ms"), (812, "0.8 s"), (61_000, "1 m 01 s"), (119_900, "2 m 00 s")],
)
def test_a_duration_has_the_unit_a_person_would_use(milliseconds: float, shown: str) -> None:
    _, log, output = lines()

    log.send("trace_end", {"duration_ms": milliseconds}, operation="step")

    assert output.getvalue() == f"[TRACE] step {shown}\n"


def test_a_cached_call_says_so_and_an_unpriced_one_names_no_price() -> None:
    _, log, output = lines()

    log.start()
    log.lm_end(cached=True, cost_usd=0.0, cost_source="cached")
    log.lm_end(cost_usd=None, cost_source="unknown")
    log.end(lm_calls=2)

    shown = output.getvalue().splitlines()
    assert shown[2].endswith("120→38 tokens, cached")
    assert shown[3].endswith("120→38 tokens")
    assert shown[-1].endswith("$0.0002 (1 cached, 1 unknown)")


def test_adapters_are_heard_of_only_when_they_fail() -> None:
    _, log, output = lines()

    log.send("adapter_format_start", operation="ChatAdapter")
    log.send("adapter_format_end", operation="ChatAdapter")
    log.send("adapter_parse_error", {"error": _ERROR | {"code": "parse"}}, operation="ChatAdapter")

    assert output.getvalue() == "[ERROR] ChatAdapter parse: RateLimitError: slow down — Wait.\n"


def test_lines_say_whose_they_are_only_while_several_programs_run() -> None:
    sink, first, output = lines()
    second = Log(sink, "f")

    first.send("execution_start", {"program": "A"})
    first.tokens("1")
    second.send("execution_start", {"program": "B"})
    first.tokens("2")
    first.send("execution_end", {"program": "A"})
    second.send("execution_end", {"program": "B"})
    third = Log(sink, "g")
    third.send("execution_start", {"program": "C"})

    assert output.getvalue().splitlines() == [
        "[START] A",
        '[TOKEN] answer: "1"',
        "#2 [START] B",
        '#1 [TOKEN] answer: "2"',
        "#1 [END] A",
        "#2 [END] B",
        "[START] C",
    ]


def test_correlation_ids_are_not_repeated_with_every_event() -> None:
    _, log, output = lines()

    log.send("execution_start", {"program": "QA", "user_id": "u1"})
    log.send("docs_found", {"user_id": "u1", "count": 3})

    assert output.getvalue().splitlines()[-1] == '[docs_found] {"count": 3}'


def test_data_and_tokens_can_be_left_out() -> None:
    _, log, output = lines(show_data=False, show_tokens=False)

    log.send("tool_start", {"arguments": {"query": "secret"}}, operation="search")
    log.send("docs_found", {"name": "secret"})
    log.tokens("secret")

    assert output.getvalue() == "[TOOL] search …\n[docs_found]\n"


def test_a_large_value_is_cut() -> None:
    _, log, output = lines()

    log.send("docs_found", {"rows": [["x" * 50] * 10] * 1000})
    log.send("tool_end", {"result": "y" * 100_000}, operation="search")

    assert all(len(line) < 300 for line in output.getvalue().splitlines())


def test_sys_stdout_is_the_one_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(TerminalSink())

    log.tokens("seen")

    assert capsys.readouterr().out == '[TOKEN] answer: "seen"\n'


def test_an_encoding_without_arrows_gets_plain_ones() -> None:
    raw = io.BytesIO()
    log = Log(TerminalSink(io.TextIOWrapper(raw, encoding="ascii")))

    log.lm_end()
    log.tokens("naïve")

    assert raw.getvalue().decode().splitlines() == [
        f"[LM] {_MODEL} 0.8 s, 61 tok/s, 120->38 tokens, $0.0002",
        '[TOKEN] answer: "na\\xefve"',
    ]


# --- hostile text -------------------------------------------------------------------------------------------

_HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202eevil\u2066\x7f\r"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_OURS = re.compile(r"\x1b\[(?:1A|2K|\?2026[hl]|[\d;]*m)")


def _everything_hostile(log: Log) -> None:
    log.start(_HOSTILE, inputs={_HOSTILE: _HOSTILE})
    log.send("tool_start", {"arguments": {_HOSTILE: [_HOSTILE]}}, call_id="t", operation=_HOSTILE)
    log.send("tool_end", {"result": {_HOSTILE: _HOSTILE}}, call_id="t", operation=_HOSTILE)
    log.send("tool_error", {"error": dict.fromkeys(_ERROR, _HOSTILE)}, operation=_HOSTILE)
    log.send("status", {"message": _HOSTILE})
    log.send(_HOSTILE, {_HOSTILE: _HOSTILE})
    log.send("trace_start", {_HOSTILE: _HOSTILE}, operation=_HOSTILE)
    log.send("lm_start", {}, call_id="lm", parent_call_id="root", operation=_HOSTILE)
    log.tokens(_HOSTILE, _HOSTILE, field=_HOSTILE)
    log.tokens(_HOSTILE, field="tool_calls", tool_name=_HOSTILE, tool_call_id=_HOSTILE)
    log.tokens("", field="tags", value=[_HOSTILE])
    log.send("reasoning", {"token": _HOSTILE}, call_id="lm")
    log.send("stream_reset", {"field": _HOSTILE, "reason": _HOSTILE}, call_id="lm")
    log.lm_end(finish_reason=_HOSTILE, cost_source=_HOSTILE)
    log.end(_HOSTILE)


@pytest.mark.parametrize("token_format", ["lines", "inline"])
def test_no_control_character_of_anybody_reaches_the_terminal(token_format: Any) -> None:
    output = Terminal()
    sink = TerminalSink(output, token_format=token_format)

    _everything_hostile(Log(sink))
    sink.stop()

    assert "owned" in output.getvalue()
    assert _CONTROL.findall(_OURS.sub("", output.getvalue())) == []


def test_rich_markup_is_text() -> None:
    sink, log, output = inline()

    log.start()
    log.lm_start()
    log.tokens("[bold]loud[/bold] [/nonsense]")
    sink.stop()

    assert "[bold]loud[/bold] [/nonsense]" in screen(output.getvalue())


# --- inline: a tree -----------------------------------------------------------------------------------------


def test_a_finished_program_stays_as_a_tree() -> None:
    sink, log, output = inline()
    inner = {
        "call_id": "m",
        "parent_call_id": "root",
        "module_name": "generate",
        "operation": "ChainOfThought",
    }
    predict = {
        "call_id": "p",
        "parent_call_id": "m",
        "module_name": "generate.predict",
        "operation": "Predict",
    }
    tool = {"call_id": "t", "parent_call_id": "root", "operation": "search"}

    log.start(inputs={"question": "Why?"})
    log.send("tool_start", {"arguments": {"query": "sky"}}, **tool)
    log.send("docs_found", {"count": 3}, call_id="t")
    log.send("tool_end", {"result": "blue", "duration_ms": 12.4}, **tool)
    log.send("module_start", **inner)
    log.send("module_start", **predict)
    log.lm_start(parent="p")
    log.tokens("because ", "so", field="reasoning")
    log.tokens("Paris\n", "it is")
    log.lm_end()
    log.send("module_end", {"duration_ms": 900.0}, **predict)
    log.send("module_end", {"duration_ms": 900.0}, **inner)
    log.end()
    sink.flush()

    assert screen(output.getvalue()) == textwrap.dedent(f"""\
        ✓ QA  question="Why?"  1.2 s
        ├ ⚙ search(query="sky") → "blue"  12 ms
        │ └ • docs_found {{"count": 3}}
        ├ ✓ generate.predict ChainOfThought  0.9 s
        │ └ ▸ {_MODEL}  0.8 s · 61 tok/s · 120→38 tokens · $0.0002
        │     reasoning  because so
        │     answer     Paris
        │                it is
        └ 1.2 s · 1 LM call · 120→38 tokens · $0.0002 (priced)""")


def test_text_is_typed_in_place_while_the_program_runs() -> None:
    sink, log, output = inline()

    log.start()
    log.lm_start()
    log.tokens("Par")
    sink.flush()
    before = screen(output.getvalue())
    log.tokens("is")
    sink.flush()
    after = screen(output.getvalue())
    sink.stop()

    assert before.splitlines()[-1].split() == ["answer", "Par"]
    assert after.splitlines()[-1].split() == ["answer", "Paris"]
    assert len(after.splitlines()) == len(before.splitlines())


def test_a_reset_wipes_the_void_text() -> None:
    sink, log, output = inline()

    log.start()
    log.lm_start()
    log.tokens("wrong")
    log.send("stream_reset", {"field": "answer", "reason": "retry"}, call_id="lm")
    sink.flush()
    wiped = screen(output.getvalue())
    log.tokens("right")
    sink.flush()
    again = screen(output.getvalue())
    sink.stop()

    assert "wrong" not in wiped
    assert "↻ retry" in wiped
    assert again.splitlines()[-1].split() == ["answer", "right"]


def test_a_parsed_value_replaces_its_wire_form() -> None:
    sink, log, output = inline()

    log.start()
    log.lm_start()
    log.tokens('["a",\n', ' "b"]', field="tags", raw=True)
    log.tokens("", field="tags", raw=True, value=["a", "b"], finish_reason="stop")
    log.end()
    sink.flush()

    assert re.search(r'tags +\["a", "b"\]\n', screen(output.getvalue()))


def test_a_native_tool_call_is_typed_with_its_name() -> None:
    sink, log, output = inline()

    log.start()
    log.lm_start()
    log.tokens('{"q":', ' "sky"}', field="tool_calls", raw=True, tool_name="search", tool_call_id=None)
    log.end()
    sink.flush()

    assert re.search(r'tool_calls +search \{"q": "sky"\}\n', screen(output.getvalue()))


def test_an_output_that_nobody_streamed_is_shown_under_its_lm_call() -> None:
    sink, log, output = inline()

    log.start()
    log.lm_start()
    log.tokens("typed")
    log.lm_end()
    outputs = {"answer": "typed", "tags": ["a"]}
    log.send("module_end", {"outputs": outputs}, call_id="root", operation="QA")
    log.send("execution_end", {"program": "QA"})
    sink.flush()

    shown = screen(output.getvalue())
    assert re.findall(r"^ *│? *(answer|tags) +(.*)$", shown, re.M) == [("answer", "typed"), ("tags", '["a"]')]


def test_an_error_is_explained_once_where_it_happened() -> None:
    sink, log, output = inline()
    root = {"call_id": "root", "module_name": "QA", "operation": "QA"}

    log.start()
    log.lm_start()
    log.send("lm_error", {"error": _ERROR, "duration_ms": 30.0}, call_id="lm", operation=_MODEL)
    log.send("module_error", {"error": _ERROR, "duration_ms": 31.0}, **root)
    log.send("execution_error", {"error": _ERROR, "program": "QA", "duration_ms": 31.0}, **root)
    sink.flush()

    assert screen(output.getvalue()) == textwrap.dedent(f"""\
        ✗ QA  31 ms
        ├ ✗ {_MODEL}  30 ms
        │ └ ✗ rate_limit
        │     RateLimitError: slow down
        │     Wait.
        └ ✗ failed: rate_limit  31 ms""")


def test_an_adapter_is_seen_when_it_fails() -> None:
    sink, log, output = inline()
    chat = {"call_id": "a", "parent_call_id": "root", "operation": "ChatAdapter"}

    log.start()
    log.send("adapter_parse_start", **chat)
    log.send("adapter_parse_end", **chat)
    log.send("adapter_parse_start", **chat)
    log.send("adapter_parse_error", {"error": _ERROR | {"code": "parse"}}, **chat)
    log.end()
    sink.flush()

    assert screen(output.getvalue()).count("ChatAdapter") == 1
    assert "✗ ChatAdapter parse" in screen(output.getvalue())


def test_programs_that_run_at_once_have_a_tree_each() -> None:
    sink, first, output = inline()
    second = Log(sink, "f")

    for log, name in ((first, "A"), (second, "B")):
        log.start(name)
        log.lm_start()
    for piece in "one ", "two":
        first.tokens(f"A{piece}")
        second.tokens(f"B{piece}")
    sink.flush()
    running = screen(output.getvalue())
    first.end("A")
    second.end("B")
    sink.flush()

    assert "Aone Atwo" in running
    assert "Bone Btwo" in running
    finished = screen(output.getvalue())
    assert finished.index("✓ A") < finished.index("Aone") < finished.index("✓ B") < finished.index("Bone")


def test_a_tree_taller_than_the_screen_shows_its_head_and_its_end() -> None:
    sink, log, output = inline()

    log.start()
    log.lm_start()
    log.tokens(*[f"row {n}\n" for n in range(100)])
    sink.flush()
    shown = screen(output.getvalue()).splitlines()
    log.end()
    sink.flush()

    assert len(shown) < 40
    assert "QA" in shown[0]
    assert shown[1] == "⋮"
    assert shown[-1].endswith("row 99")
    kept = screen(output.getvalue())
    assert all(f"row {n}\n" in kept + "\n" for n in range(100))


def test_many_programs_at_once_fit_the_screen() -> None:
    sink, _, output = inline()

    for n in range(50):
        Log(sink, str(n)).start(f"P{n}")
    sink.flush()
    shown = screen(output.getvalue()).splitlines()
    sink.stop()

    assert len(shown) < 40
    assert shown[0].endswith("more running")
    assert "P49" in shown[-1]


def test_how_a_call_went_is_seen_however_long_its_arguments_are() -> None:
    sink, log, output = inline()
    tool = {"call_id": "t", "parent_call_id": "root", "operation": "search"}

    log.start()
    log.send("tool_start", {"arguments": {"query": "x" * 500}}, **tool)
    log.send("tool_end", {"result": "y" * 500, "duration_ms": 12.0}, **tool)
    log.end()
    sink.flush()

    row = screen(output.getvalue()).splitlines()[1]
    assert row.endswith("…  12 ms")
    assert len(row) < 100


def test_five_thousand_tokens_cost_what_they_are_long() -> None:
    def seconds(count: int) -> float:
        sink, log, _ = inline()
        log.start()
        log.lm_start()
        began = perf_counter()
        log.tokens(*["word "] * count)
        log.end()
        sink.flush()
        return perf_counter() - began

    seconds(100)

    assert seconds(20_000) < 20 * max(seconds(2_000), 0.02)


def test_a_tree_without_an_end_is_kept_once_it_is_quiet() -> None:
    sink, log, output = inline()

    log.tokens("only tokens pass this filter")
    until = monotonic() + 5
    while "only tokens" not in output.getvalue() or sink._view._trees:  # pyright: ignore
        assert monotonic() < until
        sleep(0.05)

    assert "only tokens pass this filter" in screen(output.getvalue())


@pytest.mark.parametrize("token_format", ["lines", "inline"])
def test_finished_programs_are_forgotten(token_format: Any) -> None:
    sink = TerminalSink(Terminal(), token_format=token_format)

    for n in range(1000):
        log = Log(sink, str(n))
        log.start()
        log.end()
    sink.flush()

    held = vars(sink._view)  # pyright: ignore
    assert not held.get("_trees")
    assert not held.get("_executions")


@pytest.mark.parametrize("token_format", ["lines", "inline"])
def test_programs_whose_ends_are_filtered_out_are_bounded(token_format: Any) -> None:
    sink = TerminalSink(Terminal(), token_format=token_format)

    for n in range(1000):
        Log(sink, str(n)).send("execution_start", {"program": "QA"})

    held = vars(sink._view)  # pyright: ignore
    assert len(held.get("_trees", ())) + len(held.get("_executions", ())) <= 256
    sink.stop()


def test_of_very_many_calls_the_oldest_are_only_counted() -> None:
    sink, log, output = inline()

    log.start()
    for n in range(700):
        log.send("docs_found", {"n": n}, call_id="root")
    log.end()
    sink.flush()

    assert "… 200 earlier" in output.getvalue()
    assert '{"n": 699}' in output.getvalue()


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    sink, log, output = inline()

    log.start()
    log.end()
    sink.flush()

    assert not re.search(r"\x1b\[[\d;]*3\d[\d;]*m", output.getvalue())


def test_a_plain_file_gets_finished_trees_without_control_sequences() -> None:
    output = io.StringIO()
    sink = TerminalSink(output, token_format="inline")
    log = Log(sink)

    log.start()
    sink.flush()
    assert output.getvalue() == ""
    log.end()

    assert output.getvalue().startswith("✓ QA")
    assert "\x1b" not in output.getvalue()


# --- wrapping -----------------------------------------------------------------------------------------------

_texts = st.text(alphabet="ab \n漢é", max_size=200)


@given(_texts, st.lists(st.integers(0, 200)), st.integers(4, 20))
def test_where_pieces_are_cut_does_not_matter(text: str, cuts: list[int], width: int) -> None:
    def rows(pieces: list[str]) -> list[str]:
        prose = Prose()
        prose.count(width)
        for piece in pieces:
            prose.add(piece)
        return [prose.row(n) for n in range(prose.count(width))]

    ends = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})

    assert rows([text[a:b] for a, b in pairwise(ends)]) == rows([text])


@given(_texts, st.integers(4, 20), st.integers(4, 20))
def test_rows_fit_and_lose_nothing_when_the_width_changes(text: str, width: int, other: int) -> None:
    prose = Prose()
    prose.count(other)

    prose.add(text)

    rows = [prose.row(n) for n in range(prose.count(width))]
    assert all(cell_len(row) <= width for row in rows)
    assert "".join(rows).replace(" ", "") == text.replace("\n", "").replace(" ", "")


# --- choosing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "environ", "in_notebook", "expected"),
    [
        (Terminal(), {"TERM": "xterm"}, False, "inline"),
        (Terminal(), {}, False, "inline"),
        (Terminal(), {"TERM": "dumb"}, False, "lines"),
        (io.StringIO(), {"TERM": "xterm"}, False, "lines"),
        (io.StringIO(), {"TERM": "dumb"}, True, "inline"),
    ],
)
def test_a_terminal_and_a_notebook_get_the_tree(
    stream: io.StringIO, environ: dict[str, str], in_notebook: bool, expected: str
) -> None:
    assert chosen(stream, environ, in_notebook=in_notebook) == expected


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match='expected "inline", "lines" or None'):
        TerminalSink(token_format="tree")  # pyright: ignore


class _Notebook:
    """What IPython's `display` does, as far as we use it."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def __call__(self, renderable: Any, *, display_id: bool) -> "_Notebook":
        assert display_id
        assert "text/html" in renderable._repr_mimebundle_([], [])
        self.shown.append(renderable.plain)
        return self

    def update(self, renderable: Any) -> None:
        self.shown[-1] = renderable.plain


def test_a_notebook_has_a_display_for_each_program_updated_in_place() -> None:
    notebook = _Notebook()
    view = Live(Cells(notebook), show_tokens=True, show_data=True)

    for n in range(2):
        log = Log(view, str(n))
        log.start()
        log.lm_start()
        log.tokens(f"answer {n}")
        view.flush(None)
        log.end()
    view.close()

    assert len(notebook.shown) == 2
    assert all(f"answer {n}" in shown and "1 LM call" in shown for n, shown in enumerate(notebook.shown))


# --- the program's own output, and readers that leave -------------------------------------------------------


@contextmanager
def _terminal_as_stdout(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Make a real terminal of `sys.stdout`; yields the end that a person looks at."""
    person, program = pty.openpty()
    with open(program, "w", encoding="utf-8", buffering=1) as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        yield person
    os.close(person)


def _seen(person: int, *, until: str) -> str:
    """Return what arrives at the person's end, which the kernel hands over in pieces."""
    seen = b""
    while until.encode() not in seen:
        assert select.select([person], [], [], 5)[0], f"{until!r} did not arrive after {seen!r}"
        seen += os.read(person, 65536)
    return seen.decode(errors="replace")


def test_what_the_program_prints_stands_where_it_was_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    with _terminal_as_stdout(monkeypatch) as person:
        before = sys.stdout
        sink = TerminalSink()
        log = Log(sink)

        log.start()
        print("while it runs")
        log.end()
        print("after", "it", end="")
        sink.flush()
        restored = sys.stdout is before
        written = _seen(person, until="after it")

    assert restored
    shown = screen(written.replace("\r\n", "\n"))
    assert shown.index("while it runs") < shown.index("✓ QA") < shown.index("after it")
    assert shown.endswith("after it")


def test_a_reference_to_stdout_that_outlives_the_tree_writes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    with _terminal_as_stdout(monkeypatch) as person:
        sink = TerminalSink()
        log = Log(sink)
        log.start()
        kept = sys.stdout
        log.end()
        sink.flush()
        _seen(person, until="LM call")

        kept.write("late\n")
        written = _seen(person, until="late")

    assert "✓" not in written


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_no_error(unbuffered: str) -> None:
    script = """
from datetime import UTC, datetime
from streamll.core.events import TokenEvent
from streamll.sinks import TerminalSink
sink = TerminalSink()
token = TokenEvent(event_id="", execution_id="", sequence=0, timestamp=datetime.now(UTC), data={"token": "x"})
for _ in range(50_000):
    sink.handle_event(token)
"""
    command = ["sh", "-c", '"$0" -c "$1" | head -1', sys.executable, script]
    environ = os.environ | {"PYTHONUNBUFFERED": unbuffered}

    ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)

    assert ran.stdout == '[TOKEN] "x"\n'
    assert ran.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_an_error() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        log = Log(TerminalSink(full))

        with pytest.raises(OSError, match="No space left"):
            log.tokens("lost")


def test_a_process_without_stdout_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)

    Log(TerminalSink()).tokens("nobody sees this")


def test_a_changed_stdout_keeps_the_tree_on_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", old)
    sink = TerminalSink(token_format="inline")
    log = Log(sink)

    log.start("before")
    monkeypatch.setattr(sys, "stdout", new)
    log.send("docs_found", call_id="root")
    sink.stop()

    assert "before" in screen(old.getvalue())
    assert "docs_found" in screen(new.getvalue())


def test_a_closed_stream_is_no_error() -> None:
    _, log, output = lines()

    output.close()

    log.tokens("nobody reads this")
