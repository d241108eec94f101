"""Facts: what a program is made of, as far as reading tells."""

from collections.abc import Iterator

import libcst as cst

from mkspy.check.known import KINDS
from mkspy.check.program import Program
from mkspy.check.report import Facts
from mkspy.check.report import Predictor as Fact
from mkspy.check.structure import imports
from mkspy.check.tree import Node, dotted, number
from mkspy.check.values import Bound, Class, Function, Instance, Predictor, Runner, Value

_DEEP = 12
ITERATIONS = {"ReAct": 20, "ReActV2": 20, "CodeAct": 5, "ProgramOfThought": 3, "RLM": 20}
AFTER = {"ReAct": 1, "ReActV2": 1, "CodeAct": 1, "ProgramOfThought": 1}
_LOOPS = (cst.For, cst.While, cst.ListComp, cst.SetComp, cst.DictComp, cst.GeneratorExp)


def facts_of(program: Program, lines: int) -> Facts:
    """Return the facts of a program."""
    one = program.entry
    return Facts(
        predictors=tuple(_predictors(program)),
        modules=tuple(each.name for each in program.of_kind("module")),
        signatures=tuple(each.name for each in program.of_kind("signature")),
        tools=tuple(dict.fromkeys(_tools(program))),
        imports=tuple(dict.fromkeys(path.rsplit(":")[0] for _, path in imports(program))),
        model_calls=calls_of(program, one, 0) if one else None,
        lines=lines,
    )


def _predictors(program: Program) -> Iterator[Fact]:
    for node, kind in program.predictors:
        inputs, outputs = program.signature(node).names() if kind in KINDS else ((), ())
        yield Fact(_name(program, node), kind, inputs, outputs)


def _name(program: Program, node: Node) -> str:
    held = program.tree.parents.get(node)
    if isinstance(held, cst.Assign):
        return dotted(held.targets[0].target).removeprefix("self.")
    return dotted(held.target).removeprefix("self.") if isinstance(held, cst.AnnAssign) else ""


def _tools(program: Program) -> Iterator[str]:
    for _, value in program.tools:
        for one in value.elements if isinstance(value, cst.List | cst.Tuple) else ():
            text = dotted(one.value)
            if text:
                yield text.removeprefix("self.")


def calls_of(program: Program, one: Class, depth: int = 0) -> int | None:
    """Return how many calls of a model a run of a module makes at most."""
    method = one.method("forward") or one.method("aforward")
    return _calls_in(program, method, depth) if method and depth < _DEEP else None


def _calls_in(program: Program, function: cst.FunctionDef, depth: int) -> int | None:
    total = 0
    for node in program.tree.within(function.body):
        if not isinstance(node, cst.Call):
            continue
        on = program.value(node.func)
        cost = _together(program, node, depth) if isinstance(on, Runner) else _cost(program, on, depth)
        if cost == 0:
            continue
        times = _times(program, node, function)
        if cost is None or times is None:
            return None
        total += cost * times
    return total


def _together(program: Program, node: cst.Call, depth: int) -> int | None:
    """Return the calls of all pairs of a dspy.Parallel."""
    given = node.args[0].value if node.args else None
    total = 0
    for one in given.elements if isinstance(given, cst.List) else ():
        module = (
            one.value.elements[0].value if isinstance(one.value, cst.Tuple) and one.value.elements else None
        )
        cost = _cost(program, program.value(module), depth)
        if not cost:
            return None
        total += cost
    return total or None


def _cost(program: Program, on: Value, depth: int) -> int | None:
    match on:
        case Bound(_, value):
            return _cost(program, value, depth)
        case Predictor(kind):
            return ITERATIONS.get(kind, 1) + AFTER.get(kind, 0) if kind in ITERATIONS else 1
        case Instance(one) if one.kind == "module":
            return calls_of(program, one, depth + 1)
        case Function(cst.FunctionDef() as function):
            return _calls_in(program, function, depth + 1) if depth < _DEEP else None
        case _:
            return 0


def _times(program: Program, node: Node, function: cst.FunctionDef) -> int | None:
    """Return how often a place in a function runs at most, `None` when the data decide."""
    times = 1
    inner = node
    for around in program.tree.around(node):
        if around is function:
            return times
        if isinstance(around, _LOOPS) and not (isinstance(around, cst.For) and inner is around.iter):
            bound = range_of(around.iter) if isinstance(around, cst.For) else None
            if bound is None:
                return None
            times *= bound
        inner = around
    return times


def range_of(node: Node) -> int | None:
    """Return how many turns `range(n)` or `range(m, n)` makes."""
    if not (isinstance(node, cst.Call) and dotted(node.func) == "range" and 0 < len(node.args) < 3):
        return None
    ends = [number(arg.value) for arg in node.args]
    first, last = (0, *ends) if len(ends) == 1 else ends
    return max(last - first, 0) if first is not None and last is not None else None
