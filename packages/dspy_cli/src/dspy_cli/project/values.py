"""What a program returned, as honest JSON: whole, nothing invented, and whatever it was."""

import base64
import dataclasses
import datetime
import enum
import json
import math
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import dspy
from pydantic import BaseModel, JsonValue
from pydantic_core import to_jsonable_python

OUTPUT = "output"
"""The key of what a program returned that has no fields of its own."""

_ROWS = (list, tuple, set, frozenset, deque)
_MAX_DEPTH = 64
_MAX_BITS = 63  # of an integer that every JSON reader takes
# What `dspy.Type` wraps its content in when it is serialised for a prompt.
_MARKUP = re.compile(r"<<CUSTOM-TYPE-START-IDENTIFIER>>(.*?)<<CUSTOM-TYPE-END-IDENTIFIER>>", re.DOTALL)
_MARKS = re.compile(r"<<CUSTOM-TYPE-(START|END)-IDENTIFIER>>")


def fields(result: object) -> dict[str, JsonValue]:
    """Return `result` as a JSON object. A value without fields is under `"output"`. Never raises."""
    value = jsonable(result)
    return value if isinstance(value, dict) and _has_fields(result) else {OUTPUT: value}


def jsonable(value: object) -> JsonValue:
    """Return `value` as data any JSON encoder takes. Never raises.

    Bytes are a `data:` URI; NaN, infinity and integers of more than 64 bits are text. What has no JSON form
    is its `repr`, and what is inside of itself is `"<cycle: list>"`.
    """
    return _value(value, ())


def _has_fields(result: object) -> bool:
    if isinstance(result, dspy.Type):
        return False
    return isinstance(result, Mapping | dspy.Example | BaseModel) or dataclasses.is_dataclass(result)


def _value(value: object, inside: tuple[int, ...]) -> JsonValue:
    try:
        return _scalar(value, inside)
    except Exception as error:  # noqa: BLE001 - the value's own code may raise anything
        return f"<{type(value).__name__}: unreadable, {type(error).__name__}>"


def _scalar(value: object, inside: tuple[int, ...]) -> JsonValue:
    match value:
        case None | bool():
            return value
        case enum.Enum():
            return _value(value.value, inside)
        case str():
            return _string(str.__str__(value))
        case int():
            return int(value) if int(value).bit_length() <= _MAX_BITS else _long(int(value))
        case float():
            return float(value) if math.isfinite(value) else str(float(value))
        case bytes() | bytearray() | memoryview():
            encoded = base64.b64encode(cast("bytes", value)).decode()
            return f"data:application/octet-stream;base64,{encoded}"
        case datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return cast("str", to_jsonable_python(value))  # as in the schema: ISO 8601
        case type():
            return f"{value.__module__}.{value.__qualname__}"
        case _:
            return _container(value, inside)


def _container(value: object, inside: tuple[int, ...]) -> JsonValue:
    name = type(value).__name__
    if id(value) in inside:
        return f"<cycle: {name}>"
    if len(inside) >= _MAX_DEPTH:
        return f"<{name}: nested deeper than {_MAX_DEPTH}>"
    inside = (*inside, id(value))
    parts = _parts(value)
    if isinstance(parts, Mapping):
        items = cast("Mapping[object, object]", parts).items()
        return {_text(str(_scalar(key, inside))): _value(item, inside) for key, item in items}
    if isinstance(parts, _ROWS):
        return [_value(item, inside) for item in cast("Iterable[object]", parts)]
    return _value(parts, inside)


def _parts(value: Any) -> object:
    """Return what `value` consists of, one level down: a mapping, a sequence, or something simpler."""
    match value:
        case Mapping():
            return cast("object", value)
        case _ if isinstance(value, _ROWS):
            return cast("object", value)
        case dspy.Prediction():
            return _prediction(value)
        case dspy.Example():
            return _items(value)
        case BaseModel():
            return _model(value)
        case BaseException():
            return {"type": type(value).__name__, "message": str(value)}
        case _ if dataclasses.is_dataclass(value):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        case _ if callable(getattr(value, "tolist", None)):  # numpy, torch
            return value.tolist()
        case _:
            return _plain(value)


def _plain(value: object) -> str:
    """Return how `value` shows itself: UUIDs, paths, Decimals by their text, other objects by their repr."""
    shows_text = type(value).__str__ is not object.__str__
    return str(value) if shows_text else repr(value)


def _prediction(prediction: dspy.Prediction) -> Mapping[str, object]:
    """Return the fields, and all `completions` when there are several."""
    stored = _items(prediction)
    completions = cast("Mapping[str, list[object]] | None", prediction.completions)
    rows = _rows(completions) if completions is not None else []
    return {**stored, "completions": rows} if len(rows) > 1 and "completions" not in stored else stored


def _items(example: dspy.Example) -> dict[str, object]:
    return dict(cast("Iterable[tuple[str, object]]", example.items()))


def _rows(completions: Mapping[str, list[object]]) -> list[dict[str, object]]:
    columns = dict[str, list[object]](completions.items())
    return [dict(zip(columns, row, strict=False)) for row in zip(*columns.values(), strict=False)]


def _model(value: BaseModel) -> object:
    try:
        return value.model_dump(by_alias=True, warnings=False, serialize_as_any=True)
    except Exception:  # noqa: BLE001 - a cycle, or a serializer of the user's
        return dict(value)


def _long(number: int) -> str:
    try:
        return str(number)
    except ValueError:  # Python writes out no more than 4,300 digits
        return hex(number)


# --- Text, and the markup that is not part of it ------------------------------------------------------------


def _string(text: str) -> JsonValue:
    """Return what `text` stands for, if all of it is the markup of one image, sound or file."""
    whole = _MARKUP.fullmatch(text)
    parts = _marked(whole[1]) if whole else None
    return _value(parts[0], ()) if parts and len(parts) == 1 else _text(text)


def _text(text: str) -> str:
    if "<<CUSTOM-TYPE-" in text:
        text = _MARKS.sub("", _MARKUP.sub(_unmarked, text))
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _unmarked(match: re.Match[str]) -> str:
    parts = _marked(match[1])
    if parts is None:
        return match[1]
    return "".join(part if isinstance(part, str) else json.dumps(part, ensure_ascii=False) for part in parts)


def _marked(content: str) -> Sequence[object] | None:
    """Return the parts of a prompt's message that stand between the marks."""
    try:
        parts = json.loads(content)
    except ValueError:
        return None
    return [_part(part) for part in cast("list[object]", parts)] if isinstance(parts, list) else None


def _part(part: object) -> object:
    match part:
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return url
        case {"type": "input_audio", "input_audio": {"data": str(data), "format": str(audio_format)}}:
            return f"data:audio/{audio_format};base64,{data}"
        case {"type": "file", "file": dict()}:
            return cast("dict[str, object]", part)["file"]
        case {"type": "text", "text": str(text)}:
            return text
        case _:
            return part
