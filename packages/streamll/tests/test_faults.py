"""Servers that die, freeze or refuse, processes that are killed: nothing is lost, or the log says so."""

import asyncio
import logging
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from asyncio import StreamReader, StreamWriter, timeout
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path
from statistics import median
from typing import Protocol
from urllib.parse import urlsplit

import dspy
import pika
import pytest
import redis
import streamll
from logs import all_of, new_name, run_of, sequences
from nats.aio.client import Client as NatsClient
from own_rabbitmq import OwnRabbitMQ, rabbitmq_server
from own_servers import NatsServer, free_port, nats_server, redis_server
from scripted import chat, lm
from servers import server
from streamll import Event, EventConsumer, EventLog
from streamll.errors import Refused, Unreachable
from streamll.sinks import TransportSink
from streamll.transports.base import Entry


class Own(Protocol):
    """A server of this file's own."""

    @property
    def url(self) -> str: ...
    @property
    def pid(self) -> int: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


SERVERS = {"redis": redis_server, "rabbitmq": rabbitmq_server, "nats": nats_server}


@pytest.fixture(scope="module", params=SERVERS)
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Own]:
    """A server to be hurt; each test leaves it running."""
    with SERVERS[request.param](tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def url(own: Own) -> str:
    """The place of the own server, given up after a second of silence."""
    return f"{own.url}?timeout=1"


@pytest.fixture
def spill(tmp_path: Path) -> Path:
    return tmp_path / "spill"


def kill(own: Own) -> None:
    """End the server as a crash would."""
    match own:
        case OwnRabbitMQ():
            own.kill()
        case NatsServer():
            own.stop(kill=True)
        case _:
            own.stop()


@contextmanager
def crashed(own: Own) -> Generator[None]:
    """Kill the server, and start it again in the end."""
    kill(own)
    try:
        yield
    finally:
        own.start()


@contextmanager
def frozen(own: Own) -> Generator[None]:
    """Let the server keep its port and connections, and say nothing."""
    own.pause()
    try:
        yield
    finally:
        own.resume()


@contextmanager
def sinking(url: str, target: str, spill: Path, **limits: int) -> Generator[TransportSink]:
    sink = TransportSink(url, target, spill_directory=spill, **limits)
    try:
        yield sink
    finally:
        sink.stop()


async def until(holds: Callable[[], object], seconds: float = 30) -> None:
    """Wait for what no event tells of."""
    async with timeout(seconds):
        while not holds():  # noqa: ASYNC110 - of a server, a thread or another process
            await asyncio.sleep(0.01)


async def flushed(sink: TransportSink, seconds: float = 30) -> bool:
    return await asyncio.to_thread(sink.flush, seconds)


def by_execution(events: Sequence[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for one in events:
        found.setdefault(one.execution_id, []).append(one)
    return found


def only(events: Sequence[Event], execution: str) -> list[Event]:
    return [one for one in events if one.execution_id == execution]


async def read(url: str, target: str, execution: str) -> list[Event]:
    async with timeout(30):
        return await all_of(EventLog(url, target).read(execution))


@asynccontextmanager
async def following(url: str, target: str, group: str | None = None) -> AsyncGenerator[list[Event]]:
    """Run a consumer, and have what its handler got."""
    got: list[Event] = []
    consumer = EventConsumer(url, target, start="earliest", group=group, claim_after=1)
    consumer.on("*")(got.append)
    async with timeout(20):
        await consumer.start()
    running = asyncio.create_task(consumer.run())
    try:
        yield got
    finally:
        async with timeout(20):
            await consumer.stop()
            await running


# --- a program runs on --------------------------------------------------------------------------------------


class Work:
    """A program in two threads: one execution that lasts all the time, and many short ones."""

    def __init__(self) -> None:
        self.phase = "before"
        self.took: dict[str, list[float]] = {}
        self.answers: Counter[str] = Counter()
        self._program = dspy.Predict("question -> answer")
        self._over = threading.Event()

    def long(self) -> None:
        with streamll.trace("long"):
            while not self._over.wait(0.02):
                self._call()

    def short(self) -> None:
        while not self._over.wait(0.1):
            self._call()

    def _call(self) -> None:
        phase, began = self.phase, time.perf_counter()
        self.answers[self._program(question="Capital of France?").answer] += 1
        self.took.setdefault(phase, []).append(time.perf_counter() - began)

    @asynccontextmanager
    async def going_on(self) -> AsyncGenerator[None]:
        with dspy.context(lm=lm(chat(answer="Paris"))):
            threads = [asyncio.create_task(asyncio.to_thread(one)) for one in (self.long, self.short)]
        try:
            yield
        finally:
            self._over.set()
            await asyncio.gather(*threads)


@contextmanager
def during(work: Work, fault: Callable[[Own], object], own: Own) -> Generator[None]:
    with fault(own):  # pyright: ignore
        work.phase = "away"
        yield
        work.phase = "back"


async def test_nobody_loses_or_doubles_an_event_when_the_server_freezes_and_crashes(
    own: Own, url: str, target: str, spill: Path
) -> None:
    """A program, its reader and consumers go on. A crash costs RabbitMQ a queue it made a second ago."""
    seen: list[Event] = []
    live: list[Event] = []
    work = Work()

    async def read_live(execution: str) -> None:
        async for one in EventLog(url, target).read(execution):
            live.append(one)  # noqa: PERF401 - is looked at meanwhile

    with sinking(url, target, spill) as sink, streamll.configure([sink, seen.append]):
        async with following(url, target) as alone, following(url, target, "g") as shared:
            async with work.going_on():
                await until(lambda: len(work.took.get("before", ())) > 30)
                long = next(one.execution_id for one in seen if one.operation == "long")
                reading = asyncio.create_task(read_live(long))
                await until(lambda: alone and shared and live)

                for fault, seconds in ((frozen, 3), (crashed, 2)):
                    with fault(own):
                        work.phase = fault.__name__
                        await asyncio.sleep(seconds)  # an outage has a length, and nothing to wait for
                        work.phase = "back"
                    reached = only(seen, long)[-1].sequence
                    await until(lambda last=reached: live[-1].sequence >= last)
            assert await flushed(sink), sink.stats()
            await until(lambda: len(alone) >= len(seen) <= len(shared))
            async with timeout(20):
                await reading

    assert set(work.answers) == {"Paris"}
    for fault in ("frozen", "crashed"):
        assert median(work.took[fault]) < 1.5 * median(work.took["before"]) + 0.002
    assert sink.stats().retried > 0
    assert (sink.stats().dropped, sink.stats().queued, list(spill.glob("*"))) == (0, 0, [])
    assert live == by_execution(seen)[long]
    assert by_execution(alone) == by_execution(seen)
    assert sorted(one.event_id for one in shared) == sorted(one.event_id for one in seen)
    runs = list(by_execution(seen).items())
    assert all(sequences(events) == list(range(len(events))) for _, events in runs)
    for execution, events in runs[:: len(runs) // 8]:  # to read one of them, RabbitMQ reads all
        assert await read(url, target, execution) == events


async def test_flush_gives_up_in_its_time_while_the_server_is_frozen(
    own: Own, target: str, spill: Path
) -> None:
    events = run_of(50)
    with sinking(own.url, target, spill) as sink:
        sink.put(events[:10])
        assert await flushed(sink)

        with frozen(own):
            sink.put(events[10:])
            began = time.perf_counter()
            assert not await flushed(sink, 1)
            assert 0.9 < time.perf_counter() - began < 3

        assert await flushed(sink)
    assert await read(own.url, target, events[0].execution_id) == events


async def test_ten_frozen_seconds_cost_nothing(tmp_path: Path, target: str, spill: Path) -> None:
    events = run_of(1_000)
    with redis_server(tmp_path) as own, sinking(own.url, target, spill) as sink:
        reading = asyncio.create_task(read(own.url, target, events[0].execution_id))
        async with following(own.url, target) as got:
            sink.put(events[:1])
            await until(lambda: got)

            with frozen(own):
                for number in range(1, 101):
                    sink.put(events[number : number + 1])
                    await asyncio.sleep(0.1)
            sink.put(events[101:])

            assert await flushed(sink)
            await until(lambda: len(got) >= len(events))
        assert got == events == await reading
        assert sink.stats().dropped == 0


# --- processes that are killed ------------------------------------------------------------------------------


def script(source: str, *args: object) -> Sequence[str]:
    return (sys.executable, "-c", source, *map(str, args))


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}


@asynccontextmanager
async def process(source: str, *args: object) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run Python, and kill it in the end."""
    pipe = asyncio.subprocess.PIPE
    running = await asyncio.create_subprocess_exec(*script(source, *args), stdout=pipe, env=environment())
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            running.kill()
        await running.communicate()


class Proxy:
    """A port in front of a server, which can be closed, and can keep the server's answers to itself."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.swallows = False
        self.heard = 0
        self._to = (parts.hostname, parts.port)
        self._port = free_port()
        self.url = url.replace(f":{parts.port}", f":{self._port}")

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        async with asyncio.TaskGroup() as self._pipes:
            front = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
            try:
                yield
            finally:
                front.close()
                front.close_clients()

    async def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        back = await asyncio.open_connection(*self._to)
        self._pipes.create_task(self._pipe(reader, back[1], lambda: False))
        self._pipes.create_task(self._pipe(back[0], writer, lambda: self.swallows))

    async def _pipe(self, source: StreamReader, sink: StreamWriter, drops: Callable[[], bool]) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65_536):
                self.heard += len(data)
                if not drops():
                    sink.write(data)
                    await sink.drain()
        sink.close()


PRODUCER = """
import sys, time
from logs import run_of
from streamll.sinks import TransportSink
url, target, spill = sys.argv[1:]
sink = TransportSink(url, target, spill_directory=spill)
print("ready", flush=True)
while True:
    one, other = run_of(20), run_of(20)
    for start in range(0, 22, 7):
        sink.put(one[start : start + 7] + other[start : start + 7])
        time.sleep(0.002)
"""


async def test_what_a_killed_producer_stored_has_no_hole_and_what_it_spilled_comes_once(
    own: Own, url: str, target: str, spill: Path
) -> None:
    moments, proxy = random.Random(7), Proxy(url)
    async with proxy.listening(), following(url, target) as got:
        async with AsyncExitStack() as processes:
            running = [process(PRODUCER, proxy.url, target, spill) for _ in range(3)]
            producers = [await processes.enter_async_context(one) for one in running]
            async with timeout(60):
                for producer in producers:
                    assert producer.stdout
                    await producer.stdout.readline()
            for number, producer in enumerate(producers):
                proxy.swallows = number > 0
                await asyncio.sleep(moments.uniform(0.1, 0.4) + 1.7 * proxy.swallows)
                producer.kill()
        proxy.swallows = False
        left = sum(map(rows_in, spill.glob("*.db")))
        last = run_of(1)
        with sinking(proxy.url, target, spill) as second:
            second.put(last)
            assert await flushed(second), second.stats()
            assert second.stats().sent == left + len(last)
        await until(lambda: got and got[-1] == last[-1])

    assert left > 0
    assert list(spill.glob("*.db")) == []
    runs = by_execution(got)
    assert len(runs) > 20
    for events in runs.values():
        assert sequences(events) == list(range(len(events)))
    listed = await EventLog(url, target).executions(limit=100_000)
    assert {run.execution_id: run.events for run in listed} == {name: len(run) for name, run in runs.items()}


def rows_in(path: Path) -> int:
    """Return how many events wait in a spill file; its process may have been killed as it made it."""
    with closing(sqlite3.connect(path)) as db:
        made = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return db.execute("SELECT count(*) FROM spill").fetchone()[0] if made else 0


MEMBER = """
import asyncio, sys, streamll
consumer = streamll.EventConsumer(sys.argv[1], sys.argv[2], start="earliest", group="g", claim_after=1)
@consumer.on("*")
async def handle(event):
    print(event.event_id, flush=True)
    await asyncio.sleep(0.02)
asyncio.run(consumer.run())
"""


async def test_what_a_killed_member_held_goes_to_another(own: Own, url: str, target: str) -> None:
    events = [one for _ in range(3) for one in run_of(98)]
    await asyncio.to_thread(EventLog(url, target).append, events)

    async with process(MEMBER, url, target) as victim, timeout(60):
        assert victim.stdout
        handled = [(await victim.stdout.readline()).decode().strip() for _ in range(20)]
        victim.kill()
        handled += (await victim.stdout.read()).decode().split()
    async with following(url, target, "g") as got:
        await until(lambda: {one.event_id for one in events} <= {*handled, *(one.event_id for one in got)})

    rest = [one.event_id for one in got]
    assert handled[:20] == [one.event_id for one in events[:20]]
    assert len(set(rest)) == len(rest)
    assert {one.event_id for one in events} - set(handled) <= set(rest)


FORKS = """
import os, sys, streamll
from streamll.sinks import TransportSink
url, target, spill = sys.argv[1:]
sink = TransportSink(url, target, spill_directory=spill)
streamll.configure([sink])
def work(name):
    for _ in range(20):
        with streamll.trace(name) as step:
            for number in range(20):
                step.emit("step", number=number)
work("before")
pid = os.fork()
work("parent" if pid else "child")
if not pid:
    os._exit(0 if streamll.flush(20) else 1)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.exit(code or (0 if streamll.flush(20) else 2))
"""


async def test_a_fork_in_the_middle_of_sending_loses_and_doubles_nothing(
    own: Own, url: str, target: str, spill: Path
) -> None:
    async with process(FORKS, url, target, spill) as forking, timeout(60):
        assert await forking.wait() == 0

    runs = await EventLog(url, target).executions(100)
    assert Counter(run.program for run in runs) == {"before": 20, "parent": 20, "child": 20}
    assert {(run.status, run.events) for run in runs} == {("ok", 24)}


TERMINATED = """
import sys, time, streamll
from streamll.sinks import TransportSink
url, target, spill = sys.argv[1:]
sink = TransportSink(url, target, spill_directory=spill)
streamll.configure([sink])
with streamll.trace("early"):
    pass
assert streamll.flush(20)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(10):
    with streamll.trace("late") as step:
        for number in range(20):
            step.emit("step", number=number)
print("done", flush=True)
time.sleep(60)
"""


async def test_a_process_that_is_told_to_end_leaves_what_waits_to_the_next(
    own: Own, url: str, target: str, spill: Path
) -> None:
    pipe = asyncio.subprocess.PIPE
    ending = await asyncio.create_subprocess_exec(
        *script(TERMINATED, url, target, spill), stdin=pipe, stdout=pipe, env=environment()
    )
    assert ending.stdout
    assert ending.stdin
    async with timeout(60):
        await ending.stdout.readline()
        with frozen(own):
            ending.stdin.write(b"\n")
            await ending.stdout.readline()
            ending.terminate()
            await ending.communicate()

    with sinking(url, target, spill) as sink:
        sink.put(run_of(1))
        assert await flushed(sink)

    assert ending.returncode == -signal.SIGTERM
    runs = await EventLog(url, target).executions(100)
    assert Counter(run.program for run in runs) == {"early": 1, "late": 10, "QA": 1}
    assert {(run.program, run.status, run.events) for run in runs} == {
        ("early", "ok", 4),
        ("late", "ok", 24),
        ("QA", "ok", 3),
    }


# --- a server that refuses, or is none ----------------------------------------------------------------------


@contextmanager
def gate(own: Own, directory: Path) -> Generator[tuple[str, Callable[[], object]]]:
    """Yield a URL with a password that is wrong, and what makes it right."""
    match own:
        case OwnRabbitMQ():
            try:
                change = partial(own.control, "change_password", "guest")
                yield own.url.replace(":guest@", ":s3cret@"), partial(change, "s3cret")
            finally:
                change("guest")
        case NatsServer():
            users = directory / "users.conf"
            store = f'jetstream {{ store_dir: "{directory}/store" }}\n'
            users.write_text(store + "authorization { user: app, password: other }")
            with nats_server(directory, "-c", str(users), jetstream=False) as guarded:

                def let_in() -> None:
                    users.write_text(store + "authorization { user: app, password: s3cret }")
                    os.kill(guarded.pid, signal.SIGHUP)

                yield guarded.url.replace("//", "//app:s3cret@"), let_in
        case _:
            with redis_server(directory, "--requirepass", "other") as guarded:

                def let_in() -> None:
                    with redis.Redis.from_url(guarded.url, password="other") as client:
                        client.config_set("requirepass", "s3cret")

                yield guarded.url.replace("//", "//:s3cret@"), let_in


async def test_a_wrong_password_is_told_to_readers_and_costs_the_program_nothing(
    own: Own, target: str, tmp_path: Path, spill: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Event] = []
    with gate(own, tmp_path) as (url, let_in), sinking(url, target, spill) as sink:
        with streamll.configure([sink, seen.append]), dspy.context(lm=lm(chat(answer="Paris"))):
            for _ in range(5):
                assert dspy.Predict("question -> answer")(question="Capital of France?").answer == "Paris"
            assert not await asyncio.to_thread(streamll.flush, 0.5)
        told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        for use in (read(url, target, "x"), EventConsumer(url, target).start()):
            with pytest.raises(Refused, match=r"127\.0\.0\.1:\d+") as refused:
                await use
            assert "s3cret" not in str(refused.value)
            assert re.search("password|credentials", str(refused.value))
        for login in ("nobody:wr0ng@", "nobody:@"):
            with pytest.raises(Refused) as refused:
                await read(re.sub("//.*@", f"//{login}", url), target, "x")
            assert "wr0ng" not in str(refused.value)

        let_in()

        await until(lambda: sink.flush(0.2))
        runs = by_execution(seen)
        assert len(runs) == 5
        for execution, events in runs.items():
            assert await read(url, target, execution) == events
        assert (sink.stats().sent, sink.stats().dropped) == (len(seen), 0)
        assert "Refused" in str(sink.stats().last_error)
    assert len(told) == 1
    assert "s3cret" not in f"{caplog.text}{sink.stats()}"


OTHERS = [
    ("redis", "rabbitmq"),
    ("redis", "nats"),
    ("amqp", "redis"),
    ("amqp", "nats"),
    ("nats", "redis"),
    ("nats", "rabbitmq"),
]


@pytest.mark.parametrize(("scheme", "there"), OTHERS)
async def test_another_kind_of_server_is_told_from_the_right_one(
    scheme: str, there: str, target: str, spill: Path
) -> None:
    """Redis waits for the end of the line that AMQP's greeting is not, so there it is silence."""
    parts = urlsplit(server(there))
    url = f"{scheme}://{parts.hostname}:{parts.port}?timeout=1"
    expected = Unreachable if (scheme, there) == ("amqp", "redis") else Refused
    with sinking(url, target, spill) as sink:
        sink.put(run_of(1))

        with pytest.raises(expected, match=f":{parts.port}") as told:
            async with timeout(8):
                await read(url, target, "x")
        if expected is Refused:
            with pytest.raises(Refused):
                async with timeout(8):
                    await EventConsumer(url, target).start()

        assert re.search("no Redis|(an)?other kind of server|AMQP 0-9-1", str(told.value))
        assert not sink.flush(0.2)
        await until(lambda: sink.stats().last_error)
        assert expected.__name__ in str(sink.stats().last_error)


@pytest.mark.parametrize("scheme", ["redis", "amqp", "nats"])
async def test_a_port_that_says_nothing_is_unreachable_within_the_timeout(
    scheme: str, target: str, spill: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"{scheme}://127.0.0.1:{port}?timeout=0.5"
        with sinking(url, target, spill) as sink:
            sink.put(run_of(1))

            with pytest.raises(Unreachable, match=rf":{port}\b.*"):
                async with timeout(5):
                    await read(url, target, "x")

            await until(lambda: "Unreachable" in str(sink.stats().last_error))


async def test_a_reader_that_waits_for_an_execution_outlives_its_server(
    own: Own, url: str, target: str
) -> None:
    proxy, events = Proxy(url), run_of(3)
    async with proxy.listening():
        reading = asyncio.create_task(read(proxy.url, target, events[0].execution_id))
        await until(lambda: proxy.heard)
        await asyncio.sleep(0.2)

    async with proxy.listening():
        await asyncio.to_thread(EventLog(url, target).append, events)

        assert await reading == events


async def test_a_consumer_stops_at_once_while_its_server_is_away(target: str) -> None:
    consumer = EventConsumer(f"redis://127.0.0.1:{free_port()}", target)
    consumer.on("*")(print)
    running = asyncio.create_task(consumer.run())
    await asyncio.sleep(3)  # the pauses between its tries have become long

    async with timeout(1):
        await consumer.stop()
        await running


# --- full disks and long outages ----------------------------------------------------------------------------


@contextmanager
def small_disk(path: Path) -> Generator[Path]:
    """A disk of a megabyte."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("one may not mount here")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


async def overfull(own: Own, url: str, target: str, spill: Path, **limits: int) -> None:
    """Give a sink more than it may keep, then a server; its gaps say exactly what is missing."""
    proxy, runs = Proxy(url), [run_of(998) for _ in range(12)]
    with sinking(proxy.url, target, spill, buffer_events=2_000, **limits) as sink:
        for events in runs:
            for start in range(0, len(events), 100):
                sink.put(events[start : start + 100])
                await asyncio.sleep(0.015)
        await until(lambda: sink.stats().dropped > 2_000)
        assert not await flushed(sink, 0.1)
        assert sink.stats().spilled > 500
        assert len(list(spill.glob("*.db"))) == 1

        async with proxy.listening():
            assert await flushed(sink), sink.stats()

        assert (sink.stats().queued, list(spill.glob("*"))) == (0, [])
    logs = [await read(url, target, events[0].execution_id) for events in runs]
    gaps = [one for log in logs for one in log if one.event_type == "gap"]
    assert sum(int(str(gap.data["count"])) for gap in gaps) == sink.stats().dropped
    for log, events in zip(logs, runs, strict=True):
        covered: list[int] = []
        for one in log:
            first = int(str(one.data["first"])) if one.event_type == "gap" else one.sequence
            covered += range(first, one.sequence + 1)
        assert covered == sequences(events)
        kept = {one.sequence: one for one in log if one.event_type != "gap"}
        assert list(kept.values()) == [one for one in events if one.sequence in kept]


async def test_on_a_full_disk_memory_holds_what_it_may_and_gaps_say_what_is_missing(
    own: Own, url: str, target: str, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        await overfull(own, url, target, disk / "spill")


async def test_a_full_spill_drops_its_oldest_and_gaps_say_what_is_missing(
    own: Own, url: str, target: str, spill: Path
) -> None:
    await overfull(own, url, target, spill, spill_bytes=700_000)


async def test_a_spill_that_cannot_be_read_any_more_is_counted_and_not_in_the_way(
    target: str, tmp_path: Path, spill: Path
) -> None:
    lost, kept = run_of(98), run_of(98)
    with redis_server(tmp_path) as own, sinking(own.url, target, spill) as sink:
        with crashed(own):
            sink.put(lost)
            await until(lambda: sink.stats().spilled == len(lost))
            (file,) = spill.glob("*.db")
            file.write_bytes(b"no database any more")
            sink.put(kept)

        assert await flushed(sink)
        assert await read(own.url, target, kept[0].execution_id) == kept
    assert (sink.stats().dropped, sink.stats().sent) == (len(lost), len(kept))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_an_hour_without_a_server_costs_disk_and_not_memory(
    tmp_path: Path, target: str, spill: Path
) -> None:
    """A tenth of 200 events a second for an hour, as fast as this machine makes them."""
    with redis_server(tmp_path) as own, sinking(own.url, target, spill) as sink:
        with crashed(own):
            runs: list[tuple[str, int]] = []
            warm = 0
            for number in range(72):
                events = run_of(998)
                runs.append((events[0].execution_id, len(events)))
                for start in range(0, len(events), 50):
                    sink.put(events[start : start + 50])
                await asyncio.sleep(0.03)
                if number == 20:
                    await until(lambda: not sink.queue)
                    warm = resident_bytes()
            await until(lambda: sink.stats().spilled == 72_000)
            grown = resident_bytes() - warm
            (file,) = spill.glob("*.db")
            assert rows_in(file) == sink.stats().queued == 72_000

        async with following(own.url, target) as got:
            assert await flushed(sink, 60)
            await until(lambda: len(got) >= 72_000, 60)

    assert grown < 16_000_000
    assert [(one.execution_id, one.sequence) for one in got] == [
        (name, number) for name, length in runs for number in range(length)
    ]
    assert (sink.stats().sent, sink.stats().dropped, list(spill.glob("*"))) == (72_000, 0, [])


# --- many threads, and what is no event ---------------------------------------------------------------------


async def test_eight_threads_of_two_hundred_programs_lose_nothing(
    request: pytest.FixtureRequest, transport: str, target: str, spill: Path
) -> None:
    seen: list[Event] = []
    ask = dspy.Predict("question -> answer")

    def work() -> None:
        for number in range(200):
            if number % 10 == 0:
                assert ask(question=f"{number}?").answer == "Paris"
            else:
                with streamll.trace("step") as step:
                    step.emit("one", number=number)
                    step.emit("two", number=number)

    answering = dspy.context(lm=lm(chat(answer="Paris")))
    with sinking(transport, target, spill) as sink, streamll.configure([sink, seen.append]), answering:
        threads = [threading.Thread(target=copy_context().run, args=(work,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        async with following(transport, target) as got:
            for thread in threads:
                await asyncio.to_thread(thread.join)
            assert streamll.flush(30)
            assert await flushed(sink)
            await until(lambda: len(got) >= len(seen))

    runs = by_execution(seen)
    assert len(runs) == 8 * 200
    assert by_execution(got) == runs
    assert all(sequences(events) == list(range(len(events))) for events in runs.values())
    for execution in list(runs)[::400]:
        assert await read(transport, target, execution) == runs[execution]
    assert (sink.stats().sent, sink.stats().dropped) == (len(seen), 0)


@pytest.fixture(params=["memory", "sqlite", *SERVERS])
def transport(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for events, on the servers that all tests share."""
    places = {"memory": f"memory:{new_name()}", "sqlite": f"sqlite:///{tmp_path}/events.db"}
    return places.get(request.param) or server(request.param)


async def put_by_hand(url: str, target: str, body: bytes) -> None:
    """Put `body` into a log as anybody may, without us."""
    match urlsplit(url).scheme:
        case "redis":
            with redis.Redis.from_url(url) as client:
                client.xadd(target, {"event": body})
        case "amqp":
            connection = pika.BlockingConnection(pika.URLParameters(url))
            connection.channel().basic_publish(target, "by.hand", body)
            connection.close()
        case "nats":
            client = NatsClient()
            await client.connect(url)
            await client.jetstream().publish(f"{target}.by.hand", body)
            await client.close()
        case _:
            with closing(EventLog(url, target).backend.writer()) as writer:
                await asyncio.to_thread(writer.append, [Entry(run_of(0)[0], body)])


@pytest.mark.parametrize("group", [None, "g"])
async def test_what_is_no_event_becomes_a_dead_letter_and_the_rest_is_handled(
    transport: str, target: str, group: str | None
) -> None:
    before, after = run_of(3), run_of(3)
    async with following(transport, target, group) as got:
        with closing(EventLog(transport, target)) as log:
            await asyncio.to_thread(log.append, before)
            for poison in (b"{", b"", b'{"event_id": 1}'):
                await put_by_hand(transport, target, poison)
            await asyncio.to_thread(log.append, after)

        await until(lambda: len(got) >= len(before + after))

    assert by_execution(got) == by_execution([*before, *after])
    letters = await log.dead_letters()
    assert sorted(letter.body for letter in letters) == ["", "{", '{"event_id": 1}']
    assert {(letter.group, letter.error.split(":")[0]) for letter in letters} == {(group, "BadEvent")}
    for events in (before, after):
        assert await read(transport, target, events[0].execution_id) == events
