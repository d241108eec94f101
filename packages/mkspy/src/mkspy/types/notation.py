"""The notation of types in specs, read and written: `text`, `list[text]`, `"billing" | "shipping"`, a record.

Python's own spelling of the same types is read as well. The text is parsed, never evaluated.
"""

import ast
import json
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import assert_never

from mkspy.errors import BadType, clip
from mkspy.types.model import (
    BOOLEAN,
    CODE,
    INTEGER,
    JSON,
    NULL,
    NUMBER,
    PRIMITIVES,
    TEXT,
    List,
    Literal,
    Primitive,
    Record,
    Scalar,
    Tuple,
    Type,
    Union,
    optional,
    union,
)

MAX_CHARACTERS = 100_000
MAX_DEPTH = 20

_PYTHON: dict[str, Type] = {
    "str": TEXT,
    "float": NUMBER,
    "int": INTEGER,
    "bool": BOOLEAN,
    "None": NULL,
    "NoneType": NULL,
    **dict.fromkeys(("Any", "dict", "Dict", "Mapping", "JsonValue", "object"), JSON),
    **{name: List(JSON) for name in ("list", "List", "Sequence")},
    **{f"dspy.{name}": PRIMITIVES[name.lower()] for name in ("Image", "Audio", "File", "Code", "History")},
    **{
        f"{module}.{name}": PRIMITIVES[name] for module in ("datetime", "dt") for name in ("date", "datetime")
    },
}
_MODULES = ("typing", "collections.abc", "types", "pydantic", "t")
_TRUTH = {"true": True, "false": False}


def parse(text: str, records: Mapping[str, Record] = MappingProxyType({})) -> Type:
    """Return the type that `text` names, in a spec's notation or in Python's.

    Args:
        text: At most 100,000 characters; at most 20 levels deep.
        records: What other names mean.

    Raises:
        BadType: It names none; the message shows the place.
    """
    return _Reader(text, records).read()


class _Reader:
    def __init__(self, text: str, records: Mapping[str, Record]) -> None:
        self._text, self._records = text, records

    def read(self) -> Type:
        if len(self._text) > MAX_CHARACTERS:
            raise BadType(f"a type of {len(self._text)} characters; at most {MAX_CHARACTERS} are read")
        return self._type(self._tree(), 0)

    def _tree(self) -> ast.expr:
        try:
            with warnings.catch_warnings(action="ignore"):  # of "\d" and the like
                return ast.parse(self._text.strip(), mode="eval").body
        except SyntaxError as error:
            where = f", column {error.offset}" if error.offset else ""
            raise BadType(f"{clip(self._text)} is no type: {error.msg}{where}. {_EXAMPLES}") from None
        except (ValueError, MemoryError, RecursionError):
            raise BadType(f"{clip(self._text)} is no type. {_EXAMPLES}") from None

    def _type(self, node: ast.expr, depth: int) -> Type:
        if depth > MAX_DEPTH:
            raise self._bad(node, f"more than {MAX_DEPTH} levels deep")
        match node:
            case ast.Name() | ast.Attribute():
                return self._named(node)
            case ast.Constant() | ast.UnaryOp():
                return NULL if getattr(node, "value", ...) is None else Literal((self._scalar(node),))
            case ast.BinOp(op=ast.BitOr()):
                return union(*(self._type(each, depth + 1) for each in self._alternatives(node)))
            case ast.Subscript():
                return self._applied(node, depth + 1)
            case _:
                raise self._bad(node, "is no type")

    def _alternatives(self, node: ast.expr) -> Sequence[ast.expr]:
        found: list[ast.expr] = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            found.append(node.right)
            node = node.left
        return [node, *reversed(found)]

    def _named(self, node: ast.expr) -> Type:
        name = self._name(node)
        if name in _TRUTH:
            return Literal((_TRUTH[name],))
        known = PRIMITIVES.get(name) or self._records.get(name) or _PYTHON.get(_plain(name))
        if known is None:
            raise self._bad(node, f"is not known{self._meant(name)}")
        return known

    def _applied(self, node: ast.Subscript, depth: int) -> Type:
        name = _plain(self._name(node.value))
        given = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        match name, given:
            case "Literal", _:
                return self._literal(given)
            case "Union", _:
                return union(*(self._type(each, depth) for each in given))
            case (("list" | "List" | "Sequence"), [item]):
                return List(self._type(item, depth))
            case (("tuple" | "Tuple"), [item, ast.Constant(value=value)]) if value is ...:
                return List(self._type(item, depth))
            case (("tuple" | "Tuple"), [_, *_]):
                return Tuple(tuple(self._type(each, depth) for each in given))
            case (("optional" | "Optional"), [item]):
                return optional(self._type(item, depth))
            case "Annotated", [item, _, *_]:
                return self._type(item, depth)
            case (("dict" | "Dict" | "Mapping"), [_, _]):
                return JSON
            case "dspy.Code", [ast.Constant(value=str())]:
                return CODE
            case _:
                raise self._bad(node, "is no type: list[...], tuple[...] and optional[...] take types")

    def _literal(self, given: Sequence[ast.expr]) -> Type:
        values = [self._scalar(each) for each in given if not _is_none(each)]
        options: list[Type] = [Literal(tuple(values))] if values else []
        return union(*options, *([NULL] if len(values) < len(given) else []))

    def _scalar(self, node: ast.expr) -> Scalar:
        match node:
            case ast.Constant(value=str() | int() as value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value)) if value is not True:
                return -value
            case ast.Name(id=name) if name in _TRUTH:
                return _TRUTH[name]
            case _:
                raise self._bad(node, "is no literal: text in quotes, an integer, true or false")

    def _name(self, node: ast.expr) -> str:
        match node:
            case ast.Name(id=name):
                return name
            case ast.Attribute(value=value, attr=name):
                return f"{self._name(value)}.{name}"
            case _:
                raise self._bad(node, "is no name of a type")

    def _meant(self, name: str) -> str:
        known = [*PRIMITIVES, "list", "optional", "tuple", *self._records]
        meant = _MEANT.get(name) or next(iter(get_close_matches(name, known, 1)), "")
        return f"; did you mean {meant!r}?" if meant else f"; there are {', '.join(known)}"

    def _bad(self, node: ast.expr, problem: str) -> BadType:
        part = ast.get_source_segment(self._text.strip(), node) or self._text
        return BadType(f"{clip(part)} {problem} (column {node.col_offset + 1} of {clip(self._text.strip())})")


_EXAMPLES = 'Types look like text, list[text], "yes" | "no", date | null'
_MEANT = {"string": "text", "double": "number", "object": "json", "array": "list", "enum": '"a" | "b"'}


def _plain(name: str) -> str:
    module, _, last = name.rpartition(".")
    return last if module in _MODULES else name


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def to_text(type: Type) -> str:
    """Return the notation of `type`; `parse` reads it back, given the records in it."""
    match type:
        case Primitive(name) | Record(name):
            return name
        case Literal(values):
            return " | ".join(map(json_text, values))
        case List(item):
            return f"list[{to_text(item)}]"
        case Tuple(items):
            return f"tuple[{', '.join(map(to_text, items))}]"
        case Union(options):
            return " | ".join(map(to_text, options))
        case _:
            assert_never(type)


def json_text(value: Scalar) -> str:
    """Return a literal as it stands in a type: JSON's spelling, which Python reads as well."""
    return json.dumps(value, ensure_ascii=False)
