"""TransportSink: what waits while the server is away, what is lost past the limits, what a user is told."""

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import time
from asyncio import timeout
from collections.abc import Generator
from pathlib import Path

import dspy
import pytest
import streamll
from logs import all_of, event, run_of, sequences
from own_servers import OwnServer, redis_server
from scripted import chat, lm
from streamll import Event
from streamll.errors import BadUrl
from streamll.eventlog import EventLog
from streamll.sinks import NatsSink, RabbitMQSink, RedisSink, SqliteSink, TransportSink
from streamll.sinks._gaps import Gaps
from streamll.transports.base import Entry, without_password


@pytest.fixture
def own(tmp_path: Path) -> Generator[OwnServer]:
    """A Redis of the test's own, to be stopped and started."""
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
def spill(tmp_path: Path) -> Path:
    return tmp_path / "spill"


async def logged(url: str, target: str, execution: str) -> list[Event]:
    async with timeout(20):
        return await all_of(EventLog(url, target).read(execution))


# --- the way of an event ------------------------------------------------------------------------------------


async def test_a_program_writes_to_the_log(url: str, target: str) -> None:
    sink = TransportSink(url, target)
    with streamll.configure([sink]), dspy.context(lm=lm(chat(answer="Paris"))):
        dspy.Predict("question -> answer")(question="Capital of France?")

    assert streamll.flush(20)

    (run,) = await EventLog(url, target).executions()
    events = await logged(url, target, run.execution_id)
    assert (run.status, run.events, run.program) == ("ok", len(events), "Predict")
    assert sequences(events) == list(range(len(events)))
    assert "".join(str(e.data["token"]) for e in events if e.event_type == "token") == "Paris"
    assert sink.stats().sent == len(events)
    assert sink.stats().queued == sink.stats().dropped == sink.stats().retried == 0
    sink.stop()


async def test_events_keep_their_order_whatever_the_batches(url: str, target: str, spill: Path) -> None:
    sink = TransportSink(url, target, spill_directory=spill)
    events = run_of(3_000)

    for one in events:
        sink.handle_event(one)

    assert sink.flush(30)
    assert await logged(url, target, events[0].execution_id) == events
    sink.stop()


async def test_a_stopped_sink_starts_again(url: str, target: str) -> None:
    sink = TransportSink(url, target)
    events = run_of(3)

    for one in events:
        sink.handle_event(one)
        sink.stop()

    assert await logged(url, target, events[0].execution_id) == events


# --- the server is away -------------------------------------------------------------------------------------


async def test_what_comes_while_the_server_is_away_arrives_in_order(own: OwnServer, spill: Path) -> None:
    sink = RedisSink(own.url, spill_directory=spill)
    events = run_of(400)
    sink.put(events[:100])
    assert sink.flush(10)

    own.stop()
    sink.put(events[100:200])
    await asyncio.sleep(1.6)  # long enough for the spill
    sink.put(events[200:300])
    assert not sink.flush(0.2)
    assert sink.stats().spilled >= 100
    own.start()
    sink.put(events[300:])

    assert sink.flush(20)
    assert await logged(own.url, "streamll_events", events[0].execution_id) == events
    assert (sink.stats().dropped, sink.stats().queued) == (0, 0)
    sink.stop()
    assert not list(spill.glob("*"))


async def test_an_outage_is_one_line_in_the_log(
    own: OwnServer, spill: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = RedisSink(own.url, spill_directory=spill)
    caplog.set_level(logging.INFO, "streamll")
    own.stop()

    for one in run_of(200):
        sink.handle_event(one)
        time.sleep(0.005)
    own.start()

    assert sink.flush(20)
    warnings = [r for r in caplog.records if r.levelno >= logging.WARNING]
    back = [r for r in caplog.records if r.levelno == logging.INFO]
    assert len(warnings) == 1
    assert len(back) == 1, [r.getMessage() for r in caplog.records]
    assert "202 events sent" in back[0].getMessage()
    assert sink.stats().retried > 0
    assert "Unreachable" in str(sink.stats().last_error)
    sink.stop()


async def test_a_program_does_not_notice_a_dead_server(own: OwnServer, spill: Path) -> None:
    sink = RedisSink(own.url, spill_directory=spill)
    program = dspy.Predict("question -> answer")

    def took() -> float:
        began = time.perf_counter()
        for number in range(30):
            assert program(question=f"{number}?").answer == "Paris"
        return time.perf_counter() - began

    with streamll.configure([sink]), dspy.context(lm=lm(chat(answer="Paris"))):
        took()
        alive = min(took() for _ in range(3))
        own.stop()
        dead = min(took() for _ in range(3))

    assert dead < alive * 1.5 + 0.05
    own.start()
    assert sink.flush(20)
    sink.stop()


async def test_leaving_configure_does_not_wait_for_a_dead_server(own: OwnServer, spill: Path) -> None:
    sink = RedisSink(own.url, spill_directory=spill)
    own.stop()

    def took() -> float:
        began = time.perf_counter()
        with streamll.configure([sink]), streamll.trace("request"):
            pass
        return time.perf_counter() - began

    first = took()
    assert sink.is_away

    assert took() < max(first, 2) / 4
    own.start()
    assert sink.flush(20)
    assert not sink.is_away
    sink.stop()


async def test_past_the_limits_the_oldest_go_and_the_log_says_so(own: OwnServer, spill: Path) -> None:
    sink = RedisSink(own.url, spill_directory=spill, buffer_events=50, spill_bytes=0)
    events = run_of(300)
    sink.put(events[:20])
    assert sink.flush(10)
    own.stop()
    sink.put(events[20:])

    own.start()

    assert sink.flush(20)
    got = await logged(own.url, "streamll_events", events[0].execution_id)
    (gap,) = [one for one in got if one.event_type == "gap"]
    assert [*sequences(got[: got.index(gap)])] == list(range(20))
    assert (gap.data["first"], gap.data["count"]) == (20, sink.stats().dropped)
    assert got[got.index(gap) + 1 :] == events[gap.sequence + 1 :]
    assert gap.sequence == 20 + sink.stats().dropped - 1
    sink.stop()


async def test_an_execution_that_was_dropped_whole_has_an_end(own: OwnServer, spill: Path) -> None:
    sink = RedisSink(own.url, spill_directory=spill, buffer_events=10, spill_bytes=0)
    lost, kept = run_of(20), run_of(7)
    own.stop()
    sink.put(lost)
    sink.put(kept)

    own.start()

    assert sink.flush(20)
    told = await logged(own.url, "streamll_events", lost[0].execution_id)
    counts = [each.data["count"] if each.event_type == "gap" else 1 for each in told]
    assert sum(counts) == len(lost)  # a gap or two: the sender may have had some in hand
    assert told[-1].is_last
    assert await logged(own.url, "streamll_events", kept[0].execution_id) == kept
    sink.stop()


async def test_a_full_spill_drops_its_oldest(own: OwnServer, spill: Path) -> None:
    size = len(streamll.encode(run_of(1)[1]))
    sink = RedisSink(own.url, spill_directory=spill, buffer_events=400, spill_bytes=300 * size)
    own.stop()
    runs = [run_of(98) for _ in range(6)]
    for events in runs:
        sink.put(events)
        await asyncio.sleep(0.5)

    own.start()

    assert sink.flush(30)
    assert sink.stats().dropped > 0
    assert await logged(own.url, "streamll_events", runs[-1][0].execution_id) == runs[-1]
    first = await logged(own.url, "streamll_events", runs[0][0].execution_id)
    assert first[0].event_type == "gap"
    logs = [await logged(own.url, "streamll_events", events[0].execution_id) for events in runs]
    counts = [int(str(one.data["count"])) for got in logs for one in got if one.event_type == "gap"]
    assert sum(counts) == sink.stats().dropped
    sink.stop()


async def test_without_a_place_to_spill_memory_holds_what_it_may(own: OwnServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    sink = RedisSink(own.url, spill_directory=tmp_path / "file")
    own.stop()
    events = run_of(100)
    sink.put(events)
    await asyncio.sleep(1.6)

    own.start()

    assert sink.flush(20)
    assert await logged(own.url, "streamll_events", events[0].execution_id) == events
    assert sink.stats().spilled == 0
    sink.stop()


async def test_an_event_that_cannot_be_stored_is_not_in_the_way_of_others(spill: Path, target: str) -> None:
    sink = SqliteSink(f"memory:{target}", spill_directory=spill)
    events = run_of(5)
    bad = event(events[0].execution_id, 2**70)

    sink.put([*events[:3], bad, *events[3:]])

    assert sink.flush(10)
    assert await logged(f"memory:{target}", "streamll_events", events[0].execution_id) == events
    assert sink.stats().dropped == 1
    sink.stop()


# --- the process ends ---------------------------------------------------------------------------------------

PROGRAM = """
import dspy, os, signal, sys, time, streamll
from logs import run_of
sink = streamll.sinks.TransportSink(sys.argv[1], spill_directory=sys.argv[2])
streamll.configure([sink])
with streamll.trace("work") as step:
    for number in range(50):
        step.emit("step", number=number)
print("ready", flush=True)
{last}
"""


def ended(last: str, url: str, spill: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{last}", last), url, str(spill)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("last", "code"),
    [
        ("", 0),
        ("raise SystemExit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(20)", -signal.SIGTERM),
    ],
)
async def test_nothing_is_lost_when_the_process_ends(
    tmp_path: Path, spill: Path, last: str, code: int
) -> None:
    url = f"sqlite:///{tmp_path}/events.db"

    assert ended(last, url, spill).returncode == code

    (run,) = await EventLog(url).executions()
    assert (run.status, run.events) == ("ok", 54)


async def test_what_a_process_could_not_send_the_next_one_sends(own: OwnServer, spill: Path) -> None:
    own.stop()
    first = ended("", own.url, spill)
    assert first.returncode == 0, first.stderr
    assert list(spill.glob("*.db"))
    assert all(path.stat().st_mode & 0o077 == 0 for path in spill.glob("*"))
    own.start()

    sink = RedisSink(own.url, spill_directory=spill)
    events = run_of(1)
    sink.put(events)

    assert sink.flush(20)
    runs = await EventLog(own.url).executions()
    assert sorted(run.events for run in runs) == [3, 54]
    sink.stop()
    assert not list(spill.glob("*"))


async def test_a_process_that_ends_in_an_outage_leaves_its_gaps_too(own: OwnServer, spill: Path) -> None:
    size = len(streamll.encode(run_of(1)[1]))
    sink = RedisSink(own.url, spill_directory=spill, buffer_events=400, spill_bytes=300 * size)
    own.stop()
    runs = [run_of(98) for _ in range(6)]
    for events in runs:
        sink.put(events)
        await asyncio.sleep(0.5)
    sink.stop()
    lost = sink.stats().dropped
    own.start()

    heir = RedisSink(own.url, spill_directory=spill)
    heir.put(run_of(1))

    assert heir.flush(30)
    logs = [await logged(own.url, "streamll_events", events[0].execution_id) for events in runs]
    gaps = [one for got in logs for one in got if one.event_type == "gap"]
    assert lost == sum(int(str(one.data["count"])) for one in gaps) > 0
    for got, events in zip(logs, runs, strict=True):
        missing = [
            n
            for one in got
            if one.event_type == "gap"
            for n in range(int(str(one.data["first"])), one.sequence + 1)
        ]
        there = [one.sequence for one in got if one.event_type != "gap"]
        assert sorted(missing + there) == sequences(events)
    heir.stop()


async def test_what_a_killed_process_had_spilled_the_next_one_sends(own: OwnServer, spill: Path) -> None:
    own.stop()
    assert ended("time.sleep(2); os.kill(os.getpid(), 9)", own.url, spill).returncode == -9
    own.start()

    sink = RedisSink(own.url, spill_directory=spill)
    sink.put(run_of(1))

    assert sink.flush(20)
    assert sorted(run.events for run in await EventLog(own.url).executions()) == [3, 54]
    sink.stop()


async def test_a_fork_sends_its_own_events_and_not_its_parents(tmp_path: Path, spill: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    fork = "pid = os.fork()\nwith streamll.trace('child' if not pid else 'parent'): pass\n"

    done = ended(fork + "streamll.flush(10)\nif not pid: os._exit(0)\nos.waitpid(pid, 0)", url, spill)

    assert done.returncode == 0, done.stderr
    runs = await EventLog(url).executions()
    assert sorted((str(run.program), run.events) for run in runs) == [
        ("child", 4),
        ("parent", 4),
        ("work", 54),
    ]


AMBIENT = """
import streamll, sys
seen = []
if sys.argv[1:]:
    streamll.configure([seen.append])
with streamll.trace("work"):
    pass
streamll.flush()
print(len(seen))
"""


@pytest.mark.parametrize(("arguments", "seen"), [((), "0"), (("configured",), "4")])
async def test_an_environment_variable_is_enough(tmp_path: Path, arguments: tuple[str], seen: str) -> None:
    url = f"sqlite:///{tmp_path}/events.db"

    done = subprocess.run(  # noqa: ASYNC221
        [sys.executable, "-c", AMBIENT, *arguments],
        env=os.environ | {"STREAMLL_SINK": url, "STREAMLL_TARGET": "mine"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.strip() == seen
    (run,) = await EventLog(url, "mine").executions()
    assert (run.program, run.status, run.events) == ("work", "ok", 4)


# --- what a user sees ---------------------------------------------------------------------------------------


def test_the_documents_spellings_of_a_place() -> None:
    place = "redis://somewhere:6379"
    for sink in (RedisSink(url=place, stream_key="ml"), RedisSink(redis_url=place, stream_key="ml")):
        assert (sink.url, sink.target) == (place, "ml")
    assert RedisSink(place, redis_url=place).url == place
    assert RabbitMQSink(rabbitmq_url="amqp://h").url == "amqp://h"
    assert NatsSink(nats_url="nats://h").url == "nats://h"
    with pytest.raises(TypeError, match="say two places"):
        RedisSink(place, redis_url="redis://elsewhere")


def test_a_password_is_never_shown() -> None:
    for sink in (
        RedisSink("redis://user:s3cret@h:6379/0?password=s3cret"),
        RabbitMQSink("amqp://user:s3cret@h/v"),
        NatsSink("nats://s3cret@h"),
    ):
        assert "s3cret" not in repr(sink)
        assert "s3cret" not in repr(sink.backend)
        assert "h" in repr(sink)
    with pytest.raises(TypeError) as told:
        RedisSink("redis://u:s3cret@h", redis_url="redis://u:0ther@h")
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://user:s3cret@h:6379/0?password=s3cret", "redis://user:***@h:6379/0"),
        ("redis://:s3cret@h", "redis://:***@h"),
        ("amqp://u:s3/cr@et@h/v", "amqp://u:***@h/v"),
        ("amqp://u@h/v", "amqp://u@h/v"),
        ("nats://s3cret@h", "nats://***@h"),
        ("tls://s3cret@h:4222", "tls://***@h:4222"),
        ("sqlite:///a@b/events.db", "sqlite:///a@b/events.db"),
        ("memory:x", "memory:x"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_a_url_that_names_no_backend_is_refused() -> None:
    with pytest.raises(BadUrl, match="memory:, sqlite:"):
        TransportSink("kafka://u:s3cret@h")


def test_an_idle_sink_can_be_forgotten(spill: Path, target: str) -> None:
    sink = SqliteSink(f"memory:{target}", spill_directory=spill)
    sink.put(run_of(1))
    assert sink.flush(10)
    sink.stop()
    mark = id(sink)
    del sink

    gc.collect()

    assert not [one for one in gc.get_objects() if id(one) == mark and isinstance(one, TransportSink)]


# --- gaps ---------------------------------------------------------------------------------------------------


def entries(events: list[Event]) -> list[Entry]:
    return [Entry(one, streamll.encode(one)) for one in events]


def marks(marked: object) -> list[tuple[str, object, object]]:
    return [
        (entry.event.event_type, entry.event.data.get("first"), entry.event.sequence)
        for entry in marked  # pyright: ignore
    ]


def test_a_gap_is_marked_where_it_is() -> None:
    events, gaps = run_of(8), Gaps()
    for one in events[2:5]:
        gaps.add(one, 1)

    marked, taken = gaps.take(entries([events[1], *events[5:7]]), all_of_them=False)

    assert marks(marked) == [("token", None, 1), ("gap", 2, 4), ("token", None, 5), ("token", None, 6)]
    assert not gaps
    gaps.restore(taken)
    assert marks(gaps.take([], all_of_them=True)[0]) == [("gap", 2, 4)]


def test_drops_at_two_places_are_two_gaps_until_they_meet() -> None:
    events, gaps = run_of(30), Gaps()
    for one in (*events[20:25], *events[5:8]):
        gaps.add(one, 1 if one.sequence >= 20 else 0)

    assert marks(gaps.take([], all_of_them=True)[0]) == [("gap", 5, 7), ("gap", 20, 24)]
    for one in (*events[20:25], *events[5:20], *events[25:28]):
        gaps.add(one, 1 if 20 <= one.sequence < 25 else 0)
    ((_, first, last),) = marks(gaps.take([], all_of_them=True)[0])
    assert (first, last) == (5, 27)
