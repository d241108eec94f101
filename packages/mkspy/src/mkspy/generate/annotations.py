"""Types of a specification as annotations, and its values as expressions."""

from collections.abc import Mapping
from typing import assert_never, cast

import libcst as cst

from mkspy.generate import text
from mkspy.generate.syntax import call, dotted, keywords, name, sequence, subscript
from mkspy.types import List, Literal, Primitive, Record, Tuple, Type, Union, misfit

_PRIMITIVES = {
    "text": "str",
    "number": "float",
    "integer": "int",
    "boolean": "bool",
    "date": "datetime.date",
    "datetime": "datetime.datetime",
    "json": "Any",
    "image": "dspy.Image",
    "audio": "dspy.Audio",
    "file": "dspy.File",
    "code": "dspy.Code",
    "history": "dspy.History",
    "null": "None",
}


class Annotations:
    """Writes types.

    Args:
        records: The class of each record.
    """

    def __init__(self, records: Mapping[str, str]) -> None:
        self._records = records

    def of(self, type: Type) -> cst.BaseExpression:
        """Return the annotation of `type`."""
        match type:
            case Primitive():
                return dotted(_PRIMITIVES[type.name])
            case Literal():
                return subscript(name("Literal"), [scalar(value) for value in type.values])
            case List():
                return subscript(name("list"), [self.of(type.item)])
            case Tuple():
                return subscript(name("tuple"), [self.of(item) for item in type.items])
            case Union():
                return self._union(type)
            case Record():
                return name(self._records[type.name])
            case _:
                assert_never(type)

    def _union(self, type: Union) -> cst.BaseExpression:
        """Write `None` last, as people do."""
        options = sorted(type.options, key=lambda option: option == Primitive("null"))
        joined, *rest = map(self.of, options)
        for option in rest:
            joined = cst.BinaryOperation(joined, cst.BitOr(), option)
        return joined

    def value(self, value: object, type: Type) -> cst.BaseExpression:
        """Return an expression for a value that JSON can hold and `type` has."""
        match type:
            case Union():
                return self.value(value, next(one for one in type.options if not misfit(value, one)))
            case List() | Tuple():
                items = cast("list[object]", value)
                types = [type.item] * len(items) if isinstance(type, List) else type.items
                written = [self.value(item, of) for item, of in zip(items, types, strict=True)]
                return (
                    sequence(written)
                    if isinstance(type, List)
                    else cst.Tuple(list(map(cst.Element, written)))
                )
            case Record():
                given = cast("Mapping[str, object]", value)
                fields = {one.name: one.type for one in type.fields}
                return cst.Call(
                    self.of(type),
                    keywords({key: self.value(each, fields[key]) for key, each in given.items()}),
                )
            case Primitive() | Literal():
                return _primitive(value, type)
            case _:
                assert_never(type)


def plain(value: object, type: Type) -> object:
    """Return a value of JSON as pydantic reads it back: an image is a mapping with its URL."""
    match type:
        case Union():
            return plain(value, next(one for one in type.options if not misfit(value, one)))
        case List():
            return [plain(item, type.item) for item in cast("list[object]", value)]
        case Tuple():
            items = zip(cast("list[object]", value), type.items, strict=True)
            return [plain(item, of) for item, of in items]
        case Record():
            fields = {one.name: one.type for one in type.fields}
            given = cast("Mapping[str, object]", value)
            return {key: plain(each, fields[key]) for key, each in given.items()}
        case Primitive():
            return {"url": value} if type.name == "image" else value
        case Literal():
            return value
        case _:
            assert_never(type)


def scalar(value: object) -> cst.BaseExpression:
    """Return JSON's value as Python's: a literal, a list or a dict."""
    match value:
        case None | bool():
            return name(str(value))
        case str():
            return text.literal(value)
        case int() | float():
            number = cst.Integer if isinstance(value, int) else cst.Float
            written = number(repr(abs(value)))
            return cst.UnaryOperation(cst.Minus(), written) if value < 0 else written
        case list() | tuple():
            return sequence(map(scalar, cast("list[object]", value)))
        case Mapping():
            items = cast("Mapping[str, object]", value).items()
            return cst.Dict([cst.DictElement(text.literal(key), scalar(each)) for key, each in items])
        case _:
            raise TypeError(f"{value!r} is no JSON")


def _primitive(value: object, type: Primitive | Literal) -> cst.BaseExpression:
    written = scalar(value)
    match type:
        case Primitive("date" | "datetime"):
            return call(dotted(f"datetime.{type.name}.fromisoformat"), written)
        case Primitive("image"):
            return call(dotted("dspy.Image"), written)
        case Primitive("code"):
            return call(dotted("dspy.Code"), code=written)
        case Primitive("history"):
            messages = cast("Mapping[str, object]", value)["messages"]
            return call(dotted("dspy.History"), messages=scalar(messages))
        case _:
            return written
