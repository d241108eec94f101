"""Turns: how often the places in a program are come by, through the loops and the calls around them."""

from collections.abc import Iterator

import libcst as cst

from mkspy.check.graph import Code
from mkspy.check.program import Program
from mkspy.check.sizes import Size
from mkspy.check.tree import Entangled, Node

type Loop = cst.For | cst.CompFor
type Turning = cst.For | cst.CompFor | cst.While

MAX_CHAIN = 25
"""Functions that call each other one by one are followed so far."""

_ONE = Size(1)
_FOLLOWED = 40


def conditions(test: Node) -> Iterator[Node]:
    """Yield what has to hold for another turn."""
    if isinstance(test, cst.BooleanOperation) and isinstance(test.operator, cst.And):
        yield from conditions(test.left)
        yield from conditions(test.right)
    else:
        yield test


class Loads:
    """How many turns each function makes in one call, those of the functions it calls included."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._known: dict[Code, Size] = {}
        self._busy: list[Code] = []
        self._loops: dict[Code | None, list[Loop]] = {}
        for node in program.tree.of(cst.For, cst.CompFor):
            self._loops.setdefault(program.graph.around(node), []).append(node)

    def places(self) -> Iterator[tuple[Node, Size]]:
        """Yield every loop, and every call of a function of the file, with the turns of each alone."""
        for loops in self._loops.values():
            yield from ((node, _own(self._program, node)) for node in loops)
        for calls in self._program.graph.calls.values():
            yield from ((call, self.of(called)) for call, called in calls)

    def is_straight(self, code: Code) -> bool:
        """Whether a function has no loop of its own, in which the turns would be found."""
        return code not in self._loops

    def of(self, code: Code) -> Size:
        """Return the turns of one call of a function."""
        if len(self._busy) > MAX_CHAIN:
            raise Entangled
        if code not in self._known:
            self._busy.append(code)
            self._known[code] = _ONE  # for a function that calls itself, which is found elsewhere
            program, loops = self._program, self._loops.get(code, ())
            totals = [around(program, one) * _own(program, one) for one in loops]
            for call, called in program.graph.calls.get(code, ()):
                totals.append(together(program, call, around(program, call), self.of(called)))
            degree = max((one.degree for one in totals), default=0)
            self._known[code] = Size(1 + sum(one.factor for one in totals), degree)
            self._busy.pop()
        return self._known[code]


def together(program: Program, place: Node, outside: Size, inner: Size) -> Size:
    """Return the turns of a loop or a call in the loops around it."""
    total = outside * inner
    if isinstance(place, cst.Call) and any(_is_of_loop(program, place, arg.value) for arg in place.args):
        return Size(total.factor, max(outside.degree, inner.degree))
    return total


def _own(program: Program, node: Turning) -> Size:
    if isinstance(node, cst.While):
        return _turns_of(program, node)
    turns = program.sizes.turns(node.iter)
    return Size(turns.factor) if turns.degree and _is_part(program, node) else turns


def around(program: Program, node: Node) -> Size:
    """Return how often a place in a function is come by."""
    total = _ONE
    for loop in _loops_around(program, node):
        total *= _own(program, loop)
    return total


def _turns_of(program: Program, node: cst.While) -> Size:
    """Return the turns of a `while`: the limit in its test, or the length of something."""
    sides: list[Node] = []
    for one in conditions(node.test):
        both = [one.left, one.comparisons[0].comparator] if isinstance(one, cst.Comparison) else []
        sides += [one] if isinstance(one, cst.Name) else both
    limits = [size for size in map(program.sizes.of, sides) if size and size.factor > 1]
    return max(limits, key=lambda one: (-one.degree, one.factor), default=Size(1, 1))


def _loops_around(program: Program, node: Node) -> Iterator[Turning]:
    inner = node
    for one in program.tree.around(node):
        match one:
            case cst.For(iter=first) | cst.CompFor(iter=first) if inner is not first:
                yield one
            case cst.While():
                yield one
            case cst.ListComp(for_in=loop) | cst.SetComp(for_in=loop) | cst.GeneratorExp(for_in=loop):
                yield from _chain(loop) if inner is not loop else ()
            case cst.DictComp(for_in=loop):
                yield from _chain(loop) if inner is not loop else ()
            case cst.FunctionDef() | cst.Lambda():
                return
            case _:
                pass
        inner = one


def _chain(loop: cst.CompFor | None) -> Iterator[cst.CompFor]:
    while loop:
        yield loop
        loop = loop.inner_for_in


def _is_part(program: Program, node: Loop) -> bool:
    """Whether a loop walks a part of an item of a loop around it: both together pass over the data once."""
    root: Node = node.iter
    while True:
        match root:
            case cst.Attribute(value=inner) | cst.Await(expression=inner):
                root = inner
            case cst.Subscript(value=inner, slice=[cst.SubscriptElement(slice=cst.Index(value=index))]):
                root = index if isinstance(index, cst.Name) else inner
            case cst.Subscript(value=inner):
                root = inner
            case cst.Call(func=cst.Name(value="range")):
                return False
            case cst.Call(func=cst.Attribute(value=inner), args=[]):
                root = inner
            case cst.Call():
                parts = [root.func, *(arg.value for arg in root.args)]
                return any(_is_of_loop(program, node, part) for part in parts)
            case _:
                return _is_of_loop(program, node, root)


def _is_of_loop(program: Program, node: Node, root: Node) -> bool:
    """Whether an expression names what a loop around a node binds, or what is made of that."""
    loops = (one for one in _loops_around(program, node) if not isinstance(one, cst.While))
    targets = {one for loop in loops for one in program.tree.within(loop.target)}
    stack, seen = [root], set[Node]()
    while stack and targets and len(seen) < _FOLLOWED:
        for each in program.tree.within(stack.pop()):
            found = program.scope(each).find(each.value) if isinstance(each, cst.Name) else None
            for binding in found[1] if found else ():
                if binding.node in targets:
                    return True
                if binding.kind == "assign" and binding.value is not None and binding.node not in seen:
                    seen.add(binding.node)
                    stack.append(binding.value)
    return False
