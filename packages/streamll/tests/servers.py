"""The servers that tests talk to, by URL; absent, a test is skipped on a laptop and fails in CI."""

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import cache
from threading import Thread
from urllib.parse import urlsplit

import nats
import nats.js.errors
import pika
import pytest
import redis

URLS = {
    "redis": os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"),
    "rabbitmq": os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672"),
    "nats": os.environ.get("NATS_URL", "nats://127.0.0.1:4222"),
}


@cache
def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 0), 2).close()
    except OSError:
        return False
    return True


USED: set[str] = set()
"""Servers that this test asked for."""


def server(name: str) -> str:
    """Return the URL of a server, or skip the test when it does not run here."""
    url = URLS[name]
    USED.add(name)
    if not _answers(url):
        missing = f"no {name} at {url}; start one or set its URL"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return url


def forget(names: Sequence[str]) -> None:
    """Delete what a test made under `names`: RabbitMQ and NATS keep a directory, and open files, for each."""
    deleters = {"rabbitmq": _forget_in_rabbitmq, "nats": _forget_in_nats, "redis": _forget_in_redis}
    for used in USED:
        if names:
            deleters[used](names)
    USED.clear()


def _forget_in_rabbitmq(names: Sequence[str]) -> None:
    with closing(pika.BlockingConnection(pika.URLParameters(URLS["rabbitmq"]))) as connection:
        channel = connection.channel()
        for name in names:
            for group in ("", ".dead", ".g", ".g1", ".g2"):
                channel.queue_delete(name + group)
                channel.exchange_delete(name + group)
                channel.exchange_delete(f"{name}{group}.made")


def _forget_in_nats(names: Sequence[str]) -> None:
    async def forget() -> None:
        client = await nats.connect(URLS["nats"])
        for name in names:
            for part in ("", "_dead", "_expired"):
                with suppress(nats.js.errors.NotFoundError):
                    await client.jetstream().delete_stream(name + part)
        await client.close()

    thread = Thread(target=asyncio.run, args=(forget(),))  # the test's own loop may be running
    thread.start()
    thread.join()


def _forget_in_redis(names: Sequence[str]) -> None:
    with closing(redis.Redis.from_url(URLS["redis"])) as client:
        for name in names:
            keys = list(client.scan_iter(f"*{name}*", count=10_000))
            if keys:
                client.unlink(*keys)
