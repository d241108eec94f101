"""Fresh: lists that were made in the same turn and that no other name holds yet."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import libcst as cst

from mkspy.check.growth import GROWS
from mkspy.check.tree import Node, Scope, dotted
from mkspy.check.values import Bound, Predictor

if TYPE_CHECKING:
    from mkspy.check.program import Program

_NEW = (cst.List, cst.Dict, cst.Set, cst.ListComp, cst.SetComp, cst.DictComp)


def is_fresh(program: "Program", loop: Node, base: Node) -> bool:
    """Whether a name is given a new list before a loop, and nothing until its end hands that on.

    What the loop walks, which was there before it, is then another list.
    """
    found = program.scope(base).find(base.value) if isinstance(base, cst.Name) else None
    if found is None or not isinstance(base, cst.Name) or not isinstance(loop, cst.For):
        return False
    if not isinstance(loop.target, cst.Name):  # nothing else tells whether `a, b` come to be `a + b, a + b`
        return False
    uses = [one for one in _uses(program, found[0], base.value) if not _keeps(program, one)]
    if not all(isinstance(one.node, cst.Name) for one in found[1]):  # such as what a pattern binds
        return False
    if any(_is_late(program, one, found[0]) for one in uses):
        return False
    since = _since_made(program, loop, base.value)
    inside = {one for statement in since for one in program.tree.within(statement)}
    return bool(since) and found[0].node is program.graph.around(loop) and inside.isdisjoint(uses)


def _uses(program: "Program", scope: Scope, name: str) -> Iterator[cst.Name]:
    for one in program.tree.of(cst.Name):
        found = program.scope(one).find(name) if one.value == name else None
        if found and found[0] is scope:
            yield one


def _since_made(program: "Program", loop: cst.For, name: str) -> Sequence[Node]:
    """Return what follows the nearest `name = []` beside a loop, or what the loop is in, up to its end."""
    inner: Node = loop
    for one in program.tree.around(loop):
        body = one.body if isinstance(one, cst.IndentedBlock) else ()
        at = next((at for at, each in enumerate(body) if each is inner), 0)
        made = [before for before in range(at) if _makes(body[before], name)]
        if made:
            return body[made[-1] + 1 : at + 1]
        if isinstance(one, cst.FunctionDef | cst.Lambda):
            return ()
        inner = one
    return ()


def _makes(line: Node, name: str) -> bool:
    match line:
        case cst.SimpleStatementLine(
            body=[cst.Assign(targets=[cst.AssignTarget(target=target)], value=value)]
        ):
            return dotted(target) == name and isinstance(value, _NEW)
        case cst.SimpleStatementLine(body=[cst.AnnAssign(target=target, value=value)]):
            return dotted(target) == name and isinstance(value, _NEW)
        case _:
            return False


def _keeps(program: "Program", use: cst.Name) -> bool:
    """Whether a use of a list leaves it to its name: it is added to, asked for an item, or compared."""
    match program.tree.parents[use]:
        case cst.Attribute() | cst.Comparison() | cst.ComparisonTarget():
            return True
        case cst.Subscript(value=base) | cst.AugAssign(target=base):
            return base is use
        case cst.Arg() as arg:
            return dotted(getattr(program.tree.parents[arg], "func", None)) == "len"
        case _:
            return False


def _is_late(program: "Program", use: cst.Name, scope: Scope) -> bool:
    """Whether a use runs at another time than where it stands."""
    lazy = any(isinstance(one, cst.GeneratorExp) for one in program.tree.around(use))
    return lazy or program.graph.around(use) is not scope.node


# --- how much is put into it --------------------------------------------------------------------------------


def items_of_each(program: "Program", loop: cst.For, name: str) -> int:
    """Return how many items one turn of a loop puts into a list: 2 for several; what a model answers is free.

    It is paid for by a call, while a list that gets two items for each of its own doubles at no cost.
    """
    return _put_by(program, loop, loop.body, name)


def _put_by(program: "Program", loop: cst.For, node: Node, name: str) -> int:
    inner = sum(_put_by(program, loop, one, name) for one in program.tree.below(node))
    match node:
        case cst.If(body=body, orelse=other):
            return max(_put_by(program, loop, one, name) for one in (body, other) if one is not None)
        case cst.For(iter=walked):
            return 0 if _is_answer(program, loop, walked) else 2 * inner
        case cst.While() | cst.CompFor() | cst.ListComp() | cst.SetComp() | cst.DictComp():
            return 2 * inner
        case cst.AugAssign(target=target, value=value) if dotted(target) == name:
            return _length(program, loop, value)
        case cst.Call(func=cst.Attribute(value=base, attr=cst.Name(value=method)), args=args) if (
            dotted(base) == name and method in GROWS
        ):
            joins = method in ("extend", "update") and args
            return inner + (_length(program, loop, args[0].value) if joins else 1)
        case _:
            return inner


def _length(program: "Program", loop: cst.For, value: Node) -> int:
    if isinstance(value, cst.List) and not any(isinstance(one, cst.StarredElement) for one in value.elements):
        return len(value.elements)
    return 0 if _is_answer(program, loop, value) else 2


def _is_answer(program: "Program", loop: cst.For, value: Node) -> bool:
    """Whether a value is of what a predictor answers in the same turn."""
    while isinstance(value, cst.Attribute | cst.Subscript | cst.Await):
        value = value.expression if isinstance(value, cst.Await) else value.value
    if isinstance(value, cst.Name):
        found = program.scope(value).find(value.value)
        body = set(program.tree.within(loop.body)) if found else set[Node]()
        bound = [one.value for one in found[1] if one.kind == "assign" and one.node in body] if found else []
        given = [one for one in bound if one is not None and not isinstance(one, cst.Name)]
        whole = found is not None and len(given) == len(found[1])
        return whole and all(_is_answer(program, loop, one) for one in given)
    on = program.value(value.func) if isinstance(value, cst.Call) else None
    return isinstance(on.value if isinstance(on, Bound) else on, Predictor)
