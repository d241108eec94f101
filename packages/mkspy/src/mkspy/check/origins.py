"""Origins: the expressions that made what a name or an attribute holds, followed through the whole file."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import libcst as cst

from mkspy.check.graph import Code, is_given_to_dspy
from mkspy.check.known import words
from mkspy.check.tree import Binding, Entangled, Node, Scope, dotted
from mkspy.check.values import Bound, ClassObject, Dspy, External, Function, Instance, Predictor, Runner

if TYPE_CHECKING:
    from mkspy.check.program import Program

_PICKS = {"max": 0, "min": 0, "next": 0, "reduce": 1}
"""Functions that give back an item of an argument, or a later argument itself, and which is the first."""
_ITEM_OF_SELF = words("get pop popitem setdefault")
_DEEP = 8
_MANY = 20_000


class Source(NamedTuple):
    """An expression a name gets its value from: all of it, an item of it, or what it grows by.

    `at` is the place in the item where that is unpacked, `for at_0, at_1 in ...`, and -1 where it is not.
    """

    node: Node
    how: Literal["whole", "item", "grown"] = "whole"
    at: int = -1


class Origin(NamedTuple):
    """Where a value was made, how many items deep in that it is, and what keeps it between two runs."""

    node: Node
    depth: int = 0
    keeper: str = ""


# --- names --------------------------------------------------------------------------------------------------


def sources(program: "Program", bindings: Sequence[Binding]) -> Iterator[Source]:
    """Yield what the bindings of a name take their values from: a parameter itself if no caller is seen."""
    for one in bindings:
        if isinstance(one.node, cst.Param):
            yield from _given(program, one.node)
        elif one.kind == "loop" and one.value is not None:
            yield Source(one.value, "item")
        elif one.value is not None:
            yield Source(one.value)
        elif one.kind == "other":
            yield from _unpacked(program, one.node)


def _unpacked(program: "Program", node: Node) -> Iterator[Source]:
    """Yield where a name in a tuple, in `+=` or in a pattern gets its value."""
    at = -1
    for one in program.tree.around(node):
        match one:
            case cst.Tuple(elements=elements) | cst.List(elements=elements):
                inside = [element for element in elements if element is node]
                at = elements.index(inside[0]) if inside else -1
            case cst.Assign(value=cst.Tuple(elements=elements)) if at < len(elements):
                yield Source(elements[at].value)
                return
            case cst.Assign(value=value):
                yield Source(value, "item")
                return
            case cst.For(iter=value) | cst.CompFor(iter=value):
                yield Source(value, "item", at)
                return
            case cst.Match(subject=value):
                yield from (Source(value), Source(value, "item"))
                return
            case cst.AugAssign(value=value):
                yield Source(value, "grown")
                return
            case cst.BaseCompoundStatement() | cst.Lambda():
                return
            case _:
                pass
        node = one


def _given(program: "Program", param: cst.Param) -> Iterator[Source]:
    code = program.tree.parents[param]
    if not isinstance(code, cst.FunctionDef | cst.Lambda):
        return
    if param.default is not None:
        yield Source(param.default)
    if _is_called_from_outside(program, code):
        yield Source(param)
    for call in program.graph.callers.get(code, ()):
        yield from _argument(program, call, param)
    for place in program.graph.handed.get(code, ()):
        arg = program.tree.parents.get(place)
        call = program.tree.parents.get(arg) if isinstance(arg, cst.Arg) else None
        if isinstance(call, cst.Call):
            yield from (Source(one.value, "item") for one in call.args if one is not arg)
            if dotted(call.func).endswith("reduce") and len(call.args) == 3:
                yield Source(call.args[2].value)
        for unknown in program.graph.unknown:
            yield from (Source(one.value) for one in unknown.args)


def _is_called_from_outside(program: "Program", code: Code) -> bool:
    if isinstance(code, cst.Lambda):
        return False
    main = program.entry
    run = main is not None and code in (main.method("forward"), main.method("aforward"))
    return run or any(is_given_to_dspy(program, place) for place in program.graph.handed.get(code, ()))


def _argument(program: "Program", call: cst.Call, param: cst.Param) -> Iterator[Source]:
    code = program.tree.parents[param]
    assert isinstance(code, cst.FunctionDef | cst.Lambda)
    names = [one.name.value for one in (*code.params.posonly_params, *code.params.params)]
    at = names.index(param.name.value) - program.is_method(code) if param.name.value in names else -1
    given = program.argument(call, param.name.value, at)
    if given is not None:
        yield Source(given)
    else:
        yield from (Source(one.value, "item") for one in call.args if one.star)


# --- values -------------------------------------------------------------------------------------------------


def origins(program: "Program", node: Node, depth: int = 0) -> list[Origin]:
    """Return where a value may have been made; what cannot be followed is its own origin."""
    key = node, depth
    if key not in program.origins:
        program.origins[key] = list(_ends(program, Origin(node, depth)))
    return program.origins[key]


def _ends(program: "Program", start: Origin) -> Iterator[Origin]:
    seen: set[tuple[int, int, bool]] = set()
    stack = [start]
    while stack:
        one = stack.pop()
        key = id(one.node), one.depth, bool(one.keeper)
        if key in seen or one.depth > _DEEP:
            continue
        seen.add(key)
        further = list(_follow(program, one)) if type(one.node) not in _LEAVES else []
        program.steps += len(further)
        if program.steps > _MANY:
            raise Entangled
        stack += further
        if not further:
            yield one


_LEAVES = {
    *(cst.SimpleString, cst.ConcatenatedString, cst.FormattedString, cst.Integer, cst.Float, cst.Comparison),
    *(cst.Param, cst.Lambda, cst.UnaryOperation),
}


def _follow(program: "Program", one: Origin) -> Iterator[Origin]:
    """Yield the expressions one step nearer to where a value was made."""
    node, depth, keeper = one
    match node:
        case cst.Name():
            yield from _of_name(program, node, one)
        case cst.Attribute():
            yield from _of_attribute(program, node, one)
        case cst.Call():
            yield from _of_call(program, node, one)
        case cst.Subscript(value=base, slice=[cst.SubscriptElement(slice=cst.Index())]):
            yield Origin(base, depth + 1, keeper)
        case cst.Subscript(value=base) if depth:
            yield Origin(base, depth, keeper)
        case cst.List(elements=elements) | cst.Tuple(elements=elements) | cst.Set(elements=elements) if depth:
            for each in elements:
                yield Origin(each.value, depth - (not isinstance(each, cst.StarredElement)), keeper)
        case cst.Dict(elements=elements) if depth:
            for each in elements:
                yield Origin(each.value, depth - isinstance(each, cst.DictElement), keeper)
        case cst.ListComp(elt=inner) | cst.SetComp(elt=inner) | cst.GeneratorExp(elt=inner) if depth:
            yield Origin(inner, depth - 1, keeper)
        case cst.DictComp(value=inner) if depth:
            yield Origin(inner, depth - 1, keeper)
        case cst.IfExp(body=left, orelse=right) | cst.BooleanOperation(left=left, right=right):
            yield from (Origin(left, depth, keeper), Origin(right, depth, keeper))
        case cst.BinaryOperation(left=left, right=right) if depth:
            yield from (Origin(left, depth, keeper), Origin(right, depth, keeper))
        case cst.NamedExpr(value=inner) | cst.Await(expression=inner):
            yield Origin(inner, depth, keeper)
        case _:
            pass


def _of_name(program: "Program", node: cst.Name, one: Origin) -> Iterator[Origin]:
    found = program.scope(node).find(node.value)
    if found is None:
        return
    scope, bindings = found
    keeper = one.keeper or _keeper(program, node, scope)
    for source in sources(program, bindings):
        if source.how != "grown" and source.node is not node:
            deeper = (source.how == "item") + (source.at >= 0)
            made = keeper or _made_before(program, source.node)
            yield Origin(source.node, one.depth + deeper, made)


def _made_before(program: "Program", node: Node) -> str:
    """Return what is said of a parameter of `__init__`, which was made before any run."""
    function = program.tree.parents.get(node) if isinstance(node, cst.Param) else None
    built = isinstance(function, cst.FunctionDef) and function.name.value == "__init__"
    return dotted(node.name) if built and isinstance(node, cst.Param) else ""


def _keeper(program: "Program", node: cst.Name, scope: Scope) -> str:
    """Return the name itself, if it is of the file, or of a function that is over when it is used."""
    if scope.kind in ("module", "class"):
        return node.value
    inside = program.graph.around(node)
    closed = scope.node is not inside and scope.kind == "function"
    return node.value if closed and scope.node in program.graph.before else ""


def _of_attribute(program: "Program", node: cst.Attribute, one: Origin) -> Iterator[Origin]:
    on, name = program.value(node.value), node.attr.value
    keeper = one.keeper or dotted(node) or name
    if isinstance(on, Instance | ClassObject):
        for each in on.value.lineage():
            for source in sources(program, program.tree.own[each.node].bindings.get(name, [])):
                yield Origin(source.node, one.depth, keeper)
        stores = program.assigned(on.value).get(name, []) if isinstance(on, Instance) else []
        for _, value in stores:
            if value is not None:
                yield Origin(value, one.depth, keeper)
    elif not isinstance(on, Dspy | External):
        yield Origin(node.value, one.depth + 1, one.keeper)


def _of_call(program: "Program", node: cst.Call, one: Origin) -> Iterator[Origin]:
    func, (_, depth, keeper) = node.func, one
    match program.value(func):
        case Function(cst.Lambda(body=body)):
            yield Origin(body, depth, keeper)
        case Function(cst.FunctionDef() as function):
            for each in program.returns.get(program.tree.own[function], []):
                if each.value is not None:
                    yield Origin(each.value, depth, keeper)
        case Predictor() | Bound() | Runner() | Instance():
            pass
        case _ if isinstance(func, cst.Attribute) and func.attr.value in _ITEM_OF_SELF:
            yield Origin(func.value, depth + 1, keeper)
            yield from (Origin(arg.value, depth, keeper) for arg in node.args[1:])
        case _ if (name := dotted(func).rpartition(".")[2]) in _PICKS:
            given = [arg.value for arg in node.args if not arg.keyword][_PICKS[name] :]
            alone = len(given) == 1 or name not in ("max", "min")
            yield from (Origin(each, depth + (alone and each is given[0]), keeper) for each in given)
        case _ if depth:
            given = [arg.value for arg in node.args]
            given += [func.value] if isinstance(func, cst.Attribute) else []
            for each in given:
                yield from (Origin(each, depth, keeper), Origin(each, depth - 1, keeper))
        case _:
            pass
