"""What every test gets: a clean configuration, and a list that collects events."""

from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import dspy
import pytest
import streamll
from logs import NAMES, new_name
from openai_server import LITELLM_WARNINGS
from scripted import HAS_ENGINES
from servers import forget, server
from streamll.core import capture, context, router
from streamll.eventlog import EventLog


class Seen(list[streamll.Event]):
    """Events in the order a sink got them, and the questions tests ask of them."""

    def __hash__(self) -> int:
        return id(self)

    def settled(self) -> "Seen":
        """Return itself once everything so far has arrived."""
        assert streamll.flush(10)
        return self

    def types(self) -> list[str]:
        return [event.event_type for event in self.settled()]

    def of(self, *types: str) -> list[streamll.Event]:
        return [event for event in self.settled() if event.event_type in types]

    def text(self, field: str | None, **where: Any) -> str:
        """Return what a consumer who honours resets has for `field` at the end, call after call."""
        texts: dict[tuple[object, ...], str] = {}
        for event in self.of("token", "stream_reset"):
            about = event.data.get("field") == field and event.data.get("of") is None
            if about and all(getattr(event, name) == value for name, value in where.items()):
                key = (event.call_id, event.data.get("candidate"))
                reset = event.event_type == "stream_reset"
                texts[key] = "" if reset else texts.get(key, "") + str(event.data["token"])
        return "".join(texts.values())


@pytest.fixture
def seen() -> Generator[Seen]:
    """Everything that happens in the test, from a configured sink."""
    events = Seen()
    with streamll.configure([events.append]):
        yield events


TRANSPORTS = ("memory", "sqlite", "redis", "rabbitmq", "nats")


@pytest.fixture(params=TRANSPORTS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for events; a test that asks for one runs on every transport."""
    places = {"memory": f"memory:{new_name()}", "sqlite": f"sqlite:///{tmp_path}/events.db"}
    return places.get(request.param) or server(request.param)


@pytest.fixture
def target() -> str:
    return new_name()


@pytest.fixture
def log(url: str, target: str) -> EventLog:
    return EventLog(url, target)


@pytest.fixture(autouse=True)
def clean() -> Generator[None]:
    """Undo what a test configured for the whole process."""
    layers = router.CONFIGURATION._layers  # pyright: ignore[reportPrivateUsage]
    with context.bound(context.current()):
        yield
    streamll.flush(10)
    for layer in router.CONFIGURATION._layers:  # pyright: ignore[reportPrivateUsage]
        if layer not in layers:
            router.CONFIGURATION.remove(layer)
    forget(NAMES)
    NAMES.clear()
    callbacks: list[object] = dspy.settings.callbacks
    callbacks[:] = [callback for callback in callbacks if callback is not capture.CALLBACK]


# --- the oldest DSPy ----------------------------------------------------------------------------------------

collect_ignore = [] if HAS_ENGINES else ["test_local.py"]
"""The embedded model is an engine."""


def pytest_configure(config: pytest.Config) -> None:
    """Without engines every test goes through LiteLLM: what it warns of is no finding about us."""
    for warning in () if HAS_ENGINES else LITELLM_WARNINGS:
        config.addinivalue_line("filterwarnings", f"ignore:{warning}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in () if HAS_ENGINES else items:
        for reason, holds in _WITHOUT_ENGINES.items():
            if holds(item):
                item.add_marker(pytest.mark.skip(reason=reason))


_WITHOUT_ENGINES: Mapping[str, Callable[[pytest.Item], bool]] = {
    "XMLAdapter of DSPy 3.3 reads by regular expression; what differs is corrected at the end of the field": (
        lambda item: item.path.name == "test_fields.py" and "xml" in item.name.lower()
    ),
    "LiteLLM alone takes longer than the limit": lambda item: "test_F1_a_slow_sink" in item.name,
}
