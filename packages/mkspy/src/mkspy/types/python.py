"""Types as Python annotations, and back without loss. The one module of types that uses dspy and pydantic."""

import collections.abc
import datetime
import enum
import types
import typing
from collections.abc import Callable
from typing import Any, cast, get_args, get_origin

from mkspy.errors import BadType, clip
from mkspy.types.model import (
    BOOLEAN,
    CODE,
    DATE,
    DATETIME,
    INTEGER,
    JSON,
    NULL,
    NUMBER,
    PRIMITIVES,
    REQUIRED,
    TEXT,
    Field,
    Json,
    List,
    Literal,
    Primitive,
    Record,
    Required,
    Scalar,
    Tuple,
    Type,
    Union,
    union,
)
from mkspy.types.values import is_json

MAX_DEPTH = 20
_DSPY = ("Image", "Audio", "File", "Code", "History")
_PLAIN: dict[Any, Type] = {
    str: TEXT,
    float: NUMBER,
    int: INTEGER,
    bool: BOOLEAN,
    None: NULL,
    types.NoneType: NULL,
    datetime.date: DATE,
    datetime.datetime: DATETIME,
    Any: JSON,
    object: JSON,
    dict: JSON,
    list: List(JSON),
}
_ANNOTATIONS: dict[Primitive, Any] = {
    type: annotation
    for annotation, type in reversed(_PLAIN.items())
    if isinstance(type, Primitive) and annotation not in (dict, object)
}


def to_python(type: Type) -> Any:
    """Return the annotation of `type`: what a field of a `dspy.Signature` is annotated with."""
    match type:
        case Primitive():
            return _ANNOTATIONS[type] if type in _ANNOTATIONS else _dspy(type.name.capitalize())
        case Literal(values):
            return typing.Literal[values]
        case List(item):
            return list[to_python(item)]
        case Tuple(items):
            return tuple[tuple(map(to_python, items))]
        case Union(options):
            return typing.Union[tuple(map(to_python, options))]  # noqa: UP007 - the options are values here
        case Record():
            return _model(type)


def _dspy(name: str) -> Any:
    import dspy

    return getattr(dspy, name)


def _model(record: Record) -> Any:
    from pydantic import ConfigDict, create_model
    from pydantic import Field as Slot

    definitions: dict[str, Any] = {
        each.name: (to_python(each.type), Slot(**_said(each))) for each in record.fields
    }
    config = ConfigDict(protected_namespaces=())
    return create_model(record.name, __config__=config, __doc__=record.description or None, **definitions)


def _said(field: Field) -> dict[str, Any]:
    description = {"description": field.description} if field.description else {}
    return description if isinstance(field.default, Required) else {**description, "default": field.default}


def from_python(annotation: Any) -> Type:
    """Return the type that an annotation says.

    Raises:
        BadType: Specs have no such type.
    """
    return _read(annotation, 0)


def _read(annotation: Any, depth: int) -> Type:
    if depth > MAX_DEPTH:
        raise BadType(f"{clip(annotation)} is more than {MAX_DEPTH} levels deep; it may contain itself")
    if isinstance(annotation, typing.TypeAliasType):
        return JSON if annotation.__name__ == "JsonValue" else _read(annotation.__value__, depth + 1)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is not None:
        return _applied(origin, arguments, lambda part: _read(part, depth + 1))
    if annotation is None or (isinstance(annotation, collections.abc.Hashable) and annotation in _PLAIN):
        return _PLAIN[annotation]
    return _class(annotation, depth)


def _applied(origin: Any, arguments: tuple[Any, ...], read: Callable[[Any], Type]) -> Type:
    if origin is typing.Literal:
        return union(*(NULL if value is None else Literal((_scalar(value),)) for value in arguments))
    if origin in (typing.Union, types.UnionType):
        return union(*map(read, arguments))
    if origin is typing.Annotated:
        return read(arguments[0])
    if origin in (list, collections.abc.Sequence) or (origin is tuple and arguments[1:] == (...,)):
        return List(read(arguments[0]))
    if origin is tuple:
        return Tuple(tuple(map(read, arguments)))
    if origin in (dict, collections.abc.Mapping):
        return JSON
    raise BadType(f"specs have no type for {clip(origin)}; {_KNOWN}")


_KNOWN = "there are str, int, float, bool, dates, Literal, list, tuple, |, pydantic models and dspy's types"


def _class(annotation: Any, depth: int) -> Type:
    if not isinstance(annotation, type):
        raise BadType(f"{clip(annotation)} is no type; {_KNOWN}")
    import dspy
    from pydantic import BaseModel

    kind = cast("type[Any]", annotation)
    for name in _DSPY:
        if kind is getattr(dspy, name):
            return PRIMITIVES[name.lower()]
    if issubclass(kind, dspy.Code):  # dspy.Code["python"] makes a class each time
        return CODE
    if issubclass(kind, enum.Enum):
        return Literal(tuple(_scalar(member.value) for member in kind))
    if issubclass(kind, BaseModel) and not issubclass(kind, dspy.Type):
        return _record(kind, depth)
    raise BadType(f"specs have no type for {clip(kind)}; {_KNOWN}")


def _record(model: Any, depth: int) -> Record:
    fields = [
        Field(name, _read(info.annotation, depth + 1), info.description or "", _default(name, info))
        for name, info in model.model_fields.items()
    ]
    return Record(model.__name__, tuple(fields), model.__doc__ or "")


def _default(name: str, info: Any) -> Json | Required:
    if info.is_required():
        return REQUIRED
    default = info.get_default(call_default_factory=True, validated_data={})
    if not is_json(default):
        raise BadType(
            f"the default of {name!r} is {clip(default)}; a spec's defaults are values that JSON has"
        )
    return default


def _scalar(value: Any) -> Scalar:
    if isinstance(value, enum.Enum):
        return _scalar(value.value)
    if not isinstance(value, str | int):
        raise BadType(f"{clip(value)} is no literal: text, an integer or a boolean")
    return value
