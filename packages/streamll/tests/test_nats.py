"""What only the NATS transport promises: how its streams look to others, and what it says of trouble."""

import asyncio
import gc
import os
import socket
from asyncio import timeout
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep

import nats
import nats.js.errors
import pytest
from logs import all_of, event, new_execution, new_name, run_of, taken
from nats.aio.client import Client
from nats.js import JetStreamContext
from own_servers import NatsServer, nats_server
from servers import server
from streamll.core.events import Event, encode, rebuilt
from streamll.errors import BadUrl, EventsExpired, Refused, Unreachable
from streamll.eventlog import EventLog
from streamll.transports import Retention
from streamll.transports.base import DeadLetter, Entry, Group
from streamll.transports.nats import Backend


@asynccontextmanager
async def plain(url: str) -> AsyncGenerator[tuple[Client, JetStreamContext]]:
    """A client that knows nothing of us."""
    client = await nats.connect(url)
    try:
        yield client, client.jetstream()
    finally:
        await client.close()


@pytest.fixture
def url() -> str:
    return server("nats")


@pytest.fixture
def target(url: str) -> Generator[str]:
    """A name for a log, whose streams are deleted after the test."""

    async def delete() -> None:
        async with plain(url) as (_, js):
            for stream in (name, f"{name}_dead", f"{name}_expired"):
                try:
                    await js.delete_stream(stream)
                except nats.js.errors.NotFoundError:
                    continue

    name = new_name()
    yield name
    asyncio.run(delete())


@pytest.fixture
def log(url: str, target: str) -> Generator[EventLog]:
    with closing(EventLog(url, target)) as log:
        yield log


@pytest.fixture
def own(tmp_path: Path) -> Generator[NatsServer]:
    with nats_server(tmp_path) as own:
        yield own


def fresh(backend: Backend | object) -> Backend:
    assert isinstance(backend, Backend)
    return backend


# --- what others see ----------------------------------------------------------------------------------------


async def test_a_stream_is_named_after_the_target_and_its_subjects_tell_program_and_execution(
    log: EventLog, url: str, target: str
) -> None:
    events = run_of(3)
    log.append(events)

    async with plain(url) as (_, js):
        subscription = await js.subscribe(f"{target}.QA.{events[0].execution_id}", ordered_consumer=True)
        got = [await subscription.next_msg(5) for _ in events]
        config = (await js.stream_info(target)).config

    assert [one.data for one in got] == [encode(one) for one in events]
    assert [(one.headers or {})["Nats-Msg-Id"] for one in got] == [one.event_id for one in events]
    assert config.subjects == [f"{target}.>"]
    assert (config.storage, config.discard, config.max_age, config.max_msgs) == ("file", "old", 0, -1)


def test_the_default_target_is_known_by_a_short_prefix(url: str) -> None:
    backends = [fresh(EventLog(url, name).backend) for name in ("streamll_events", "streamll", "a_dead")]

    assert [(one.log.stream, one.log.prefix) for one in backends] == [
        ("streamll_events", "streamll"),
        ("streamll", "streamll="),
        ("a=5Fdead", "a=5Fdead"),
    ]


def test_no_two_targets_share_a_stream(url: str) -> None:
    names = ["a.b", "a b", "a=2Eb", "a=b", "é", "e\u0301", "a", "A", "x" * 200, "é" * 200, "é" * 199]

    streams = {fresh(EventLog(url, name).backend).log.stream for name in names}

    assert len(streams) == len(names)
    assert all(len(stream) < 220 and stream.isascii() for stream in streams)


async def test_the_server_itself_refuses_what_it_has_already(log: EventLog, url: str, target: str) -> None:
    events = run_of(10)
    log.append(events[:7])

    log.append(events[3:])
    log.append(events)

    async with plain(url) as (_, js):
        assert (await js.stream_info(target)).state.messages == len(events)


async def test_a_writer_that_came_late_writes_to_the_same_execution(
    log: EventLog, url: str, target: str
) -> None:
    events = run_of(6)
    log.append(events[:4])

    with closing(EventLog(url, target)) as other:
        other.append(events[4:])

    async with timeout(20):
        assert await all_of(log.read(events[0].execution_id)) == events
        assert [(one.events, one.status) for one in await log.executions()] == [(len(events), "ok")]


async def test_a_big_event_is_stored_in_parts_that_anybody_can_put_together(
    log: EventLog, url: str, target: str
) -> None:
    execution = new_execution()
    big = event(execution, 1, token="ü" * 1_500_000, token_index=0, field="answer")
    events = [event(execution, 0, "execution_start", program="QA"), big, event(execution, 2, "execution_end")]

    log.append(events)
    log.append(events)

    async with plain(url) as (_, js):
        subscription = await js.subscribe(f"{target}.*.{execution}", ordered_consumer=True)
        whole = [await subscription.next_msg(5) for _ in events][1]
        parts = [int(one) for one in (whole.headers or {})["Streamll-Parts"].split(",")]
        stored = [(await js.get_msg(target, one)).data or b"" for one in parts]
        assert (await js.stream_info(target)).state.messages == len(events) + len(parts)
    assert whole.data == b""
    assert b"".join(stored) == encode(big)


async def test_every_reader_gets_big_events_whole(log: EventLog) -> None:
    execution = new_execution()
    events = [
        event(execution, 0, "execution_start", program="QA", question="q" * 2_000_000),
        event(execution, 1, token="x"),
        event(execution, 2, "execution_error", error="e" * 1_100_000),
    ]
    log.append(events)
    expected = [encode(one) for one in events]

    for group in (None, Group("g", "a")):
        got: list[bytes] = []
        async with timeout(20), log.backend.follow("earliest", group) as subscription:
            while len(got) < len(events):
                batch = await subscription.next()
                got += [one.body for one in batch]
                await subscription.settle(batch)
        assert got == expected
    assert [(one.events, one.status) for one in await log.executions()] == [(3, "error")]


async def test_a_follower_may_go_on_between_the_parts_of_a_big_event(log: EventLog) -> None:
    execution = new_execution()
    log.append([event(execution, 0, "execution_start", program="QA")])
    big = event(execution, 1, token="y" * 2_000_000)
    log.append([big])

    async with timeout(20), log.backend.follow("3", None) as subscription:
        assert [one.body for one in await subscription.next()] == [encode(big)]


async def test_big_dead_letters_are_kept_whole(log: EventLog) -> None:
    letters = [
        DeadLetter(
            body="é" * size, error="E", attempts=1, cursor="1", group=None, timestamp=datetime.now(UTC)
        )
        for size in (1, 2_000_000, 3)
    ]

    for letter in letters:
        await log.backend.bury(letter)

    assert list(await log.dead_letters()) == letters[::-1]
    assert list(await log.dead_letters(2)) == letters[:0:-1]


async def test_an_existing_stream_is_used_as_it_is(url: str, target: str) -> None:
    async with plain(url) as (_, js):
        await js.add_stream(name=target, subjects=[f"{target}.*.*"], storage="memory", max_msgs=1000)
        events = run_of(3)
        with closing(EventLog(url, target)) as log:
            log.append(events)
            assert await all_of(log.read(events[0].execution_id)) == events
        config = (await js.stream_info(target)).config

    assert (config.storage, config.max_msgs) == ("memory", 1000)


async def test_a_stream_that_was_deleted_is_made_again(log: EventLog, url: str, target: str) -> None:
    log.append(run_of(3))
    async with plain(url) as (_, js):
        await js.delete_stream(target)
    events = run_of(3)

    with pytest.raises(Unreachable, match="deleted"):
        log.append(events)
    log.append(events)

    assert await all_of(log.read(events[0].execution_id)) == events


async def test_a_cursor_of_a_stream_that_was_made_again_is_told_so(log: EventLog) -> None:
    log.append(run_of(3))

    with pytest.raises(EventsExpired) as told:
        async with log.backend.follow("500", None):
            pass

    assert told.value.available == "0"


# --- expiry -------------------------------------------------------------------------------------------------


async def until_cut(log: EventLog, execution_id: str) -> None:
    async with timeout(20):
        while any(one.execution_id == execution_id for one in await log.executions(1000)):
            await asyncio.to_thread(log.append, run_of(5))
            await asyncio.sleep(0.1)


async def test_only_whole_executions_are_cut_oldest_first(url: str, target: str) -> None:
    with closing(EventLog(url, target, retention=Retention(events=100))) as log:
        going, *runs = [
            run_of(20, new_execution(timedelta(seconds=9 - number)), ended=number > 0) for number in range(9)
        ]
        for events in (going, *runs):
            log.append(events)
        await asyncio.sleep(1.1)

        log.append(run_of(0))

        left = {one.execution_id: one.events for one in await log.executions(100)}
    assert list(left)[1:] == [events[0].execution_id for events in (*runs[:-4:-1], going)]
    assert set(left.values()) == {2, 21, 22}


async def test_a_reader_that_waits_is_told_when_its_execution_is_cut(url: str, target: str) -> None:
    limit = Retention(age=timedelta(seconds=0.2), abandoned=timedelta(seconds=1))
    with closing(EventLog(url, target, retention=limit)) as log:
        killed = run_of(3, ended=False)
        log.append(killed)
        async with timeout(20), aclosing(log.read(killed[0].execution_id)) as reader:
            assert await taken(reader, len(killed)) == killed
            waiting = asyncio.create_task(anext(reader))
            await until_cut(log, killed[0].execution_id)
            with pytest.raises(EventsExpired, match=killed[0].execution_id):
                await waiting


async def test_a_reader_that_had_everything_ends_also_when_it_was_cut(url: str, target: str) -> None:
    with closing(EventLog(url, target, retention=Retention(age=timedelta(seconds=0.2)))) as log:
        events = run_of(3)
        log.append(events)
        await until_cut(log, events[0].execution_id)

        async with timeout(20):
            assert await all_of(log.read(events[0].execution_id, after=events[-1].sequence)) == []
            with pytest.raises(EventsExpired):
                await all_of(log.read(events[0].execution_id, after=events[-2].sequence))


async def test_parts_are_cut_with_their_execution(url: str, target: str) -> None:
    with closing(EventLog(url, target, retention=Retention(age=timedelta(seconds=0.2)))) as log:
        execution = new_execution()
        log.append([event(execution, 0, token="z" * 2_000_000), event(execution, 1, "execution_end")])
        await until_cut(log, execution)

    async with plain(url) as (_, js):
        state = (await js.stream_info(target, subjects_filter=f"{target}.>")).state
    assert not [subject for subject in state.subjects or {} if execution in subject]


async def test_a_follower_is_told_of_what_was_cut_before_it_came_to_it(url: str, target: str) -> None:
    with closing(EventLog(url, target, retention=Retention(age=timedelta(seconds=0.2)))) as log:
        going, done = run_of(3, ended=False), run_of(3)
        log.append(going[:2])
        log.append(done)
        log.append(going[2:])
        await until_cut(log, done[0].execution_id)

        async with timeout(20), log.backend.follow("2", None) as subscription:
            with pytest.raises(EventsExpired) as told:
                await subscription.next()
        async with timeout(20), log.backend.follow(str(told.value.available), None) as subscription:
            assert (await subscription.next())[0].body == encode(going[2])


# --- trouble ------------------------------------------------------------------------------------------------


SECRETS = ("s3cr%40t", "s3cr@t")


def silent(text: str) -> bool:
    return not any(secret in text for secret in SECRETS)


AUTHS = [
    (("--auth", "s3cr@t"), "s3cr%40t@"),
    (("--user", "me", "--pass", "s3cr@t"), "me:s3cr%40t@"),
]


@pytest.mark.parametrize(("args", "who"), AUTHS, ids=["token", "password"])
async def test_credentials_are_used_and_never_shown(tmp_path: Path, args: tuple[str, ...], who: str) -> None:
    with nats_server(tmp_path, *args) as own:
        log = EventLog(own.url.replace("//", f"//{who}"))
        events = run_of(2)
        log.append(events)
        async with timeout(20):
            assert await all_of(log.read(events[0].execution_id)) == events
        assert silent(repr(log) + repr(log.backend) + repr(fresh(log.backend).log.place))
        own.stop()
        with pytest.raises(Unreachable) as away:
            log.append(events)
        assert silent(str(away.value) + repr(away.value.__cause__))
        log.close()


@pytest.mark.parametrize("who", ["", "wrong@", "me:wrong@"])
async def test_a_wrong_password_is_refused(tmp_path: Path, who: str) -> None:
    with nats_server(tmp_path, "--user", "me", "--pass", "s3cr@t") as own:
        log = EventLog(own.url.replace("//", f"//{who}"))

        with pytest.raises(Refused, match=r"(?i)authorization") as refused:
            log.append(run_of(1))
        with pytest.raises(Refused, match=r"(?i)authorization"):
            await anext(log.read("x"))

    assert "wrong" not in str(refused.value)


CONFIGURATION = """
authorization { users: [{ user: me, password: pw, permissions: { publish: ["$JS.API.>"] } }] }
"""


async def test_what_one_may_not_do_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nats.conf").write_text(CONFIGURATION)
    with nats_server(tmp_path, "-c", str(tmp_path / "nats.conf")) as own:
        log = EventLog(own.url.replace("//", "//me:pw@"))

        with pytest.raises(Refused, match=r"(?i)permissions"):
            log.append(run_of(1))


async def test_a_server_without_jetstream_is_refused(tmp_path: Path) -> None:
    with nats_server(tmp_path, jetstream=False) as own:
        log = EventLog(own.url)

        with pytest.raises(Refused, match="JetStream"):
            log.append(run_of(1))
        with pytest.raises(Refused, match="JetStream"):
            await anext(log.read("x"))
        with pytest.raises(Refused, match="JetStream"):
            await log.executions()


async def test_another_kind_of_server_is_refused() -> None:
    address = server("redis").replace("redis:", "nats:")
    log = EventLog(f"{address}?timeout=0.5")

    with pytest.raises(Refused, match="another kind of server"):
        log.append(run_of(1))


def test_a_port_that_says_nothing_is_unreachable() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        log = EventLog(f"nats://127.0.0.1:{mute.getsockname()[1]}?timeout=0.5")
        began = monotonic()

        with pytest.raises(Unreachable, match=r"0\.5 s"):
            log.append(run_of(1))

    assert monotonic() - began < 5


def test_nobody_there_is_unreachable() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken_port:
        port = taken_port.getsockname()[1]

    with pytest.raises(Unreachable, match=f"127.0.0.1:{port}"):
        EventLog(f"nats://127.0.0.1:{port}").append(run_of(1))


@pytest.mark.parametrize("query", ["?timeout=soon", "?timeout=0", "?timeout=nan", "?timeout=-1"])
def test_a_timeout_is_a_number_of_seconds(query: str) -> None:
    with pytest.raises(BadUrl, match="timeout=seconds"):
        EventLog(f"nats://me:s3cr@t@127.0.0.1{query}")


async def test_a_server_that_hangs_is_unreachable_within_the_timeout(own: NatsServer) -> None:
    log = EventLog(f"{own.url}?timeout=0.6")
    events = run_of(3, ended=False)
    log.append(events)
    async with aclosing(log.backend.read(events[0].execution_id, -1)) as reader:
        while not await anext(reader):
            continue  # it waits for the first events
        async with log.backend.follow("latest", Group("g", "a")) as shared:
            waiting = [asyncio.ensure_future(one) for one in (anext(reader), shared.next())]
            own.pause()
            began = monotonic()

            with pytest.raises(Unreachable, match=r"0\.6 s"):
                await asyncio.to_thread(log.append, events)
            for one in waiting:
                with pytest.raises(Unreachable):
                    await one
            with pytest.raises(Unreachable):
                await log.executions()

            assert monotonic() - began < 6
            own.resume()


async def test_a_writer_and_a_reader_survive_a_restart(own: NatsServer) -> None:
    log = EventLog(own.url)
    events = run_of(8)
    log.append(events[:4])
    async with timeout(60), aclosing(log.read(events[0].execution_id)) as reader:
        assert await taken(reader, 4) == events[:4]
        await asyncio.to_thread(own.stop, kill=True)
        with pytest.raises(Unreachable):
            log.append(events[4:])
        await asyncio.to_thread(own.start)

        log.append(events[2:])

        assert await all_of(reader) == events[4:]


def test_a_writer_at_rest_answers_the_server(tmp_path: Path) -> None:
    (tmp_path / "nats.conf").write_text("ping_interval: '200ms'\nping_max: 2\n")
    with nats_server(tmp_path, "-c", str(tmp_path / "nats.conf")) as own:
        writer = EventLog(own.url).backend.writer()
        events = run_of(3)
        entries = [Entry(one, encode(one)) for one in events]
        writer.append(entries[:2])

        for _ in range(10):
            sleep(0.15)
            writer.rest()
        writer.append(entries[2:])

        own.stop()
        writer.rest()
        writer.rest()
        writer.close()
        writer.close()


def test_a_fork_leaves_the_parents_connection_alone(url: str, target: str) -> None:
    writer = EventLog(url, target).backend.writer()
    entries = [Entry(one, encode(one)) for one in run_of(3)]
    writer.append(entries[:2])

    child = os.fork()
    if child == 0:
        writer.abandon()
        os._exit(0)
    os.waitpid(child, 0)
    writer.append(entries[2:])

    assert [one.events for one in asyncio.run(EventLog(url, target).executions())] == [len(entries)]
    del writer  # not closed: nothing complains


async def test_who_stops_waiting_for_the_next_events_loses_none(log: EventLog) -> None:
    execution = new_execution()
    events = [event(execution, number, token="x" * 1_100_000) for number in range(4)]
    for group in (None, Group("g", "a")):
        log.append(run_of(0))
        got: list[str] = []
        async with timeout(30), log.backend.follow("latest", group) as subscription:
            for one in events:
                waiting = asyncio.create_task(subscription.next())
                await asyncio.to_thread(log.append, [replaced(one, group)])
                await asyncio.sleep(0.002)
                waiting.cancel()
                done, _ = await asyncio.wait([waiting])
                got += [one.cursor for task in done if not task.cancelled() for one in task.result()]
            while len(got) < len(events):
                got += [one.cursor for one in await subscription.next()]

        assert sorted(set(got), key=int) == got
        assert len(got) == len(events)


def test_a_reader_that_ends_with_its_loop_leaves_nothing_open(log: EventLog) -> None:
    events = run_of(1)
    log.append(events)

    async def first() -> Event:
        async for one in log.read(events[0].execution_id):
            return one
        raise AssertionError

    assert asyncio.run(first()) == events[0]
    gc.collect()  # a warning is an error


def replaced(one: Event, group: Group | None) -> Event:
    return rebuilt(one, Event, event_id=f"{one.event_id}-{group}")
