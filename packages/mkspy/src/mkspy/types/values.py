"""Whether a value of a file fits a type: examples and defaults are held to it."""

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeIs, cast

from mkspy.errors import clip
from mkspy.types.model import Field, Json, List, Literal, Primitive, Record, Tuple, Type, Union
from mkspy.types.notation import to_text

MAX_DEPTH = 50
MAX_INTEGER = 2**63
"""TOML and most readers of JSON have integers of 64 bits."""


def misfit(value: object, type: Type, where: str = "") -> str:
    """Return what keeps `value` from being one of `type`, naming the place in it; "" if nothing does.

    Values are as JSON has them: a date is text like 2026-03-31, an image is its URL, a history has messages.
    """
    match type:
        case Primitive(name):
            fits = _PRIMITIVES[name](value)
        case Literal(values):
            fits = any(value == each and value.__class__ is each.__class__ for each in values)
        case Union(options):
            fits = any(not misfit(value, option) for option in options)
        case List(item) if is_list(value):
            return _items(value, [item] * len(value), where)
        case Tuple(items) if is_list(value) and len(value) == len(items):
            return _items(value, items, where)
        case Record() if is_mapping(value):
            return _fields(value, type, where)
        case List() | Tuple() | Record():
            fits = False
    return "" if fits else f"{_at(where)}{clip(value)} is not {_short(to_text(type))}"


def can_be_missing(type: Type) -> bool:
    """Return whether a value of this type can be left out: then it is null."""
    return not misfit(None, type)


def is_mapping(value: object) -> TypeIs[Mapping[str, object]]:
    """Return whether `value` is a table: names with values."""
    return isinstance(value, Mapping) and all(
        isinstance(key, str) for key in cast("Mapping[object, object]", value)
    )


def is_list(value: object) -> TypeIs[Sequence[object]]:
    """Return whether `value` is a list; text is none."""
    return isinstance(value, list | tuple)


def _items(values: Sequence[object], types: Sequence[Type], where: str) -> str:
    pairs = enumerate(zip(values, types, strict=True))
    return next(filter(None, (misfit(item, type, f"{where}[{at}]") for at, (item, type) in pairs)), "")


def _fields(value: Mapping[str, object], record: Record, where: str) -> str:
    known = {each.name: each for each in record.fields}
    for name in value:
        if name not in known:
            return f"{_at(where)}{record.name} has no field {clip(name)}; it has {', '.join(known)}"
    found = (_field_misfit(value, each, record, where) for each in record.fields)
    return next(filter(None, found), "")


def _field_misfit(value: Mapping[str, object], field: Field, record: Record, where: str) -> str:
    if field.name in value:
        return misfit(value[field.name], field.type, f"{where}.{field.name}".lstrip("."))
    if not field.required or can_be_missing(field.type):
        return ""
    return f"{_at(where)}the field {field.name!r} of {record.name} is missing"


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:297]}..."


def _at(where: str) -> str:
    return f"{where}: " if where else ""


def _is_number(value: object) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_INTEGER


def _is_text(value: object) -> bool:
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _read_by(read: Callable[[str], object]) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        try:
            return isinstance(value, str) and bool(read(value))
        except ValueError:
            return False

    return fits


def is_json(value: object, depth: int = 0) -> bool:
    """Return whether `value` is one that a JSON file can hold, at most 50 levels deep."""
    if value is None or isinstance(value, bool):
        return True
    if is_list(value):
        return depth < MAX_DEPTH and all(is_json(item, depth + 1) for item in value)
    if is_mapping(value):
        inside = (_is_text(key) and is_json(item, depth + 1) for key, item in value.items())
        return depth < MAX_DEPTH and all(inside)
    return _is_text(value) or _is_number(value)


def _is_history(value: object) -> bool:
    if not is_mapping(value) or set(value) != {"messages"}:
        return False
    messages = value["messages"]
    return is_list(messages) and all(is_mapping(message) and is_json(message) for message in messages)


_PRIMITIVES: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("text", "image", "audio", "file", "code"), _is_text),
    "number": _is_number,
    "integer": _is_integer,
    "boolean": lambda value: isinstance(value, bool),
    "date": _read_by(datetime.date.fromisoformat),
    "datetime": _read_by(datetime.datetime.fromisoformat),
    "json": is_json,
    "history": _is_history,
    "null": lambda value: value is None,
}


def to_json(value: object, depth: int = 0) -> Json:
    """Return a value read from TOML as JSON has it: dates become text.

    Raises:
        ValueError: JSON has no such value.
    """
    if depth <= MAX_DEPTH:
        if isinstance(value, datetime.date | datetime.time):
            return value.isoformat()
        if is_list(value):
            return [to_json(item, depth + 1) for item in value]
        if is_mapping(value):
            return {key: to_json(item, depth + 1) for key, item in value.items()}
        if is_json(value):
            return cast("Json", value)
    raise ValueError(f"{clip(value)} is no value that JSON has")
