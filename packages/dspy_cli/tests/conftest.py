"""What every test of dspy-cli gets: one event loop, and places for events that servers can share."""

from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings
from own_servers import redis_server

settings.register_profile("patient", deadline=None)  # no test asserts on absolute time
settings.load_profile("patient")


@pytest.fixture
def anyio_backend() -> str:
    """Uvicorn and DSPy run on asyncio."""
    return "asyncio"


@pytest.fixture(params=["sqlite", "redis"])
def events(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[str]:
    """URL of an event log of this test's own; a test that asks for one runs on both kinds."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/shared.db"
        return
    with redis_server(tmp_path) as server:
        yield server.url
