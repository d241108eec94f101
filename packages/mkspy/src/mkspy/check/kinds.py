"""Kinds: whether an expression is a number, text or a list, which decides what `+` and `*` do with it."""

import re
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import libcst as cst

from mkspy.check.fields import declared
from mkspy.check.known import words
from mkspy.check.origins import Source, sources
from mkspy.check.signatures import source
from mkspy.check.tree import Node, dotted
from mkspy.check.values import Function

if TYPE_CHECKING:
    from mkspy.check.program import Program

type Kind = Literal["number", "text", "list"]

_DEEP = 30
_TEXTS = words(
    "capitalize casefold isoformat join lower lstrip removeprefix removesuffix repr replace rstrip str"
    " strftime strip sub swapcase title upper"
)
_LISTS = words("copy findall list partition rpartition rsplit sorted split splitlines tuple")
_NUMBERS = words(
    "abs bool ceil count exp find float floor fmean fsum index int isinstance len log mean median rfind round"
    " sqrt startswith stdev sum trunc"
)
_ANSWERS: dict[str, Kind] = {
    **{name: "text" for name in _TEXTS},
    **{name: "list" for name in _LISTS},
    **{name: "number" for name in _NUMBERS},
}
_ANNOTATED: dict[str, Kind] = {
    **{name: "number" for name in ("int", "float", "bool")},
    **{name: "list" for name in ("list", "tuple", "List", "Tuple", "Sequence")},
    "str": "text",
}
_FIRST_WORD = re.compile(r"\w+")


class Kinds:
    """Tells the kinds of expressions of one program; made once for each check."""

    def __init__(self, program: "Program") -> None:
        self._program = program
        self._busy: set[Node] = set()
        self._known: dict[Node, Kind | None] = {}

    @cached_property
    def _fields(self) -> dict[str, set[Kind | None]]:
        """The kinds of all fields of signatures and records, by name."""
        program, found = self._program, dict[str, set[Kind | None]]()
        for one in (*program.of_kind("record"), *program.of_kind("signature")):
            for target, annotation, _ in declared(one):
                found.setdefault(target.value, set()).add(_annotated(source(annotation)))
        for node, _ in program.predictors:
            signature = program.signature(node)
            for each in (*signature.inputs, *signature.outputs):
                found.setdefault(each.name, set()).add(_annotated(each.annotation or "str"))
        return found

    def of(self, node: Node | None) -> Kind | None:
        """Return the kind of an expression, `None` when it is another one or not in sight."""
        if node is None or node in self._busy or len(self._busy) > _DEEP:
            return None
        if node not in self._known:
            self._busy.add(node)
            self._known[node] = self._told(node)
            self._busy.discard(node)
        return self._known[node]

    def _told(self, node: Node) -> Kind | None:
        match node:
            case cst.Integer() | cst.Float() | cst.Comparison() | cst.UnaryOperation():
                return "number"
            case cst.SimpleString() | cst.ConcatenatedString() | cst.FormattedString():
                return "text"
            case cst.List() | cst.Tuple() | cst.ListComp():
                return "list"
            case cst.BinaryOperation():
                return self._binary(node)
            case cst.Call():
                return self._call(node)
            case cst.IfExp(body=left, orelse=right) | cst.BooleanOperation(left=left, right=right):
                return self.of(left) or self.of(right)
            case cst.NamedExpr(value=value) | cst.Await(expression=value):
                return self.of(value)
            case cst.Subscript(value=base, slice=[cst.SubscriptElement(slice=cst.Slice())]):
                return self.of(base)
            case cst.Subscript(value=base):
                return self._item(base)
            case cst.Name(value=name):
                found = self._program.scope(node).find(name)
                given = sources(self._program, found[1]) if found else ()
                return _widest(map(self._source, given))
            case cst.Attribute(attr=cst.Name(value=name)):
                return self._attribute(node, name)
            case cst.Param(annotation=cst.Annotation(annotation=annotation)):
                return _annotated(source(annotation))
            case _:
                return None

    def _binary(self, node: cst.BinaryOperation) -> Kind | None:
        left, right = self.of(node.left), self.of(node.right)
        sides = {left, right}
        match node.operator:
            case cst.Add():
                return left or right
            case cst.Multiply():
                other = right if left == "number" else left
                return other if other != "number" or left == right else None
            case cst.Subtract():
                return "number" if "number" in sides else None
            case cst.Modulo():
                return None if "text" in sides else "number"
            case _:
                return "number"

    def _call(self, node: cst.Call) -> Kind | None:
        name = dotted(node.func).rpartition(".")[2]
        name = node.func.attr.value if isinstance(node.func, cst.Attribute) else name
        match self._program.value(node.func):
            case Function(cst.FunctionDef() as function):
                returned = self._program.returns.get(self._program.tree.own[function], ())
                return _widest(self.of(one.value) for one in returned)
            case _ if name in ("max", "min") and len(node.args) > 1:
                return _widest(self.of(arg.value) for arg in node.args)
            case _:
                return _ANSWERS.get(name)

    def _attribute(self, node: cst.Attribute, name: str) -> Kind | None:
        """Return the kind of all fields of that name, or of what is set on `self`."""
        kinds = self._fields.get(name, set())
        if kinds:
            return next(iter(kinds)) if len(kinds) == 1 else None
        values = (value for _, value in self._program.stores.get(name, ()))
        return _widest(map(self.of, values))

    def _source(self, one: Source) -> Kind | None:
        match one:
            case Source(cst.Param() as param):
                return self._told(param)
            case Source(node, "item", at) if at < 0:
                return self._item(node)
            case Source(cst.Call(func=cst.Name(value="enumerate")), "item", 0):
                return "number"
            case Source(node, "whole" | "grown"):
                return self.of(node)
            case _:
                return None

    def _item(self, base: Node) -> Kind | None:
        match base:
            case cst.Call(func=cst.Name(value="range")):
                return "number"
            case cst.List(elements=[first, *_]) | cst.Tuple(elements=[first, *_]):
                return self.of(first.value)
            case cst.ListComp(elt=inner):
                return self.of(inner)
            case cst.BinaryOperation(left=left, operator=cst.Multiply()):
                return self._item(left)
            case cst.Name(value=name):
                found = self._program.scope(base).find(name)
                whole = [one.node for one in sources(self._program, found[1])] if found else []
                return self._item(whole[0]) if len(whole) == 1 and whole[0] is not base else None
            case _:
                return "text" if self.of(base) == "text" else None


def _widest(kinds: Iterable[Kind | None]) -> Kind | None:
    """Return the kind that is seen; of several, the one that can be repeated."""
    seen = set(kinds)
    return "text" if "text" in seen else "list" if "list" in seen else "number" if "number" in seen else None


def _annotated(annotation: str) -> Kind | None:
    """Return the kind of a type as it is written, of its first part: `list` of `list[str] | None`."""
    first = _FIRST_WORD.search(annotation.removeprefix("Optional["))
    return _ANNOTATED.get(first[0]) if first else None
