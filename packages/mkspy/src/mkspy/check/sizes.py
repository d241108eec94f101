"""Sizes: how large a count can be, as far as the source shows it.

A size is a number that is written down, or such a multiple of the length of what a program is given. Whatever
a caller or a model chooses has no size: `range(n)` may take for ever, `range(min(n, 10))` may not.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import libcst as cst

from mkspy.check.known import words
from mkspy.check.origins import Source, sources
from mkspy.check.tree import Node, dotted, number
from mkspy.check.values import ClassObject, Function, Instance

if TYPE_CHECKING:
    from mkspy.check.program import Program

MAX_TURNS = 10_000
MAX_TIMES = 100
_DEEP = 40
_LENGTHS = words("len count index find rfind")
_KEEPS = words("int float abs round ceil floor trunc sqrt")


class Size(NamedTuple):
    """At most `factor`, times the length of something as often as `degree` says."""

    factor: int
    degree: int = 0

    def __add__(self, other: "Size") -> "Size":  # pyright: ignore[reportIncompatibleMethodOverride]
        return Size(self.factor + other.factor, max(self.degree, other.degree))

    def __mul__(self, other: "Size") -> "Size":  # pyright: ignore[reportIncompatibleMethodOverride]
        return Size(self.factor * other.factor, self.degree + other.degree)

    @property
    def is_small(self) -> bool:
        """Whether so many turns end soon: thousands, or a pass over what is there."""
        return self.degree <= 1 and self.factor <= (MAX_TIMES if self.degree else MAX_TURNS)


_LENGTH = Size(1, 1)


class Sizes:
    """Measures expressions of one program; made once for each check."""

    def __init__(self, program: "Program") -> None:
        self.program = program
        self._busy: set[Node] = set()
        self._known: dict[Node, Size | None] = {}

    def of(self, node: Node | None) -> Size | None:
        """Return how large a number can be, `None` when nothing in sight limits it."""
        if node is None or node in self._busy or len(self._busy) > _DEEP:
            return None
        if node not in self._known:
            self._busy.add(node)
            self._known[node] = self._measured(node)
            self._busy.discard(node)
        return self._known[node]

    def turns(self, node: Node) -> Size:
        """Return how many items a loop over an expression takes: its length, where nothing says less."""
        match node:
            case cst.Call(func=cst.Name(value="range")):
                return self._range(node) or _LENGTH
            case cst.Call(func=cst.Name(value="islice"), args=[_, last]):
                return self.of(last.value) or _LENGTH
            case cst.Call(
                func=cst.Name(value="enumerate" | "reversed" | "sorted" | "list"), args=[first, *_]
            ):
                return self.turns(first.value)
            case cst.Subscript(slice=[cst.SubscriptElement(slice=cst.Slice(lower=None, upper=upper))]):
                written = number(upper)
                return Size(written) if written is not None and written >= 0 else _LENGTH
            case cst.List(elements=elements) | cst.Tuple(elements=elements) | cst.Set(elements=elements):
                starred = any(isinstance(one, cst.StarredElement) for one in elements)
                return _LENGTH if starred else Size(len(elements))
            case cst.BinaryOperation(operator=cst.Multiply(), left=left, right=right):
                return self.of(left) or self.of(right) or _LENGTH
            case cst.Name():
                return self._named_turns(node)
            case _:
                return _LENGTH

    def _named_turns(self, node: cst.Name) -> Size:
        """Return the length of a list of the file, which no run changes, or of one repeated by name."""
        found = self.program.scope(node).find(node.value)
        value = found[1][0].value if found and len(found[1]) == 1 else None
        fixed = found is not None and found[0].kind == "module" and isinstance(value, cst.List | cst.Tuple)
        return self.turns(value) if value and (fixed or isinstance(value, cst.BinaryOperation)) else _LENGTH

    def range(self, node: cst.Call) -> Size | None:
        """Return how far a `range` goes, `None` when nothing limits it."""
        ends = [self.of(arg.value) for arg in node.args[:2] if not arg.star and not arg.keyword]
        return _sum(ends) if ends else None

    def _range(self, node: cst.Call) -> Size | None:
        written = [number(arg.value) for arg in node.args]
        if len(written) == 2 and written[0] is not None and written[1] is not None:
            return Size(max(written[1] - written[0], 0))
        return self.range(node)

    def _measured(self, node: Node) -> Size | None:
        match node:
            case cst.Integer() | cst.Float() | cst.UnaryOperation():
                return self._number(node)
            case cst.BinaryOperation():
                return self._binary(node)
            case cst.Call():
                return self._call(node)
            case cst.IfExp(body=left, orelse=right) | cst.BooleanOperation(left=left, right=right):
                return _largest([self.of(left), self.of(right)])
            case cst.NamedExpr(value=value):
                return self.of(value)
            case cst.Name(value="True" | "False"):
                return Size(1)
            case cst.Name(value=name):
                found = self.program.scope(node).find(name)
                return self._all(sources(self.program, found[1])) if found else None
            case cst.Attribute():
                return self._attribute(node)
            case _:
                return None

    # --- by type of expression ----------------------------------------------------------------------------

    def _number(self, node: Node) -> Size | None:
        if isinstance(node, cst.Float):
            return Size(int(min(abs(node.evaluated_value), 10**18)) + 1)
        written = number(node)
        if written is None and isinstance(node, cst.UnaryOperation):
            return self.of(node.expression)
        return None if written is None else Size(abs(written))

    def _binary(self, node: cst.BinaryOperation) -> Size | None:
        left, right = self.of(node.left), self.of(node.right)
        match node.operator:
            case cst.Modulo():
                return right
            case cst.FloorDivide() | cst.Divide():
                whole = right and not isinstance(node.right, cst.Float)
                return left if whole else None
            case cst.Add() | cst.Subtract() if left and right:
                return left + right
            case cst.Multiply() if left and right:
                return left * right
            case cst.Power():
                written = number(node)
                return None if written is None else Size(abs(written))
            case _:
                return None

    def _call(self, node: cst.Call) -> Size | None:
        name = dotted(node.func).rpartition(".")[2] or _method(node.func)
        given = [self.of(arg.value) for arg in node.args if not arg.star and not arg.keyword]
        match self.program.value(node.func):
            case Function(cst.FunctionDef() as function):
                returned = self.program.returns.get(self.program.tree.own[function], [])
                return _largest([self.of(one.value) for one in returned])
            case _ if name in _LENGTHS:
                return _LENGTH
            case _ if name == "min" and len(given) > 1:
                return min(
                    (one for one in given if one), key=lambda one: (one.degree, one.factor), default=None
                )
            case _ if name == "max" and len(given) > 1:
                return _largest(given)
            case _ if name in _KEEPS and given:
                return given[0]
            case _ if name == "sum" and node.args:
                return self._total(node.args[0].value)
            case _:
                return None

    def _total(self, node: Node) -> Size | None:
        inner = node.elt if isinstance(node, cst.GeneratorExp | cst.ListComp) else None
        each = self.of(inner)
        return Size(each.factor, max(each.degree, 1)) if each else None

    def _attribute(self, node: cst.Attribute) -> Size | None:
        on, name = self.program.value(node.value), node.attr.value
        if not isinstance(on, Instance | ClassObject):
            return None
        scopes = [self.program.tree.own[each.node] for each in on.value.lineage()]
        bound = [source for scope in scopes for source in sources(self.program, scope.bindings.get(name, []))]
        stores = self.program.assigned(on.value).get(name, []) if isinstance(on, Instance) else []
        values = [self.of(value) for _, value in stores]
        return _largest([*values, *([self._all(bound)] if bound else [])])

    def _all(self, given: Iterable[Source]) -> Size | None:
        return _largest([self._source(one) for one in given])

    def _source(self, one: Source) -> Size | None:
        match one:
            case Source(node, "whole"):
                return self.of(node)
            case Source(node, "item", at):
                return self._item(node, at)
            case Source(node, "grown"):
                return self._grown(node)
            case _:
                return None

    def _item(self, node: Node, at: int) -> Size | None:
        match node:
            case cst.Call(func=cst.Name(value="range")) if at < 0:
                return self.range(node)
            case cst.Call(func=cst.Name(value="enumerate")) if at == 0:
                return _LENGTH
            case cst.List(elements=elements) | cst.Tuple(elements=elements) if at < 0:
                return _largest([self.of(one.value) for one in elements])
            case _:
                return None

    def _grown(self, node: Node) -> Size | None:
        parent = self.program.tree.parents[node]
        counted = isinstance(parent, cst.AugAssign) and isinstance(parent.operator, _COUNTS)
        step = self.of(node) if counted else None
        return step and Size(step.factor, max(step.degree, 1))


_COUNTS = (cst.AddAssign, cst.SubtractAssign)


def _method(func: Node) -> str:
    return func.attr.value if isinstance(func, cst.Attribute) else ""


def _largest(given: Iterable[Size | None]) -> Size | None:
    """Return a size that all are within, `None` when there is none, or nothing is given."""
    sizes = list(given)
    known = [one for one in sizes if one]
    if not known or len(known) < len(sizes):
        return None
    return Size(max(one.factor for one in known), max(one.degree for one in known))


def _sum(given: Iterable[Size | None]) -> Size | None:
    total = Size(0)
    for one in given:
        if one is None:
            return None
        total += one
    return total
