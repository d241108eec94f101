"""What is RabbitMQ's own: topology, foreign readers, confirms, heartbeats, segments, and its ways to fail."""

import asyncio
import os
import socket
import threading
import warnings
from asyncio import timeout
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pika
import pytest
from logs import all_of, new_name, run_of, sequences
from own_rabbitmq import rabbitmq_server
from servers import server
from streamll.core.events import decode, encode
from streamll.errors import BadUrl, EventsExpired, Refused, Unreachable
from streamll.eventlog import EventLog
from streamll.transports import Retention, open_backend
from streamll.transports.base import DeadLetter, Delivery, Entry, Group


@pytest.fixture
def url() -> str:
    return server("rabbitmq")


@pytest.fixture
def target(url: str) -> Generator[str]:
    """A name whose exchange and queues are deleted after the test."""
    name = new_name()
    yield name
    with channel_of(url) as channel:
        for queue in (name, f"{name}.dead", f"{name}.g", f"{name}.g.made"):
            channel.queue_delete(queue)
            channel.exchange_delete(queue)


@contextmanager
def channel_of(url: str) -> Generator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        connection.close()


@asynccontextmanager
async def proxied(url: str) -> AsyncGenerator[tuple[str, asyncio.Event]]:
    """A way to the server that lets nothing through while the event is not set."""
    flowing = asyncio.Event()
    flowing.set()
    tasks = set[asyncio.Task[None]]()

    async def pipe(source: asyncio.StreamReader, into: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await flowing.wait()
                into.write(data)
                await into.drain()
        finally:
            into.close()
            with suppress(OSError):
                await into.wait_closed()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", pika.URLParameters(url).port)
        tasks.update(asyncio.ensure_future(pipe(*ends)) for ends in ((reader, there[1]), (there[0], writer)))

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield f"amqp://guest:guest@127.0.0.1:{port}", flowing
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- foreign readers ----------------------------------------------------------------------------------------


def test_anybody_may_bind_a_queue_and_see_only_tokens(url: str, target: str) -> None:
    log, events = EventLog(url, target), run_of(3)
    log.append(events[:1])
    with channel_of(url) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, target, "token.#")

        log.append(events[1:])

        got = [channel.basic_get(queue, auto_ack=True) for _ in range(4)]
    log.close()
    assert [decode(body) for _, _, body in got if body] == events[1:-1]
    delivery, properties, _ = got[0]
    assert delivery.routing_key == "token.QA.predict"
    assert properties.delivery_mode == 2
    assert properties.content_type == "application/json"
    assert properties.message_id == events[1].event_id
    assert properties.type == "token"
    assert properties.headers == {"execution_id": events[1].execution_id, "sequence": 1}


async def test_what_somebody_else_published_is_handed_to_followers_and_skipped_by_readers(
    url: str, target: str
) -> None:
    log, events = EventLog(url, target), run_of(2)
    log.append(events[:2])
    with channel_of(url) as channel:
        channel.basic_publish(target, "theirs", b"no event")
        channel.basic_publish(target, "theirs", encode(events[2]))
    log.append(events[3:])

    async with timeout(20):
        assert await all_of(log.read(events[0].execution_id)) == events
    assert [one.events for one in await log.executions()] == [4]
    got = await deliveries(log, 5)
    log.close()
    assert got[2].body == b"no event"


async def deliveries(
    log: EventLog, number: int, start: str = "earliest", group: Group | None = None
) -> list[Delivery]:
    got: list[Delivery] = []
    async with timeout(20), log.backend.follow(start, group) as subscription:
        while len(got) < number:
            batch = await subscription.next()
            await subscription.settle(batch)
            got += batch
    return got


async def test_ids_longer_than_amqp_allows_are_kept_in_the_event(url: str, target: str) -> None:
    log, events = EventLog(url, target), run_of(1, "é" * 300)

    log.append(events)

    async with timeout(20):
        assert await all_of(log.read("é" * 300)) == events
    log.close()


# --- writing ------------------------------------------------------------------------------------------------


def test_a_second_retention_is_warned_of_and_not_obeyed(
    url: str, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    for age in (1, 1, 2):
        log = EventLog(url, target, retention=Retention(age=timedelta(hours=age)))
        log.append(run_of(1))
        log.append(run_of(1))
        log.close()

    assert [record.name for record in caplog.records] == ["streamll"]
    assert "x-max-age" in caplog.text


async def test_a_reader_that_comes_first_leaves_retention_to_the_writer(
    url: str, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    events = run_of(3)
    reader = asyncio.create_task(all_of(EventLog(url, target).read(events[0].execution_id)))
    await asyncio.sleep(0.2)
    log = EventLog(url, target, retention=Retention(age=timedelta(hours=1)))

    await asyncio.to_thread(log.append, events)

    async with timeout(20):
        assert await reader == events
    log.close()
    assert not caplog.records


def test_many_threads_write_each_with_its_own_writer(url: str, target: str) -> None:
    failures: list[BaseException] = []

    def write() -> None:
        log = EventLog(url, target)
        try:
            for _ in range(20):
                log.append(run_of(50))
        except Exception as error:  # noqa: BLE001 - any is one too many
            failures.append(error)
        log.close()

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    listed = asyncio.run(EventLog(url, target).executions(1_000))
    assert [one.events for one in listed] == [52] * 160


async def test_many_bury_their_first_letters_together(url: str, target: str) -> None:
    letter = DeadLetter(
        body="{", error="BadEvent: no", attempts=1, cursor="0", group=None, timestamp=datetime.now(UTC)
    )

    async with timeout(20):
        buried = (open_backend(url, target).bury(letter) for _ in range(16))
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, one) for one in buried))

    assert await EventLog(url, target).dead_letters(100) == [letter] * 16


def test_resting_keeps_the_connection_beyond_its_heartbeat(url: str, target: str) -> None:
    writer = open_backend(f"{url}?heartbeat=1", target).writer()
    writer.append(entries(1))
    port = local_port(writer)

    for _ in range(20):
        sleep(0.2)
        writer.rest()
    writer.append(entries(1))

    assert local_port(writer) == port
    writer.close()


def test_a_connection_that_died_of_idleness_is_made_again(url: str, target: str) -> None:
    writer = open_backend(f"{url}?heartbeat=1", target).writer()
    writer.append(entries(1))
    port = local_port(writer)

    sleep(4)
    writer.append(entries(1))

    assert local_port(writer) != port
    writer.close()


def entries(tokens: int) -> list[Entry]:
    return [Entry(one, encode(one)) for one in run_of(tokens)]


def local_port(writer: Any) -> int:
    return writer._line._connection._transport._sock.getsockname()[1]


def test_a_fork_leaves_the_connection_to_its_parent(url: str, target: str) -> None:
    writer: Any = open_backend(url, target).writer()
    writer.append(entries(1))
    port = local_port(writer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads of the test run are no concern
        child = os.fork()
    if not child:
        try:
            writer.abandon()
            writer.append(entries(1))
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the child must not run the rest of the tests
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0

    writer.append(entries(1))

    assert local_port(writer) == port
    writer.close()
    assert len(asyncio.run(EventLog(url, target).executions())) == 3


# --- failing ------------------------------------------------------------------------------------------------


WRONG = [
    ("guest:secret-word@", "", "ProbableAuthenticationError|ACCESS_REFUSED"),
    ("guest:guest@", "/secret-host", "ProbableAccessDeniedError|NOT_ALLOWED"),
]


@pytest.mark.parametrize(("user", "path", "said"), WRONG)
async def test_who_may_not_enter_is_told_so_once(
    url: str, user: str, path: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    parts = pika.URLParameters(url)
    log = EventLog(f"amqp://{user}{parts.host}:{parts.port}{path}", "t")

    with pytest.raises(Refused, match=said) as refused:
        log.append(run_of(1))
    with pytest.raises(Refused, match=said):
        await log.executions()

    assert "secret-word" not in f"{refused.value}{log!r}{log.backend!r}{caplog.text}"
    assert not caplog.records


async def test_a_server_of_another_kind_refuses(url: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        log = EventLog(f"amqp://127.0.0.1:{listening.sockets[0].getsockname()[1]}", "t")
        with pytest.raises(Refused, match="IncompatibleProtocolError"):
            await log.executions()
        with pytest.raises(Refused, match="IncompatibleProtocolError"):
            await asyncio.to_thread(log.append, run_of(1))


def test_redis_says_nothing_to_us() -> None:
    log = EventLog(f"{server('redis').replace('redis:', 'amqp:')}?timeout=0.5", "t")

    with pytest.raises(Unreachable, match="other kind of server"):
        log.append(run_of(1))


async def test_nobody_there_is_unreachable(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = EventLog(f"amqp://127.0.0.1:{port}", "t")

    with pytest.raises(Unreachable, match="Connection refused"):
        log.append(run_of(1))
    with pytest.raises(Unreachable, match="Connection refused"):
        await log.executions()
    with pytest.raises(Unreachable, match="Connection refused"):
        async with log.backend.follow("latest", None):
            pass
    assert not caplog.records


async def test_silence_ends_at_the_timeout_and_is_recovered_from(url: str, target: str) -> None:
    async with proxied(url) as (way, flowing):
        log, events = EventLog(f"{way}?timeout=0.5", target), run_of(3)
        await asyncio.to_thread(log.append, events)

        flowing.clear()
        began = monotonic()
        with pytest.raises(Unreachable, match=r"0\.5 s"):
            await asyncio.to_thread(log.append, events)
        with pytest.raises(Unreachable, match=r"0\.5 s"):
            await log.executions()
        assert monotonic() - began < 4
        flowing.set()

        await asyncio.to_thread(log.append, events)
        assert [one.events for one in await log.executions()] == [5]
        log.close()


async def test_a_follower_hears_of_a_broken_connection(url: str, target: str) -> None:
    log = EventLog(url, target)
    log.append(run_of(1))
    async with timeout(20), log.backend.follow("latest", None) as subscription:
        waiting = asyncio.ensure_future(subscription.next())
        await asyncio.sleep(0)
        with channel_of(url) as channel:
            channel.queue_delete(target)
        with pytest.raises(Unreachable):
            await waiting
    log.close()


@pytest.mark.parametrize(
    "url",
    ["amqp://h?timeout=0", "amqp://h?timeout=x", "amqp://h:port", "amqp://h?heartbeat=x", "amqp://u@h"],
)
def test_a_url_that_says_nothing_is_refused_at_once(url: str) -> None:
    with pytest.raises(BadUrl, match="expected amqp://"):
        EventLog(url)


def test_names_too_long_for_amqp_are_refused_at_once() -> None:
    with pytest.raises(BadUrl, match="bytes"):
        EventLog("amqp://h", "é" * 150)


# --- groups -------------------------------------------------------------------------------------------------


async def test_members_that_found_a_group_together_fill_it_once(url: str, target: str) -> None:
    log, events = EventLog(url, target), run_of(500)
    log.append(events)
    got: list[Delivery] = []
    everything = asyncio.Event()

    async def work(number: int) -> None:
        async with log.backend.follow("earliest", Group("g", str(number))) as subscription:
            while True:
                batch = await subscription.next()
                got.extend(batch)
                await subscription.settle(batch)
                if len(got) >= len(events):
                    everything.set()

    workers = [asyncio.create_task(work(number)) for number in range(5)]
    async with timeout(20):
        await everything.wait()
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    log.close()

    assert sorted(decode(one.body).sequence for one in got) == sequences(events)


async def test_a_group_founded_while_events_come_has_each_once(url: str, target: str) -> None:
    log, events = EventLog(url, target), run_of(3_000)
    log.append(events[:1_000])

    def write() -> None:
        for one in range(1_000, len(events), 7):
            log.append(events[one : one + 7])

    writing = asyncio.create_task(asyncio.to_thread(write))
    got = await deliveries(log, len(events), "earliest", Group("g", "a"))
    await writing
    log.close()

    assert sorted(decode(one.body).sequence for one in got) == sequences(events)


async def test_a_group_begins_after_a_cursor(url: str, target: str) -> None:
    log, events = EventLog(url, target), run_of(10)
    log.append(events)
    cursor = (await deliveries(log, len(events)))[3].cursor

    got = await deliveries(log, len(events) - 4, cursor, Group("g", "a"))

    log.close()
    assert [decode(one.body) for one in got] == events[4:]


# --- expiry -------------------------------------------------------------------------------------------------


async def cut(log: EventLog) -> None:
    """Append until the front of the stream is gone."""
    async with timeout(30):
        while True:
            await asyncio.to_thread(log.append, run_of(100))
            async with log.backend.follow("earliest", None) as subscription:
                if subscription.cursor != "-1":
                    return


async def test_segments_are_cut_and_readers_are_told(url: str, target: str) -> None:
    log = EventLog(url, target, retention=Retention(bytes=100_000))
    gone, kept = run_of(20), run_of(20)
    log.append(gone)
    cursor = (await deliveries(log, 1))[0].cursor

    await cut(log)
    log.append(kept)

    async with timeout(20):
        with pytest.raises(EventsExpired, match="have been cut") as told:
            await all_of(log.read(gone[0].execution_id))
        assert told.value.available is None
        assert await all_of(log.read(kept[0].execution_id)) == kept
        with pytest.raises(EventsExpired) as told:
            await deliveries(log, 1, cursor)
    assert isinstance(told.value.available, str)
    following = await deliveries(log, 1, told.value.available)
    assert following[0] == (await deliveries(log, 1))[0]
    log.close()


async def test_a_reader_that_has_what_was_cut_reads_on(url: str, target: str) -> None:
    log = EventLog(url, target, retention=Retention(bytes=100_000))
    events = run_of(1_200)
    for start in range(0, len(events), 100):
        log.append(events[start : start + 100])
    await cut(log)

    async with timeout(20):
        with pytest.raises(EventsExpired) as told:
            await all_of(log.read(events[0].execution_id))
        first = told.value.available
        if isinstance(first, int):
            rest = await all_of(log.read(events[0].execution_id, after=first - 1))
            assert rest == events[first:]
            with pytest.raises(EventsExpired):
                await all_of(log.read(events[0].execution_id, after=first - 2))
    log.close()


# --- a server of our own ------------------------------------------------------------------------------------


async def test_what_was_acknowledged_outlives_the_server(tmp_path: Path) -> None:
    with rabbitmq_server(tmp_path) as own:
        log, events = EventLog(f"{own.url}?timeout=1", "t"), run_of(300)
        await asyncio.to_thread(log.append, events[:200])
        reader = asyncio.create_task(all_of(log.read(events[0].execution_id)))
        await asyncio.sleep(0.2)

        own.pause()
        with pytest.raises(Unreachable, match="did not answer"):
            await asyncio.to_thread(log.append, events[200:])
        own.resume()
        own.control("set_vm_memory_high_watermark", "0")
        with pytest.raises(Unreachable, match="takes nothing from publishers"):
            await asyncio.to_thread(log.append, events[200:])
        own.stop()
        with pytest.raises(Unreachable):
            await asyncio.to_thread(log.append, events[200:])
        own.start()

        async with timeout(30):
            while True:
                with suppress(Unreachable):
                    await asyncio.to_thread(log.append, events[200:])
                    break
                await asyncio.sleep(0.1)
            assert await reader == events
        log.close()
