"""Growth: values that are added to themselves, which doubles them on every turn.

Each statement that changes a name is a line of a linear system: how often the old value of each name is in
the new value of this one. A loop is harmless if no name takes more than one share of a circle it is in.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import libcst as cst

from mkspy.check.graph import Code
from mkspy.check.known import words
from mkspy.check.report import Found
from mkspy.check.shares import LOOPS, MAX_COPIES, Change, Counts, Variable
from mkspy.check.tree import Node, parameters
from mkspy.check.values import Function

if TYPE_CHECKING:
    from mkspy.check.program import Program


_MAX_SHARE = 10**12
GROWS = words("append appendleft extend insert add update setdefault")


def growing(program: "Program") -> Iterator[Found]:
    """Yield the statements by which something grows by more than what is added to it."""
    shares = Counts(program)
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
        around = [one for one in program.tree.around(change.node) if isinstance(one, LOOPS)]
        if around:
            loops.setdefault(around[-1], []).append(change)
    for inside in loops.values():
        for change in inside:
            if _own_share(program, change, inside) > 1:
                name = change.variable[1].partition("[")[0]
                message = f"`{name}` may double on every turn: it is added to itself"
                yield Found(change.node, message, "add something else to it, or build another value")


def _own_share(program: "Program", change: Change, changes: Sequence[Change]) -> int:
    """Return how much of a new value comes from itself, directly or by way of other names."""
    shares = [
        many
        for variable, many in change.shares.items()
        if variable == change.variable or _leads(program, change.variable, variable, changes)
    ]
    total = sum(shares)
    return max(shares) if total > 1 and _is_sum(program, change.value) else total


def _is_sum(program: "Program", value: Node | None) -> bool:
    """Whether numbers are only added, which makes the largest of them hardly larger."""
    inside = program.tree.within(value) if value is not None else ()
    operators = [one.operator for one in inside if isinstance(one, cst.BinaryOperation)]
    multiplies = any(isinstance(one, cst.Multiply | cst.Power) for one in operators)
    return not multiplies and program.kinds.of(_each(value)) == "number"


def _each(value: Node | None) -> Node | None:
    """Return what a comprehension makes of every item of a name; it has as many items as that."""
    match value:
        case cst.ListComp(elt=inner, for_in=cst.CompFor(iter=cst.Name(), inner_for_in=None)):
            return inner
        case _:
            return value


def _leads(program: "Program", start: Variable, end: Variable, changes: Sequence[Change]) -> bool:
    """Whether the value of one name finds its way into another."""
    seen, stack = {start}, [start]
    while stack:
        one = stack.pop()
        program.tree.step(len(changes))
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
        if made > MAX_COPIES:
            message = f"`{change.variable[1]}` holds more than {MAX_COPIES:,} copies of one thing"
            yield Found(change.node, message, "build it of less")
            return


def _folded(program: "Program", shares: "Counts") -> Iterator[Found]:
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
