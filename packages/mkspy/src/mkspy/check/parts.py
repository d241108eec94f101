"""Parts: what another expression is one of, and lists of pairs, each place of which has its own things."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import libcst as cst

from mkspy.check.known import words
from mkspy.check.tree import Node, Scope, dotted

if TYPE_CHECKING:
    from mkspy.check.program import Program

_ADDS = words("append appendleft")
_JOINS = words("extend extendleft")
_TAKES = words("pop popleft")
_FILLED = words("deque list")
_TESTS = (cst.If, cst.IfExp, cst.While)


class Item(NamedTuple):
    """A tuple that is put into a list, and the loop of the comprehension that makes many of it."""

    elements: tuple[Node, ...]
    loop: cst.CompFor | None = None


def choices(node: Node) -> Iterator[Node]:
    """Yield the expressions of which another one is one, as `max(a, b)` is `a` or `b`."""
    match node:
        case cst.IfExp(body=left, orelse=right) | cst.BooleanOperation(left=left, right=right):
            yield from (*choices(left), *choices(right))
        case cst.Call(func=cst.Name(value="max" | "min"), args=args) if not any(arg.star for arg in args):
            plain = [arg.value for arg in args if not arg.keyword]
            only = plain[0] if len(plain) == 1 else None
            inside = only.elements if isinstance(only, cst.List | cst.Tuple | cst.Set) else None
            yield from plain if inside is None else (one.value for one in inside)
            yield from (arg.value for arg in args if arg.keyword and arg.keyword.value == "default")
        case _:
            yield node


class Parts:
    """Tells which names hold nothing but tuples of one length; made once for each check."""

    def __init__(self, program: "Program") -> None:
        self._program = program
        self._widths: dict[tuple[Scope, str], int] = {}

    def taken(self, node: Node) -> cst.Name | None:
        """Return the name of a list that an expression takes one item of."""
        match node:
            case cst.Call(func=cst.Attribute(value=cst.Name() as name, attr=cst.Name(value=method))) if (
                method in _TAKES
            ):
                return name
            case cst.Subscript(value=cst.Name() as name, slice=[cst.SubscriptElement(slice=cst.Index())]):
                return name
            case _:
                return None

    def width(self, name: cst.Name) -> int:
        """Return how long the tuples are that a list holds, 0 where it may hold, or be, anything else."""
        found = self._program.scope(name).find(name.value)
        if found is None:
            return 0
        key = found[0], name.value
        if key not in self._widths:
            plain = all(isinstance(one.node, cst.Name) for one in found[1])
            self._widths[key] = self._measured(*key) if plain and found[0].kind == "function" else 0
        return self._widths[key]

    def items(self, use: cst.Name) -> Sequence[Item] | None:
        """Return what one use of a name puts into the list, `None` where that is not in sight."""
        parent = self._program.tree.parents[use]
        match parent:
            case cst.Attribute():
                return self._through(parent)
            case cst.AssignTarget():
                assign = self._program.tree.parents[parent]
                return _shown(assign.value) if isinstance(assign, cst.Assign) else None
            case cst.AnnAssign(target=target, value=cst.BaseExpression() as value) if target is use:
                return _shown(value)
            case cst.AugAssign(target=target, operator=cst.AddAssign(), value=value) if target is use:
                return _shown(value)
            case cst.For(iter=walked) | cst.CompFor(iter=walked) if walked is use:
                return ()
            case cst.Arg() if dotted(getattr(self._program.tree.parents[parent], "func", None)) == "len":
                return ()
            case cst.Subscript(value=base) if base is use and parent not in self._program.tree.stored:
                return () if self.taken(parent) else None
            case _:
                return () if self._is_tested(use) else None

    def _through(self, attribute: cst.Attribute) -> Sequence[Item] | None:
        call, name = self._program.tree.parents[attribute], attribute.attr.value
        if not (isinstance(call, cst.Call) and call.func is attribute):
            return None
        given = [arg.value for arg in call.args]
        if name in _TAKES:
            return ()
        if len(given) != 1:
            return None
        return _pairs(given) if name in _ADDS else _shown(given[0]) if name in _JOINS else None

    def _is_tested(self, use: Node) -> bool:
        """Whether only the truth of a name is asked for."""
        around: Node = use
        while isinstance(around, cst.Name | cst.BooleanOperation | cst.UnaryOperation):
            inner, around = around, self._program.tree.parents[around]
            if isinstance(around, _TESTS) and around.test is inner:
                return True
        return False

    def _measured(self, scope: Scope, name: str) -> int:
        widths: set[int] = set()
        for use in self._uses.get(name, ()):
            found = self._program.scope(use).find(name)
            if found and found[0] is scope:
                items = self.items(use)
                widths |= {0} if items is None else {len(one.elements) for one in items}
        return widths.pop() if len(widths) == 1 else 0

    @cached_property
    def _uses(self) -> dict[str, list[cst.Name]]:
        table: dict[str, list[cst.Name]] = {}
        for node in self._program.tree.of(cst.Name):
            table.setdefault(node.value, []).append(node)
        return table


def _shown(value: Node) -> Sequence[Item] | None:
    """Return the tuples of a list that is written down, `None` for anything else."""
    match value:
        case cst.List(elements=elements):
            return _pairs([one if isinstance(one, cst.StarredElement) else one.value for one in elements])
        case cst.ListComp(elt=inner, for_in=loop) | cst.GeneratorExp(elt=inner, for_in=loop):
            return _pairs([inner], loop)
        case cst.Call(func=func, args=[]) if dotted(func).rpartition(".")[2] in _FILLED:
            return ()
        case cst.Call(func=func, args=[first]) if dotted(func).rpartition(".")[2] in _FILLED:
            return _shown(first.value)
        case _:
            return None


def _pairs(given: Sequence[Node], loop: cst.CompFor | None = None) -> Sequence[Item] | None:
    items: list[Item] = []
    for one in given:
        elements = one.elements if isinstance(one, cst.Tuple) else ()
        if not elements or any(isinstance(each, cst.StarredElement) for each in elements):
            return None
        items.append(Item(tuple(each.value for each in elements), loop))
    return items
