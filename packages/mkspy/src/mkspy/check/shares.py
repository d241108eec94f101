"""Shares: how often the values of names are in the values that statements give to names."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import libcst as cst

from mkspy.check.graph import Code
from mkspy.check.known import words
from mkspy.check.parts import Parts, choices
from mkspy.check.tree import Node, Scope, dotted, literal, number, parameters
from mkspy.check.values import Function, Instance, Predictor

if TYPE_CHECKING:
    from mkspy.check.program import Program

type Variable = tuple[Scope, str]
type Shares = Counter[Variable]

MAX_COPIES = 1_000
_DEEP = 30
_PUTS_IN = words("add append appendleft insert setdefault")
_JOINS = words("extend update")
_NOTHING = words("len isinstance bool int float count index find rfind startswith endswith any all range")
_ONE_OF = words("max min")
_DOUBLINGS = 10
_DOUBLING = (cst.BinaryOperation, cst.AugAssign, cst.FormattedString, cst.List, cst.Dict, cst.ListComp)
_CHANGING = {cst.Assign, cst.For, cst.NamedExpr, cst.AnnAssign, cst.AugAssign, cst.Call}
LOOPS = (cst.For, cst.While, cst.ListComp, cst.SetComp, cst.DictComp, cst.GeneratorExp)


class Change(NamedTuple):
    """A statement that gives a name another value, and how often each name is in that value."""

    node: Node
    variable: Variable
    shares: Shares
    value: Node | None = None


class Counts:
    """Counts how often the values of names are in the value of an expression."""

    def __init__(self, program: "Program") -> None:
        self._program = program
        self._parts = Parts(program)
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
                case cst.For(target=cst.Name() as target, iter=value):
                    yield from self._unpacked(node, target, value)
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
        return self._may_double or any(isinstance(one, LOOPS) for one in around)

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
        for one in choices(value):
            yield from self._unpacked(node, target, one)
        if isinstance(target, cst.Name):
            yield from self._put(node, target)

    def _unpacked(self, node: Node, target: Node, value: Node) -> Iterator[Change]:
        """Yield a change for each name of a target, of its own part of the value where that is in sight."""
        if isinstance(target, cst.Tuple) and isinstance(value, cst.Tuple):
            for one, given in zip(target.elements, value.elements, strict=False):
                yield from self._assigned(node, one.value, given.value)
            return
        names = (
            [one.value for one in target.elements] if isinstance(target, cst.Tuple | cst.List) else [target]
        )
        parts = self._taken(value) if isinstance(target, cst.Tuple) else ()
        whole = any(isinstance(one, cst.StarredElement) for one in names) or len(parts) != len(names)
        for at, one in enumerate(names):
            variable = self._variable(_root(one))
            if variable:
                yield Change(node, variable, self.of(value) if whole else Counter({parts[at]: 1}), value)

    def _taken(self, value: Node) -> Sequence[Variable]:
        """Return what stands for each place of a tuple that is taken out of a list of such."""
        name = self._parts.taken(value)
        variable = self._variable(name) if name else None
        width = self._parts.width(name) if name else 0
        return [_place(variable, at) for at in range(width)] if variable else ()

    def _put(self, node: Node, name: cst.Name) -> Iterator[Change]:
        """Yield a change for each place of the tuples that are put into a list of such."""
        variable = self._variable(name)
        if variable is None or not self._parts.width(name):
            return
        for item in self._parts.items(name) or ():
            for at, one in enumerate(item.elements):
                shares = self._comprehended(one, item.loop) if item.loop else self.of(one)
                yield Change(node, _place(variable, at), shares, one)

    def _augmented(self, node: Node, target: Node, operator: Node, value: Node) -> Iterator[Change]:
        variable = self._variable(_root(target))
        numeric = self._program.kinds.of(target) == "number"
        for added in map(self.of, choices(value)):
            if variable and isinstance(operator, cst.MultiplyAssign | cst.PowerAssign):
                times = 1 if numeric else number(value) or 1
                yield Change(node, variable, Counter({variable: times}) + added)
            elif variable and not numeric:
                yield Change(node, variable, Counter({variable: 1}) + added)
        if isinstance(target, cst.Name):
            yield from self._put(node, target)

    def _called(self, node: Node, base: Node, name: str, args: Sequence[Node]) -> Iterator[Change]:
        variable = self._variable(_root(base))
        if variable is None:
            return
        for last in choices(args[-1]) if args else ():
            given = [*args[:-1], last]
            again = name in _JOINS or self._is_whole_in(variable, given)
            yield Change(node, variable, Counter({variable: int(again)}) + _sum(map(self.of, given)))
        if isinstance(base, cst.Name):
            yield from self._put(node, base)

    def _is_whole_in(self, variable: Variable, args: Sequence[Node]) -> bool:
        whole = (one for arg in args for one in self._whole(arg))
        return any(isinstance(one, cst.Name) and self._variable(one) == variable for one in whole)

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
            case cst.Dict(elements=elements):
                spread = [
                    self._variable(one.value) for one in elements if isinstance(one, cst.StarredDictElement)
                ]
                return _sum(self._element(one, spread) for one in elements)
            case _:
                return _sum(self.of(one) for one in self._program.tree.below(node))

    def _element(self, one: cst.BaseDictElement, spread: Sequence[Variable | None]) -> Shares:
        """Return the shares of an entry: `{**old, "key": old["key"] + more}` has each item of `old` once."""
        shares, key = self.of(one.value), literal(one.key) if isinstance(one, cst.DictElement) else None
        for variable in spread if key is not None else ():
            if variable and shares[variable] == 1 and self._is_only_item(variable, key, one.value):
                shares -= Counter({variable: 1})
        return shares

    def _is_only_item(self, variable: Variable, key: str | None, value: Node) -> bool:
        """Whether all that an expression has of a dict is the item of one key."""
        names = [one for one in self._program.tree.within(value) if isinstance(one, cst.Name)]
        parents = [self._program.tree.parents[one] for one in names if self._variable(one) == variable]
        return all(_key(one) == key for one in parents)

    def _binary(self, node: cst.BinaryOperation) -> Shares:
        if _is_fraction(node):
            return Counter()
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
        """Return the shares of all items: a second loop makes several of each, if not of a model's answer."""
        times = 1 if loop.inner_for_in is None or self._is_answer(loop.inner_for_in) else 2
        return Counter({one: many * times for one, many in (self.of(inner) + self.of(loop.iter)).items()})

    def _is_answer(self, loop: cst.CompFor) -> bool:
        """Whether a last loop walks what a predictor answers to each item, which costs a call of a model."""
        walked: Node = loop.iter
        while isinstance(walked, cst.Attribute | cst.Subscript):
            walked = walked.value
        on = self._program.value(walked.func) if isinstance(walked, cst.Call) else None
        return loop.inner_for_in is None and isinstance(on, Predictor)

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
        return MAX_COPIES + 1
    texts = [literal(arg.value) or "" for arg in node.args[:2]]
    longer = len(texts) == 2 and len(texts[1]) > (len(texts[0]) if name == "replace" else 1)
    return 2 if name in ("repr", "escape") or (name in ("replace", "sub") and longer) else 1


def _is_fraction(node: Node) -> bool:
    """Whether a number has a point, which takes the same place however large it is."""
    match node:
        case cst.Float() | cst.BinaryOperation(operator=cst.Divide()):
            return True
        case cst.BinaryOperation(
            left=left, operator=cst.Add() | cst.Subtract() | cst.Multiply(), right=right
        ):
            return _is_fraction(left) or _is_fraction(right)
        case _:
            return False


def _key(node: Node) -> str | None:
    """Return the key of `old["key"]`."""
    match node:
        case cst.Subscript(slice=[cst.SubscriptElement(slice=cst.Index(value=index))]):
            return literal(index)
        case _:
            return None


def _place(variable: Variable, at: int) -> Variable:
    """Return what stands for one place of the tuples in a list; no name has a bracket."""
    return variable[0], f"{variable[1]}[{at}]"


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
