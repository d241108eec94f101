"""What a hostile review of sinks, consumers and SQLite found: each is a rule that holds now."""

import asyncio
import os
import signal
import subprocess
import sys
from asyncio import timeout
from datetime import timedelta
from pathlib import Path

import pytest
import streamll
from logs import all_of, event, new_execution, run_of, sequences
from own_servers import OwnServer, redis_server
from streamll import Event, EventConsumer, EventLog
from streamll.sinks import RedisSink, SqliteSink
from streamll.sinks._spill import Spill
from streamll.transports import Retention
from streamll.transports.base import Group


def program(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


FORKED = """
import os, sys, streamll
streamll.configure([streamll.sinks.SqliteSink(sys.argv[1])])
with streamll.trace("job") as step:
    if (child := os.fork()) == 0:
        with streamll.trace("inner"):
            step.emit("of the child")
        streamll.flush(5)
        os._exit(0)
    os.waitpid(child, 0)
    step.emit("of the parent")
"""


async def test_a_fork_leaves_an_execution_to_its_parent(tmp_path: Path) -> None:
    path = str(tmp_path / "events.db")

    with program(FORKED, path) as forked:
        assert forked.wait(60) == 0

    runs = await EventLog(f"sqlite:///{path}").executions()
    assert sorted((str(run.program), run.status, run.events) for run in runs) == [
        ("inner", "ok", 4),
        ("job", "ok", 5),
    ]


@pytest.fixture
def own(tmp_path: Path):  # pyright: ignore
    with redis_server(tmp_path) as running:
        yield running


async def test_a_sink_stopped_in_an_outage_goes_on_where_it_was(own: OwnServer, tmp_path: Path) -> None:
    for _ in range(4):
        sink, events = RedisSink(own.url, spill_directory=tmp_path / "spill"), run_of(98)
        own.stop()
        sink.put(events[:90])
        sink.stop()
        sink.put(events[90:])
        own.start()

        assert sink.flush(20)
        async with timeout(20):
            assert await all_of(EventLog(own.url).read(events[0].execution_id)) == events
        sink.stop()


def test_a_spill_of_what_is_no_event_is_counted_and_passed(tmp_path: Path, target: str) -> None:
    sink = SqliteSink(f"memory:{target}", spill_directory=tmp_path)
    spill = Spill(sink.new_spill())
    spill.append([b"no event", b'{"version":2}'])
    spill.close()

    sink.put(run_of(1))

    assert sink.flush(10)
    assert (sink.stats().sent, sink.stats().dropped) == (3, 2)
    sink.stop()


async def test_what_cannot_be_encoded_loses_only_itself(tmp_path: Path, target: str) -> None:
    sink, events = SqliteSink(f"memory:{target}", spill_directory=tmp_path), run_of(3)
    bad = event(events[0].execution_id, 2, token=object())

    sink.put([*events[:2], bad, *events[3:]])

    assert sink.flush(10)
    async with timeout(20):
        got = await all_of(EventLog(f"memory:{target}").read(events[0].execution_id))
    assert [one.event_type for one in got] == ["execution_start", "token", "gap", "token", "execution_end"]
    assert sink.stats().dropped == 1
    sink.stop()


async def test_stops_do_not_make_dead_letters() -> None:
    url = "memory:stops"
    log = EventLog(url)
    log.append(run_of(18))
    got: list[Event] = []
    for _ in range(20):
        consumer = EventConsumer(url, start="earliest", group="g", max_deliveries=3)
        one = await consumer.consume_one(timeout=5)
        assert one is not None
        got.append(one)
        await consumer.stop()

    assert sorted(sequences(got)) == list(range(20))
    assert await log.dead_letters() == []


async def test_what_kills_members_takes_no_neighbours_with_it() -> None:
    url = "memory:neighbours"
    log = EventLog(url)
    log.append(run_of(8))
    for name in "abc":  # each takes what there is, and dies
        async with log.backend.follow("earliest", Group("g", name, timedelta(seconds=0.01))) as subscription:
            taken = await subscription.next()
        await asyncio.sleep(0.02)

    assert [len(taken), taken[0].attempts] == [1, 3]


async def test_a_predicate_that_raises_does_not_end_run() -> None:
    url = "memory:predicates"
    EventLog(url).append(run_of(1))
    consumer, seen = EventConsumer(url, start="earliest", retries=0), list[int]()
    consumer.on("*", where=lambda e: e.data["token"] == "t1 ")(lambda e: seen.append(e.sequence))

    @consumer.on("*")
    async def last(got: Event) -> None:
        if got.sequence == 1:
            await consumer.stop()

    async with timeout(20):
        await consumer.run()

    assert seen == [1]


SERVICES = """
import asyncio, sys, streamll
streamll.configure([lambda event: None])
consumers = [streamll.EventConsumer(sys.argv[1], start="earliest", group=name) for name in ("g", "h")]

for consumer in consumers:
    @consumer.on("*")
    async def handle(event):
        print("begins", flush=True)
        await asyncio.sleep(0.3)
        print("ends", flush=True)

async def main():
    await asyncio.gather(*[consumer.run() for consumer in consumers])

asyncio.run(main())
"""


def test_a_signal_stops_every_consumer_also_beside_a_sink(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    EventLog(url).append(run_of(3))
    with program(SERVICES, url) as service:
        assert service.stdout
        assert [service.stdout.readline(), service.stdout.readline()] == ["begins\n", "begins\n"]

        service.send_signal(signal.SIGTERM)

        assert service.stdout.read() == "ends\nends\n"
        assert service.wait(20) == 0


async def test_a_file_that_was_deleted_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    log = EventLog(f"sqlite:///{path}")
    log.append(run_of(1))
    for file in tmp_path.iterdir():
        file.unlink()

    log.append(kept := run_of(1))

    assert [run.execution_id for run in await EventLog(f"sqlite:///{path}").executions()] == [
        kept[0].execution_id
    ]


async def test_never_is_a_retention_too(target: str) -> None:
    log = EventLog(f"memory:{target}", retention=Retention(age=timedelta.max, abandoned=timedelta.max))

    log.append(events := run_of(1))

    async with timeout(20):
        assert await all_of(log.read(events[0].execution_id)) == events


async def test_a_follower_from_the_earliest_is_not_told_of_cuts_before_it_came(target: str) -> None:
    log = EventLog(f"memory:{target}", retention=Retention(events=20))
    log.append(run_of(2, ended=False))
    log.append(gone := run_of(20))
    async with timeout(20):
        while gone[0].execution_id in [run.execution_id for run in await log.executions()]:
            await asyncio.sleep(0.2)
            log.append(run_of(20))

    consumer = EventConsumer(f"memory:{target}", start="earliest")
    got = [await consumer.consume_one(timeout=5) for _ in range(3)]
    await consumer.stop()

    assert all(got)


def test_a_gap_is_no_name_for_an_event_of_a_program(seen: list[Event]) -> None:
    with streamll.trace("x") as step, pytest.raises(ValueError, match="'gap'"):
        step.emit("gap")


def test_a_name_for_an_execution_sorts_by_time() -> None:
    assert new_execution(timedelta(seconds=1)) < new_execution()
