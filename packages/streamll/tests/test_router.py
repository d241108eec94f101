"""Sinks: each has its own bounded queue and worker; a bad one costs nobody else anything."""

import asyncio
import logging
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dspy
import pytest
import streamll
from conftest import Seen
from scripted import chat, lm, needs_engines
from streamll import Event, decode
from streamll.core import outlets
from streamll.sinks import BaseSink, JsonlSink
from test_tree import check_log

LONG = chat(answer="word " * 100)


def ask(model: dspy.LM | None = None) -> Any:
    with dspy.context(lm=model or lm(LONG)):
        return dspy.Predict("question -> answer")(question="?")


def test_a_sink_that_hangs_delays_neither_the_program_nor_other_sinks() -> None:
    seen, release = Seen(), threading.Event()
    streamll.configure([lambda _: release.wait(30), seen.append])

    result = ask()

    deadline = time.monotonic() + 10
    while not any(e.is_last for e in list(seen)) and time.monotonic() < deadline:
        time.sleep(0.01)
    release.set()
    assert result.answer == ("word " * 100).strip()
    check_log(seen)


def test_a_sink_that_raises_is_counted_and_logged_a_line_a_doubling(caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen()

    def bad(_: Event) -> None:
        raise OSError("disk full")

    streamll.configure([bad, seen.append])
    ask()
    check_log(seen.settled())

    lines = [r for r in caplog.records if r.name == "streamll" and r.levelno == logging.WARNING]
    assert 1 <= len(lines) < 12 < len(seen)
    assert "failed on 1 event(s) so far: OSError: disk full" in lines[0].getMessage()


def test_an_async_sink_is_awaited() -> None:
    seen = Seen()

    async def sink(event: Event) -> None:
        await asyncio.sleep(0)
        seen.append(event)

    streamll.configure([sink])
    ask()

    check_log(seen.settled())


def test_a_full_queue_drops_the_oldest_and_counts(caplog: pytest.LogCaptureFixture) -> None:
    release, seen = threading.Event(), Seen()

    def slow(event: Event) -> None:
        release.wait(30)
        seen.append(event)

    outlet = outlets.SinkOutlet(slow, limit=10)
    streamll.configure([])
    for number in range(100):
        outlet.put([event(number)])
    release.set()
    assert outlet.flush(10)

    assert outlet.dropped >= 10
    assert outlet.dropped + len(seen) == 100
    assert [e.sequence for e in seen][-10:] == list(range(90, 100))
    assert "too slow: 10 events wait" in caplog.text


def event(number: int) -> Event:
    now = datetime.now(UTC)
    return Event(event_id=str(number), execution_id="e", sequence=number, timestamp=now, event_type="x")


class Collecting(BaseSink):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.threads: set[str] = set()
        self.flushed = 0

    def handle_event(self, event: Event) -> None:
        assert self.is_running
        self.threads.add(threading.current_thread().name)
        self.events.append(event)

    def flush(self, timeout: float | None = None) -> bool:
        self.flushed += 1
        return True


def test_a_base_sink_is_started_and_runs_on_one_worker_of_its_own() -> None:
    sink = Collecting()
    streamll.configure([sink])

    ask()
    assert streamll.flush(10)

    assert sink.threads == {"streamll Collecting"}
    assert sink.flushed >= 1
    sink.stop()
    assert not sink.is_running


def test_a_base_sink_must_handle_events() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseSink()  # pyright: ignore


def test_flush_says_when_time_was_not_enough() -> None:
    release = threading.Event()
    streamll.configure([lambda _: release.wait(30)])
    streamll.emit("x")

    assert streamll.flush(0.05) is False
    release.set()
    assert streamll.flush(10) is True


def test_jsonl_appends_a_line_an_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        sink = JsonlSink(path)
        with streamll.configure([sink]):
            ask()
        sink.stop()

    events = [decode(line) for line in path.read_bytes().splitlines()]
    check_log(events)
    assert len({e.execution_id for e in events}) == 2


def test_jsonl_writes_to_a_descriptor_and_leaves_it_open() -> None:
    read, write = os.pipe()
    sink = JsonlSink(write)
    with streamll.configure([sink]):
        streamll.emit("hello")
    sink.stop()
    os.close(write)

    with open(read, "rb") as pipe:
        assert [decode(line).event_type for line in pipe][1:-2] == ["trace_start", "hello"]


def test_a_worker_that_was_idle_starts_again(monkeypatch: pytest.MonkeyPatch, seen: Seen) -> None:
    monkeypatch.setattr(outlets, "_IDLE_SECONDS", 0.05)
    streamll.emit("one")
    seen.settled()
    time.sleep(0.3)

    streamll.emit("two")

    assert seen.of("one", "two") == [e for e in seen if e.event_type in ("one", "two")]
    assert len(seen.of("two")) == 1


def test_a_forked_child_reports_too() -> None:
    seen = Seen()
    read, write = os.pipe()
    streamll.configure([seen.append])
    streamll.emit("before")
    seen.settled()

    if (child := os.fork()) == 0:
        streamll.emit("inside")
        done = streamll.flush(5) and [e.event_type for e in seen].count("inside") == 1
        os.write(write, b"1" if done else b"0")
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(read, 1) == b"1"
    os.close(read)
    os.close(write)


def test_an_event_filter_costs_no_tokens_when_it_leaves_them_out(seen: Seen) -> None:
    model = lm(LONG)
    with streamll.configure(event_filter={"module_*"}):
        ask(model)

    assert model.engine.chunks == 0
    assert set(seen.types()) == {"module_start", "module_end"}
    assert [e.sequence for e in seen] == [0, 1]


@needs_engines  # LiteLLM leaves some
def test_executions_leave_nothing_behind() -> None:
    import gc
    import tracemalloc

    streamll.configure([lambda event: None])
    model = lm(chat(answer="a"))
    program = dspy.Predict("question -> answer")

    def burst(calls: int) -> None:
        with dspy.context(lm=model, disable_history=True, trace=None):
            for _ in range(calls):
                program(question="?")
        streamll.flush(30)
        gc.collect()

    burst(100)
    threads = threading.active_count()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    burst(300)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    assert grown < 300 * 200, f"{grown / 300:.0f} bytes a call stay"
    assert threading.active_count() <= threads
