"""Any Python value as honest, bounded JSON.

`freeze` runs on the program's thread and only copies containers, so that what is queued cannot change under
us; `jsonable` runs on the worker and does the rest. Neither raises, whatever it is given: what cannot be
shown is described (`{"type": "ndarray", "shape": [3], ...}`), what is too long says how much is missing.
"""

import dataclasses
import datetime
import enum
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import PurePath
from typing import Any, cast
from uuid import UUID

from streamll.core.events import JsonValue

MAX_TEXT = 1_000_000
"""Characters of one string; a longer one keeps its beginning and says what was cut."""
MAX_TOTAL = 4_000_000
"""Characters of one event."""
MAX_NODES = 10_000
MAX_DEPTH = 32

_LONG_BITS = 10_000  # Python writes out no more than 4,300 digits
_MAX_COPY_DEPTH = 6
_MAX_COPY_ITEMS = 1_000
_SCALARS = frozenset({str, int, float, bool, type(None)})
_TEXT_FORMS = (UUID, Decimal, PurePath, datetime.timedelta)


def freeze(value: object, depth: int = 0) -> object:
    """Return `value` with its built-in containers copied; leaves and what is too deep or long are shared."""
    kind = type(value)
    if kind in _SCALARS or depth > _MAX_COPY_DEPTH:
        return value
    if kind is dict:
        items = cast("dict[object, object]", value)
        if len(items) > _MAX_COPY_ITEMS:
            return items
        return {k: v if type(v) in _SCALARS else freeze(v, depth + 1) for k, v in items.copy().items()}
    if kind is list or kind is tuple:
        row = cast("list[object]", value)
        return [freeze(item, depth + 1) for item in row] if len(row) <= _MAX_COPY_ITEMS else row
    store = _store(value)
    return value if store is None else freeze(store, depth + 1)


def _store(value: object) -> dict[object, object] | None:
    """Return the fields of a `dspy.Prediction` or `dspy.Example`."""
    try:
        store = cast("object", getattr(value, "_store", None))
    except Exception:  # noqa: BLE001 - a proxy's own `__getattr__`
        return None
    return cast("dict[object, object]", store) if type(store) is dict else None


def jsonable(value: object) -> JsonValue:
    """Return `value` as JSON data within the limits above."""
    return _Walk().value(value, 0)


def _long(number: int) -> str:
    return str(number) if number.bit_length() < _LONG_BITS else f"<int of {number.bit_length():,} bits>"


class _Walk:
    """One conversion: what may still be spent, and which containers we are inside of."""

    def __init__(self) -> None:
        self._nodes = MAX_NODES
        self._characters = MAX_TOTAL
        self._inside: set[int] = set()

    def value(self, value: object, depth: int) -> JsonValue:
        self._nodes -= 1
        kind = type(value)
        if kind is str:
            return self._text(cast("str", value))
        if kind is bool or value is None:
            return cast("bool | None", value)
        try:
            return self._scalar(value, depth)
        except BaseException as error:  # noqa: BLE001 - the value's own code may raise anything
            return f"<{kind.__name__}: unreadable, {type(error).__name__}>"

    def _scalar(self, value: object, depth: int) -> JsonValue:
        match value:
            case enum.Enum():
                return self.value(value.value, depth)
            case str():
                return self._text(str.__str__(value))
            case int():
                return int(value) if abs(value) < 2**63 else _long(value)
            case float():
                return float(value) if math.isfinite(value) else str(value)
            case _:
                return self._nested(value, depth)

    def _text(self, text: str) -> str:
        room = min(MAX_TEXT, max(self._characters, 0))
        self._characters -= min(len(text), room)
        if len(text) <= room and type(text) is str and text.isascii():
            return text
        if len(text) > room:
            text = f"{text[:room]}… [{len(text) - room:,} more characters]"
        try:
            text.encode()
        except UnicodeEncodeError:  # a lone surrogate is no Unicode text
            text = text.encode("utf-8", "replace").decode()
        return str(text)

    def _nested(self, value: object, depth: int) -> JsonValue:
        if id(value) in self._inside:
            return f"<cycle: {type(value).__name__}>"
        if depth > MAX_DEPTH:
            return f"<{type(value).__name__}: nested deeper than {MAX_DEPTH}>"
        self._inside.add(id(value))
        try:
            return self._object(value, depth + 1)
        finally:
            self._inside.discard(id(value))

    def _object(self, value: object, depth: int) -> JsonValue:
        if type(value) is dict:  # what nearly everything is, and cheaper to tell than a Mapping
            return self._mapping(cast("dict[object, object]", value), depth)
        match value:
            case list() | tuple() | set() | frozenset():
                return self._items(cast("Iterable[object]", value), depth)
            case Mapping():
                return self._mapping(cast("Mapping[object, object]", value), depth)
            case datetime.date() | datetime.time():
                return value.isoformat()
            case bytes() | bytearray() | memoryview():
                return {"type": "bytes", "size": memoryview(cast("bytes", value)).nbytes}
            case BaseException():
                return {"type": type(value).__name__, "message": self._text(str(value))}
            case type():
                signature = getattr(value, "signature", None)  # `question -> answer`, of a dspy.Signature
                return signature if isinstance(signature, str) else f"{value.__module__}.{value.__qualname__}"
            case _:
                return self._foreign(value, depth)

    def _foreign(self, value: Any, depth: int) -> JsonValue:
        """Objects of other libraries, by the conversions they offer."""
        if isinstance(value, _TEXT_FORMS):
            return str(value)
        if hasattr(value, "__array_interface__"):
            shape = [int(n) for n in value.shape]
            return self._scalar_or_array(value, shape, depth)
        if dataclasses.is_dataclass(value):
            names = [field.name for field in dataclasses.fields(cast("Any", value))]
            return self._mapping({name: getattr(value, name) for name in names}, depth)
        if callable(dump := getattr(value, "model_dump", None)):
            return self.value(dump(), depth)
        if (store := _store(value)) is not None:
            return self._mapping(store, depth)
        if callable(value):
            return f"<{type(value).__name__} {getattr(value, '__qualname__', type(value).__name__)}>"
        return self._text(repr(value))

    def _scalar_or_array(self, value: Any, shape: list[int], depth: int) -> JsonValue:
        if not shape:
            return self.value(value.item(), depth)
        head = value.reshape(-1)[:8].tolist()
        return {
            "type": type(value).__name__,
            "shape": cast("list[JsonValue]", shape),
            "dtype": str(value.dtype),
            "head": self.value(head, depth),
        }

    def _mapping(self, mapping: Mapping[object, object], depth: int) -> JsonValue:
        shown: dict[str, JsonValue] = {}
        for key, item in mapping.items():
            if self._nodes <= 0:
                shown["…"] = f"{len(mapping) - len(shown):,} more"
                break
            shown[self._text(key if isinstance(key, str) else str(key))] = self.value(item, depth)
        return shown

    def _items(self, items: Iterable[object], depth: int) -> JsonValue:
        shown: list[JsonValue] = []
        for index, item in enumerate(items):
            if self._nodes <= 0:
                shown.append(f"… {len(cast('list[object]', items)) - index:,} more")
                break
            shown.append(self.value(item, depth))
        return shown
