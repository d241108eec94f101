"""Growth: values that are added to themselves, which doubles them on every turn.

Each statement that changes a name is a line of a linear system: how often the old value of each name is in
the new value of this one. A loop is harmless if no name takes more than one share of a circle it is in.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import libcst as cst

from mkspy.check.graph import Code
from mkspy.check.known import words
from mkspy.check.report import Found
from mkspy.check.tree import Node, Scope, dotted, literal, number, parameters
from mkspy.check.values import Function, Instance, Predictor

if TYPE_CHECKING:
    from mkspy.check.program import Program

type Variable = tuple[Scope, str]
type Shares = Counter[Variable]

_MAX_COPIES = 1_000
_MAX_SHARE = 10**12
_DEEP = 30
GROWS = words("append appendleft extend insert add update setdefault")
_PUTS_IN = words("add append appendleft insert setdefault")
_JOINS = words("extend update")
_NOTHING = words("len isinstance bool int float count index find rfind startswith endswith any all range")
_ONE_OF = words("max min")


class Change(NamedTuple):
    """A statement that gives a name another value, and how often each name is in that value."""

    node: Node
    variable: Variable
    shares: Shares
    value: Node | None = None


def growing(program: "Program") -> Iterator[Found]:
    """Yield the statements by which something grows by more than what is added to it."""
    shares = _Shares(program)
    by_code: dict[Code | None, list[Change]] = {}
    for change in shares.changes():
        by_code.setdefault(program.graph.around(change.node), []).append(change)
    for changes in by_code.values():
        yield from _in_loops(program, changes)
        yield from _in_line(program, changes)
    yield from _folded(program, shares)


def _in_loops(program: "Program", changes: Sequence[Change]) -> Iterator[Found]:
    loops: dict[Node, list[Change]] = {}
    for change in changes:
        around = [one for one in program.tree.around(change.node) if isinstance(one, _LOOPS)]
        if around:
            loops.setdefault(around[-1], []).append(change)
    for inside in loops.values():
        for change in inside:
            if _own_share(program, change, inside) > 1:
                name = change.variable[1]
                message = f"`{name}` may double on every turn: it is added to itself"
                yield Found(change.node, message, "add something else to it, or build another value")


_DOUBLINGS = 10
_DOUBLING = (cst.BinaryOperation, cst.AugAssign, cst.FormattedString, cst.List, cst.Dict, cst.ListComp)
_CHANGING = {cst.Assign, cst.NamedExpr, cst.AnnAssign, cst.AugAssign, cst.Call}
_LOOPS = (cst.For, cst.While, cst.ListComp, cst.SetComp, cst.DictComp, cst.GeneratorExp)


def _own_share(program: "Program", change: Change, changes: Sequence[Change]) -> int:
    """Return how much of a new value comes from itself, directly or by way of other names."""
    shares = [
        many
        for variable, many in change.shares.items()
        if variable == change.variable or _leads(change.variable, variable, changes)
    ]
    total = sum(shares)
    return max(shares) if total > 1 and _is_sum(program, change.value) else total


def _is_sum(program: "Program", value: Node | None) -> bool:
    """Whether numbers are only added, which makes the largest of them hardly larger."""
    inside = program.tree.within(value) if value is not None else ()
    operators = [one.operator for one in inside if isinstance(one, cst.BinaryOperation)]
    multiplies = any(isinstance(one, cst.Multiply | cst.Power) for one in operators)
    return not multiplies and program.kinds.of(value) == "number"


def _leads(start: Variable, end: Variable, changes: Sequence[Change]) -> bool:
    """Whether the value of one name finds its way into another."""
    seen, stack = {start}, [start]
    while stack:
        one = stack.pop()
        for change in changes:
            if one in change.shares and change.variable not in seen:
                if change.variable == end:
                    return True
                seen.add(change.variable)
                stack.append(change.variable)
    return False


def _in_line(program: "Program", changes: Sequence[Change]) -> Iterator[Found]:
    """Yield where statements one after the other make too many copies of one thing."""
    copies: Counter[Variable] = Counter()
    for change in changes:
        made = max(1, sum(max(copies[one], 1) * many for one, many in change.shares.items()))
        copies[change.variable] = min(max(copies[change.variable], made), _MAX_SHARE)
        if made > _MAX_COPIES:
            message = f"`{change.variable[1]}` holds more than {_MAX_COPIES:,} copies of one thing"
            yield Found(change.node, message, "build it of less")
            return


def _folded(program: "Program", shares: "_Shares") -> Iterator[Found]:
    """Yield functions given to `reduce` that put what they have so far into the result twice."""
    for node in program.tree.of(cst.Call):
        made = program.value(node.args[0].value) if node.args else None
        if program.path(node.func) != "functools.reduce" or not isinstance(made, Function):
            continue
        params = parameters(made.node.params)
        first = (program.tree.own[made.node], params[0].name.value) if params else None
        if first and any(one[first] > 1 for one in shares.returned(made.node)):
            message = f"`{first[1]}` may double on every turn: it is added to itself"
            yield Found(node, message, "add something else to it")


class _Shares:
    """Counts how often the values of names are in the value of an expression."""

    def __init__(self, program: "Program") -> None:
        self._program = program
        self._depth = 0
        self._made: dict[Code, Shares] = {}

    def changes(self) -> Iterator[Change]:
        """Yield what every statement makes of the names it changes, in the order of the source."""
        tree = self._program.tree
        for node in [one for one in tree.scopes if type(one) in _CHANGING and self._counts(one)]:
            match node:
                case cst.Assign(targets=targets, value=value):
                    for target in targets:
                        yield from self._assigned(node, target.target, value)
                case cst.NamedExpr(target=target, value=value):
                    yield from self._assigned(node, target, value)
                case cst.AnnAssign(target=target, value=cst.BaseExpression() as value):
                    yield from self._assigned(node, target, value)
                case cst.AugAssign(target=target, operator=operator, value=value):
                    yield from self._augmented(node, target, operator, value)
                case cst.Call(func=cst.Attribute(value=base, attr=cst.Name(value=name)), args=args) if (
                    name in _JOINS or name in _PUTS_IN
                ):
                    yield from self._called(node, base, name, [arg.value for arg in args])
                case _:
                    pass

    def _counts(self, node: Node) -> bool:
        """Whether a statement can matter: one in a loop, or any, where there are ten that may double."""
        around = self._program.tree.around(node)
        return self._may_double or any(isinstance(one, _LOOPS) for one in around)

    @cached_property
    def _may_double(self) -> bool:
        joins = any(map(_puts_data_in, self._program.tree.of(cst.Call)))
        times = (one.operator for one in self._program.tree.of(cst.BinaryOperation))
        repeats = sum(isinstance(one, cst.Multiply) for one in times) > 1
        return (
            joins
            or repeats
            or sum(len(self._program.tree.nodes.get(kind, ())) for kind in _DOUBLING) >= _DOUBLINGS
        )

    def returned(self, code: Code) -> Iterator[Shares]:
        """Yield the shares of what a function returns."""
        if isinstance(code, cst.Lambda):
            yield self.of(code.body)
            return
        for one in self._program.returns.get(self._program.tree.own[code], ()):
            if one.value is not None:
                yield self.of(one.value)

    def _assigned(self, node: Node, target: Node, value: Node) -> Iterator[Change]:
        if isinstance(target, cst.Tuple) and isinstance(value, cst.Tuple):
            for one, given in zip(target.elements, value.elements, strict=False):
                yield from self._assigned(node, one.value, given.value)
            return
        names = (
            [one.value for one in target.elements] if isinstance(target, cst.Tuple | cst.List) else [target]
        )
        for one in names:
            variable = self._variable(_root(one))
            if variable:
                yield Change(node, variable, self.of(value), value)

    def _augmented(self, node: Node, target: Node, operator: Node, value: Node) -> Iterator[Change]:
        variable, added = self._variable(_root(target)), self.of(value)
        numeric = self._program.kinds.of(target) == "number"
        if variable and isinstance(operator, cst.MultiplyAssign | cst.PowerAssign):
            times = 1 if numeric else number(value) or 1
            yield Change(node, variable, Counter({variable: times}) + added)
        elif variable and not numeric:
            yield Change(node, variable, Counter({variable: 1}) + added)

    def _called(self, node: Node, base: Node, name: str, args: Sequence[Node]) -> Iterator[Change]:
        variable = self._variable(_root(base))
        if variable is None:
            return
        added = _sum(self.of(one) for one in args)
        if name in _JOINS or any(
            isinstance(one, cst.Name) and self._variable(one) == variable
            for arg in args
            for one in self._whole(arg)
        ):
            yield Change(node, variable, Counter({variable: 1}) + added)
        else:
            yield Change(node, variable, added)

    def _whole(self, node: Node) -> Iterator[Node]:
        """Yield what an expression takes all of: not what it takes one item of."""
        for one in self._program.tree.within(node):
            parent = self._program.tree.parents[one]
            if not (isinstance(parent, cst.Subscript) and isinstance(parent.slice[0].slice, cst.Index)):
                yield one

    def _variable(self, node: Node) -> Variable | None:
        found = self._program.scope(node).find(node.value) if isinstance(node, cst.Name) else None
        return (found[0], node.value) if found and isinstance(node, cst.Name) else None

    # --- expressions --------------------------------------------------------------------------------------

    def of(self, node: Node) -> Shares:
        """Return how often the value of each name may be in the value of an expression."""
        if self._depth > _DEEP:
            return Counter()
        self._depth += 1
        try:
            return self._counted(node)
        finally:
            self._depth -= 1

    def _counted(self, node: Node) -> Shares:
        match node:
            case cst.Name():
                variable = self._variable(node)
                return Counter({variable: 1} if variable else {})
            case cst.BinaryOperation():
                return self._binary(node)
            case cst.IfExp(body=left, orelse=right) | cst.BooleanOperation(left=left, right=right):
                return self.of(left) | self.of(right)
            case cst.Comparison() | cst.Lambda():
                return Counter()
            case cst.Call():
                return self._call(node)
            case cst.Subscript(value=base) | cst.Attribute(value=base) | cst.NamedExpr(value=base):
                return self.of(base)
            case cst.ListComp(elt=inner, for_in=loop) | cst.SetComp(elt=inner, for_in=loop):
                return self._comprehended(inner, loop)
            case cst.GeneratorExp(elt=inner, for_in=loop):
                return self._comprehended(inner, loop)
            case _:
                return _sum(self.of(one) for one in self._program.tree.below(node))

    def _binary(self, node: cst.BinaryOperation) -> Shares:
        left, right = self.of(node.left), self.of(node.right)
        match node.operator:
            case cst.Add() if self._program.kinds.of(node) == "number":
                return left | right
            case cst.Add():
                return left + right
            case cst.Multiply() if self._program.kinds.of(node) == "number":
                return left + right
            case cst.Multiply():
                times = number(node.left) or number(node.right) or 1
                return Counter({one: many * times for one, many in (left + right).items()})
            case _:
                return left | right

    def _comprehended(self, inner: Node, loop: cst.CompFor) -> Shares:
        """Return the shares of all items: a second loop makes several of each."""
        times = 1 if loop.inner_for_in is None else 2
        return Counter({one: many * times for one, many in (self.of(inner) + self.of(loop.iter)).items()})

    def _call(self, node: cst.Call) -> Shares:
        name = node.func.attr.value if isinstance(node.func, cst.Attribute) else dotted(node.func)
        given = [self.of(arg.value) for arg in node.args]
        match self._program.value(node.func):
            case Predictor() | Instance():
                return Counter()
            case Function(code):
                return self._returned(node, code)
            case _ if name in _NOTHING or name == "acall":
                return Counter()
            case _ if name in _ONE_OF:
                return _most(given)
            case None if _is_asked(node):
                return Counter()
            case _:
                own = [self.of(node.func.value)] if isinstance(node.func, cst.Attribute) else []
                times = _factor(node, name, both=bool(_sum(own) & _sum(given)))
                return Counter({one: many * times for one, many in _sum([*own, *given]).items()})

    def _returned(self, node: cst.Call, code: Code) -> Shares:
        """Return what a function makes of its arguments."""
        if code not in self._made:
            self._made[code] = Counter()
            self._made[code] = _most(list(self.returned(code)))
        made = self._made[code]
        scope = self._program.tree.own[code]
        total: Shares = Counter()
        names = [one.name.value for one in parameters(code.params)]
        for at, name in enumerate(names[self._program.is_method(code) :]):
            given = self._program.argument(node, name, at)
            times = made[(scope, name)]
            if given is not None and times:
                total += Counter({one: many * times for one, many in self.of(given).items()})
        return total


def _puts_data_in(node: cst.Call) -> bool:
    """Whether `replace` or `join` puts what is not written down into what is not either."""
    func = node.func
    if not isinstance(func, cst.Attribute) or func.attr.value not in ("replace", "join") or not node.args:
        return False
    return literal(func.value) is None and literal(node.args[-1].value) is None


def _is_asked(node: cst.Call) -> bool:
    """Whether a call of what is not known gives inputs by their names, as one of a predictor does."""
    return bool(node.args) and all(arg.keyword for arg in node.args)


def _factor(node: cst.Call, name: str, *, both: bool) -> int:
    """Return by how much a call makes text longer: `replace` puts one thing into many places of another."""
    if name in ("replace", "join") and both:
        return _MAX_COPIES + 1
    texts = [literal(arg.value) or "" for arg in node.args[:2]]
    longer = len(texts) == 2 and len(texts[1]) > (len(texts[0]) if name == "replace" else 1)
    return 2 if name in ("repr", "escape") or (name in ("replace", "sub") and longer) else 1


def _root(node: Node) -> Node:
    while isinstance(node, cst.Subscript | cst.StarredElement):
        node = node.value
    return node


def _sum(given: "Iterator[Shares] | Sequence[Shares]") -> Shares:
    total: Shares = Counter()
    for one in given:
        total += one
    return total


def _most(given: Sequence[Shares]) -> Shares:
    total: Shares = Counter()
    for one in given:
        total |= one
    return total
