"""What mkspy raises on purpose. Each says what was given, what was expected and what to do."""

from typing import NamedTuple, Self


class MkspyError(Exception):
    """Base of every error mkspy raises on purpose; the command line prints it without a traceback."""


class BadType(MkspyError, ValueError):
    """Text, an annotation or a schema that names no type of a spec."""


class Place(NamedTuple):
    """Where in a spec: a path such as `process[1].body`, and what stands there."""

    path: str
    label: str = ""

    def __str__(self) -> str:
        return f"{self.path} ({self.label})" if self.label else self.path


class BadSpec(MkspyError, ValueError):
    """A task or an operation that cannot be; the message names every place it is about.

    An operation does not know where in a task it will stand, so its places begin at `process`; whoever puts
    it somewhere else says so with `within`.

    Attributes:
        places: The places the message names, in its order.
    """

    def __init__(self, *parts: str | Place) -> None:
        super().__init__("".join(map(str, parts)))
        self._parts = parts
        self.places = tuple(part for part in parts if isinstance(part, Place))

    def within(self, path: str) -> Self:
        """Return the same error about an operation that stands at `path`."""
        return type(self)(*(_moved(part, path) if isinstance(part, Place) else part for part in self._parts))


def _moved(place: Place, path: str) -> Place:
    root = "process"
    return place._replace(path=path + place.path.removeprefix(root)) if place.path.startswith(root) else place


def clip(value: object) -> str:
    """Return how `value` looks in a message: at most 80 characters of it."""
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
