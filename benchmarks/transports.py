"""Transports beside what their own clients reach at best, in one run: events per second, latency, ratios.

    uv run --with-requirements benchmarks/peers.txt python benchmarks/transports.py [--plot FILE]

Both sides of a row do the same work on the same server, in turn; medians of 5 rounds are compared. Ours is
the whole way: a fact handed over on the program's thread, numbered, built, encoded, sent, acknowledged, with
retention on. Theirs is the client's fastest common way with bytes that are ready. Needs the servers of
`compose.yaml`; uses keys of its own.
"""

import argparse
import asyncio
import multiprocessing
import os
import queue
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import batched
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import aio_pika
import nats
import pika
import redis
import streamll
from pika.adapters.select_connection import SelectConnection
from streamll.core import context
from streamll.core.log import LOG
from streamll.core.router import route
from streamll.sinks import NatsSink, RabbitMQSink, RedisSink, SqliteSink, TransportSink

REDIS = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
RABBITMQ = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
NATS = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
ROUNDS = 5
WINDOW = 256


class Row(NamedTuple):
    """Two ways to do one thing; each returns seconds for `number` events, and bigger ratios are better."""

    name: str
    ours: Callable[[int], float]
    theirs: Callable[[int], float]
    number: int
    must: float
    stretch: float | None = None


def fresh(prefix: str = "bench") -> str:
    return f"{prefix}_{os.urandom(6).hex()}"


def ready(number: int) -> list[bytes]:
    """Return the wire form of `number` tokens of one execution."""
    seen: list[streamll.Event] = []
    with streamll.configure([seen.append]):
        through(number, lambda: streamll.flush())
    return [streamll.encode(event) for event in seen]


def through(number: int, flush: Callable[[], object]) -> float:
    """Hand over `number` tokens as a program would, and return how long it took until they were flushed."""
    with streamll.trace("benchmark"):
        scope = context.current()
        call, to = scope.execution.root, route(scope)  # pyright: ignore
        began = time.perf_counter()
        for index in range(number):
            data = {"token": "lighthouse ", "token_index": index, "field": "answer"}
            LOG.put("token", call, data, to)
        flush()
        return time.perf_counter() - began


def sunk(make: Callable[[str], TransportSink]) -> Callable[[int], float]:
    """Return a way through a sink of ours."""

    def run(number: int) -> float:
        sink = make(fresh())
        with streamll.configure([sink]):
            through(10, streamll.flush)
            seconds = through(number, streamll.flush)
        stats = sink.stats()
        assert (stats.queued, stats.dropped, stats.retried) == (0, 0, 0), stats
        sink.stop()
        return seconds

    return run


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


# --- their ways ---------------------------------------------------------------------------------------------


def redis_pipeline(number: int) -> float:
    bodies, key = ready(number)[:number], fresh()
    with closing(redis.Redis.from_url(REDIS)) as client:

        def run() -> None:
            for some in batched(bodies, WINDOW, strict=False):
                pipeline = client.pipeline(transaction=False)
                for body in some:
                    pipeline.xadd(key, {"event": body}, maxlen=10_000, approximate=True)
                pipeline.execute()

        seconds = timed(run)
        client.delete(key)
        return seconds


def redis_each(number: int) -> float:
    bodies, key = ready(number)[:number], fresh()
    with closing(redis.Redis.from_url(REDIS)) as client:
        seconds = timed(lambda: [client.xadd(key, {"event": body}, maxlen=10_000) for body in bodies])
        client.delete(key)
        return seconds


def redis_group(number: int) -> float:
    """XREADGROUP of 1,000 and XACK, without looking at what was read."""
    bodies, key = ready(number)[:number], fresh()
    with closing(redis.Redis.from_url(REDIS)) as client:
        for some in batched(bodies, WINDOW, strict=False):
            pipeline = client.pipeline(transaction=False)
            for body in some:
                pipeline.xadd(key, {"event": body})
            pipeline.execute()
        client.xgroup_create(key, "g", "0")

        def run() -> None:
            while entries := client.xreadgroup("g", "c", {key: ">"}, count=1000):
                client.xack(key, "g", *[entry_id for entry_id, _ in entries[0][1]])  # pyright: ignore

        seconds = timed(run)
        client.delete(key)
        return seconds


def consumed(number: int) -> float:
    """A group's EventConsumer with a handler, over what a sink has written."""
    target = fresh()
    sink = RedisSink(REDIS, target)
    with streamll.configure([sink]):
        through(number, streamll.flush)
    sink.stop()

    async def run() -> float:
        consumer = streamll.EventConsumer(REDIS, target, start="earliest", group="g")
        left = number

        @consumer.on("token")
        def handle(event: streamll.Event) -> None:
            nonlocal left
            left -= 1
            if not left:
                consumer._stop()  # pyright: ignore

        began = time.perf_counter()
        await consumer.run()
        return time.perf_counter() - began

    return asyncio.run(run())


def aio_pika_gather(number: int) -> float:
    bodies = ready(number)[:number]

    async def run() -> float:
        async with await aio_pika.connect(RABBITMQ) as connection:
            channel = await connection.channel(publisher_confirms=True)
            declared = await channel.declare_queue(fresh(), durable=True)
            messages = [aio_pika.Message(body, delivery_mode=2) for body in bodies]
            began = time.perf_counter()
            for some in batched(messages, WINDOW, strict=False):
                await asyncio.gather(
                    *[channel.default_exchange.publish(message, declared.name) for message in some]
                )
            seconds = time.perf_counter() - began
            await declared.delete(if_unused=False, if_empty=False)
            return seconds

    return asyncio.run(run())


def pika_select(number: int) -> float:
    """pika's SelectConnection with at most 256 unconfirmed messages, on a durable queue."""
    bodies, name = ready(number)[:number], fresh()
    persistent = pika.BasicProperties(delivery_mode=2)
    state: dict[str, Any] = {"sent": 0, "confirmed": 0}

    def opened(connection: Any) -> None:
        connection.channel(on_open_callback=on_channel)

    def on_channel(channel: Any) -> None:
        state["channel"] = channel
        channel.queue_declare(name, durable=True, callback=lambda _: channel.confirm_delivery(ack, on_ready))

    def on_ready(_: object) -> None:
        state["began"] = time.perf_counter()
        fill()

    def fill() -> None:
        while state["sent"] < number and state["sent"] - state["confirmed"] < WINDOW:
            state["channel"].basic_publish("", name, bodies[state["sent"]], persistent)
            state["sent"] += 1

    def ack(frame: Any) -> None:
        tag = frame.method.delivery_tag
        state["confirmed"] = tag if frame.method.multiple else state["confirmed"] + 1
        if tag == number and frame.method.multiple:
            state["confirmed"] = number
        if state["confirmed"] >= number:
            state["ended"] = time.perf_counter()
            state["channel"].queue_delete(name, callback=lambda _: connection.close())
        else:
            fill()

    connection = SelectConnection(
        pika.URLParameters(RABBITMQ),
        on_open_callback=opened,
        on_close_callback=lambda c, _: c.ioloop.stop(),
    )
    connection.ioloop.start()
    return state["ended"] - state["began"]


def nats_async(number: int) -> float:
    bodies, name = ready(number)[:number], fresh()

    async def run() -> float:
        client = await nats.connect(NATS)
        stream = client.jetstream()
        await stream.add_stream(name=name, subjects=[f"{name}.>"])
        began = time.perf_counter()
        for some in batched(bodies, WINDOW, strict=False):
            await asyncio.gather(*[await stream.publish_async(f"{name}.x", body) for body in some])
        seconds = time.perf_counter() - began
        await stream.delete_stream(name)
        await client.close()
        return seconds

    return asyncio.run(run())


def sqlite_many(number: int) -> float:
    """executemany, 256 rows a transaction, into a table with the one index that a reader needs."""
    bodies = [body.decode() for body in ready(number)[:number]]
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(f"{folder}/e.db")) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute(
            "CREATE TABLE e (execution TEXT, sequence INTEGER, body TEXT, UNIQUE (execution, sequence))"
        )

        def run() -> None:
            for some in batched(enumerate(bodies), WINDOW, strict=False):
                with db:
                    db.executemany("INSERT INTO e VALUES ('x', ?, ?)", some)

        return timed(run)


def sqlite_sink(number: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return sunk(lambda target: SqliteSink(f"{folder}/e.db", target))(number)


# --- handing over -------------------------------------------------------------------------------------------


def handed(number: int) -> float:
    """CPU of the program's thread for handing tokens to a sink."""
    sink = RedisSink(REDIS, fresh())
    with streamll.configure([sink]), streamll.trace("benchmark"):
        scope = context.current()
        call, to = scope.execution.root, route(scope)  # pyright: ignore
        data = {"token": "lighthouse ", "token_index": 0, "field": "answer"}
        began = time.thread_time()
        for _ in range(number):
            LOG.put("token", call, data, to)
        seconds = time.thread_time() - began
        streamll.flush()
    sink.stop()
    return seconds


def simple_queue(number: int) -> float:
    """CPU of a thread that puts the same facts, with their times, on a SimpleQueue that another drains."""
    waiting: queue.SimpleQueue[object] = queue.SimpleQueue()

    def drain() -> None:
        while waiting.get() is not None:
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    call, to = object(), object()
    data = {"token": "lighthouse ", "token_index": 0, "field": "answer"}
    began = time.thread_time()
    for _ in range(number):
        waiting.put(("token", call, time.time_ns(), data, to))
    seconds = time.thread_time() - began
    waiting.put(None)
    reader.join()
    return seconds


# --- latency ------------------------------------------------------------------------------------------------

RATE = 1_000


def paced(number: int, send: Callable[[int], object]) -> None:
    """Call `send` with the time, `RATE` times a second."""
    due = time.perf_counter()
    for _ in range(number):
        due += 1 / RATE
        while (left := due - time.perf_counter()) > 0:
            time.sleep(left)
        send(time.monotonic_ns())


def reads_handler(target: str, number: int, ready_: Any, results: Any) -> None:
    """A process: EventConsumer, one handler."""

    async def run() -> list[int]:
        consumer = streamll.EventConsumer(REDIS, target)
        lags: list[int] = []

        @consumer.on("token")
        def handle(event: streamll.Event) -> None:
            lags.append(time.monotonic_ns() - int(str(event.data["token"])))
            if len(lags) == number:
                consumer._stop()  # pyright: ignore

        await consumer.start()
        ready_.set()
        await consumer.run()
        return lags

    results.put(asyncio.run(run()))


def reads_bare(target: str, number: int, ready_: Any, results: Any) -> None:
    """A process: XREAD BLOCK."""
    client = redis.Redis.from_url(REDIS)
    lags: list[int] = []
    last: Any = "0"
    ready_.set()
    while len(lags) < number:
        entries: Any = client.xread({target: last}, block=0, count=100)
        for entry_id, fields in entries[0][1]:
            last = entry_id
            lags.append(time.monotonic_ns() - int(fields[b"event"][:20]))
    results.put(lags)


def lags(reader: Callable[..., None], write: Callable[[str, int], None], number: int) -> list[float]:
    """Return the milliseconds from producing to handling, in another process."""
    spawn = multiprocessing.get_context("spawn")
    ready_, results, target = spawn.Event(), spawn.Queue(), fresh()
    process = spawn.Process(target=reader, args=(target, number, ready_, results))
    process.start()
    ready_.wait()
    time.sleep(0.3)
    write(target, number)
    got = results.get(timeout=60)
    process.join()
    return [nanoseconds / 1e6 for nanoseconds in got]


def writes_sink(target: str, number: int) -> None:
    sink = RedisSink(REDIS, target)
    with streamll.configure([sink]), streamll.trace("benchmark"):
        scope = context.current()
        call, to = scope.execution.root, route(scope)  # pyright: ignore
        paced(
            number,
            lambda now: LOG.put("token", call, {"token": str(now), "token_index": 0, "field": "a"}, to),
        )
        streamll.flush()
    sink.stop()


def writes_bare(target: str, number: int) -> None:
    with closing(redis.Redis.from_url(REDIS)) as client:
        paced(number, lambda now: client.xadd(target, {"event": f"{now:020d}" + "x" * 270}))


# --- the table ----------------------------------------------------------------------------------------------

ROWS = [
    Row("hand over: SimpleQueue.put ÷ ours (CPU)", handed, simple_queue, 50_000, 0.5),
    Row(
        "Redis: sink ÷ pipeline(256).xadd",
        sunk(lambda t: RedisSink(REDIS, t)),
        redis_pipeline,
        20_000,
        0.8,
        2,
    ),
    Row("Redis: sink ÷ one XADD a round trip", sunk(lambda t: RedisSink(REDIS, t)), redis_each, 10_000, 10),
    Row("Redis: group consumer ÷ XREADGROUP + XACK", consumed, redis_group, 20_000, 0.6, 0.9),
    Row(
        "RabbitMQ: sink ÷ aio-pika gather(256)",
        sunk(lambda t: RabbitMQSink(RABBITMQ, t)),
        aio_pika_gather,
        5_000,
        2.5,
    ),
    Row(
        "RabbitMQ: sink ÷ SelectConnection, window 256",
        sunk(lambda t: RabbitMQSink(RABBITMQ, t)),
        pika_select,
        10_000,
        0.8,
    ),
    Row("NATS: sink ÷ publish_async", sunk(lambda t: NatsSink(NATS, t)), nats_async, 10_000, 0.8, 3),
    Row("SQLite: sink ÷ executemany", sqlite_sink, sqlite_many, 20_000, 0.6),
]


def measured(row: Row) -> tuple[float, float]:
    """Return ours and theirs, as medians of events per second."""
    row.ours(100), row.theirs(100)
    pairs = [(row.ours(row.number), row.theirs(row.number)) for _ in range(ROUNDS)]
    ours, theirs = zip(*pairs, strict=True)
    return row.number / median(ours), row.number / median(theirs)


def latency(number: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return p50 and p99 of ours and of the bare loop: medians over rounds, in milliseconds."""

    def marks(values: Sequence[float]) -> tuple[float, float]:
        cuts = quantiles(values[len(values) // 10 :], n=100)
        return cuts[49], cuts[98]

    pairs = [
        (marks(lags(reads_handler, writes_sink, number)), marks(lags(reads_bare, writes_bare, number)))
        for _ in range(ROUNDS)
    ]
    ours, theirs = zip(*pairs, strict=True)
    return tuple(map(median, zip(*ours, strict=True))), tuple(map(median, zip(*theirs, strict=True)))  # pyright: ignore


def plot(path: Path, ratios: Sequence[tuple[str, float, float, float | None]]) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.55 * len(ratios) + 1.2), layout="constrained")
    names = [name for name, *_ in ratios][::-1]
    axes.barh(names, [value for _, value, _, _ in ratios][::-1], color="#4c78a8", height=0.55)
    for place, (_, value, must, stretch) in enumerate(ratios[::-1]):
        axes.plot([must, must], [place - 0.35, place + 0.35], color="#e45756")
        if stretch:
            axes.plot([stretch, stretch], [place - 0.35, place + 0.35], color="#e45756", linestyle=":")
        axes.text(value, place, f" {value:.2f}x", va="center")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("times as fast as the client's own best way; red: goal, dotted: stretch")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--plot", type=Path)
    options.add_argument("--only", default="")
    asked = options.parse_args()
    ratios: list[tuple[str, float, float, float | None]] = []
    print(f"{'':48}{'ours/s':>12}{'theirs/s':>12}{'ratio':>8}{'goal':>7}{'stretch':>9}")
    for row in [row for row in ROWS if asked.only in row.name]:
        ours, theirs = measured(row)
        ratios.append((row.name, ours / theirs, row.must, row.stretch))
        stretch = f"{row.stretch:.1f}" if row.stretch else ""
        print(f"{row.name:48}{ours:>12,.0f}{theirs:>12,.0f}{ours / theirs:>8.2f}{row.must:>7.1f}{stretch:>9}")
    if asked.only in "latency":
        (p50, p99), (bare50, bare99) = latency(3_000)
        print(
            f"Redis, to a handler in another process at {RATE:,}/s: p50 {p50:.2f} ms, p99 {p99:.2f} ms; ",
            end="",
        )
        print(
            f"bare XADD to XREAD BLOCK: {bare50:.2f}, {bare99:.2f}; p99 {p99 / bare99:.2f}x (goal: at most 2)"
        )
        ratios.append(("p99 latency: bare ÷ ours", bare99 / p99, 0.5, None))
    if asked.plot:
        plot(asked.plot, ratios)


if __name__ == "__main__":
    sys.exit(main())
