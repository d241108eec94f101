"""The servers that tests talk to, by URL; absent, a test is skipped on a laptop and fails in CI."""

import os
import socket
from functools import cache
from urllib.parse import urlsplit

import pytest

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


def server(name: str) -> str:
    """Return the URL of a server, or skip the test when it does not run here."""
    url = URLS[name]
    if not _answers(url):
        missing = f"no {name} at {url}; start one or set its URL"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return url
