"""Read a tree of plain values key by key; whatever is not expected is refused by its place."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypeIs

from mkspy.errors import BadSpec, Place, clip
from mkspy.types import Json
from mkspy.types.values import is_json, is_list, is_mapping

type Check[T] = Callable[[object], TypeIs[T]]


def is_text(value: object) -> TypeIs[str]:
    """Return whether `value` is text that a file can hold."""
    return isinstance(value, str) and is_json(value)


def is_truth(value: object) -> TypeIs[bool]:
    """Return whether `value` is true or false."""
    return isinstance(value, bool)


def is_number(value: object) -> TypeIs[int]:
    """Return whether `value` is an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


_CALLED: Mapping[Any, str] = {
    is_text: "text",
    is_truth: "true or false",
    is_number: "an integer",
    is_list: "a list",
    is_mapping: "a table",
}


class Table:
    """A table of a file, and where it stands. `done` refuses the keys that nobody asked for."""

    def __init__(self, value: object, path: str) -> None:
        self.path = path
        self._values = expect(value, is_mapping, path)
        self._asked: list[str] = []

    def has(self, key: str) -> bool:
        """Return whether the key is there."""
        self._asked.append(key)
        return key in self._values

    def need[T](self, key: str, check: Check[T]) -> T:
        """Return the value of a key that must be there."""
        self._must_have(key)
        return expect(self._values[key], check, self.at(key))

    def get[T](self, key: str, check: Check[T], default: T) -> T:
        """Return the value of a key that may be missing."""
        return expect(self._values[key], check, self.at(key)) if self.has(key) else default

    def any(self, key: str) -> object:
        """Return the value of a key that must be there, whatever it is."""
        self._must_have(key)
        return self._values[key]

    def _must_have(self, key: str) -> None:
        if not self.has(key):
            close = get_close_matches(key, self._values, 1, 0.8)  # outputs are no inputs
            meant = f"is {clip(close[0])} meant to be it?" if close else "it needs one"
            raise BadSpec(Place(self.path or "task"), f" has no {key!r}; {meant}")

    def at(self, key: str) -> str:
        """Return the path of a key."""
        return f"{self.path}.{key}" if self.path else key

    @property
    def names(self) -> list[str]:
        """Return the keys, in the order of the file."""
        return list(self._values)

    def done(self) -> None:
        """Refuse what is left."""
        for key in self._values:
            if key not in self._asked:
                close = get_close_matches(key, self._asked, 1)
                meant = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(self._asked)}"
                raise BadSpec(Place(self.path or "task"), f" has the unknown key {clip(key)}; {meant}")


def expect[T](value: object, check: Check[T], path: str) -> T:
    """Return `value` if it is of the kind that is expected at `path`."""
    if not check(value):
        raise BadSpec(Place(path or "task"), f" is {clip(value)}; expected {_CALLED[check]}")
    return value


def json_value(value: object, path: str) -> Json:
    """Return `value` if JSON has such a value."""
    from mkspy.types import to_json

    try:
        return to_json(value)
    except ValueError as error:
        raise BadSpec(Place(path), f": {error}") from None
