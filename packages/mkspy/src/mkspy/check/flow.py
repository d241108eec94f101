"""Semantics a candidate has to keep: where predictors are built, what `forward` returns, what tools say."""

from collections.abc import Iterator, Sequence

import libcst as cst

from mkspy.check.origins import origins
from mkspy.check.program import Program
from mkspy.check.report import Found, Rule
from mkspy.check.tree import Node, dotted, quoted
from mkspy.check.values import Awaitable, Bound, Dspy, Function, Instance, Predictor, Result

_METHODS = ("forward", "aforward")


def _place(program: Program) -> Iterator[Found]:
    for node, kind in program.predictors:
        function, owner = program.function_of(node), program.owner(node)
        if not (owner and owner.kind == "module" and function and function.name.value == "__init__"):
            hint = "build predictors in `__init__` of a module, as attributes of `self`"
            yield Found(node, f"this {kind} is built where no optimizer finds it", hint)


def _returns(program: Program) -> Iterator[Found]:
    for one in program.of_kind("module"):
        for name in _METHODS:
            if name not in one.methods:
                continue
            method = one.methods[name]
            for each in program.returns.get(program.tree.own[method], []):
                odd = _no_prediction(program, each.value)
                if odd:
                    hint = (
                        "await it"
                        if odd == "a coroutine"
                        else "write `return dspy.Prediction(field=value, ...)`"
                    )
                    yield Found(each, f"`{one.name}.{name}` returns {odd}, not a dspy.Prediction", hint)
            if not _ends(method.body.body):
                hint = "end every path with `return dspy.Prediction(...)`"
                yield Found(method, f"a path of `{one.name}.{name}` returns nothing", hint)


def _no_prediction(program: Program, node: Node | None) -> str:
    """Return what an expression is seen to be if that is no prediction, "" if it is one."""
    if isinstance(program.value(node), Result):
        return ""
    if isinstance(program.value(node), Awaitable):
        return "a coroutine"
    made = origins(program, node) if node is not None else []
    kinds = {_KINDS.get(type(one.node), "") for one in made if not one.depth}
    real = any(dotted(one.node) != "None" for one in made)
    if real and all(not one.depth and _predicts(program, one.node) for one in made):
        return ""
    return next(filter(None, kinds), "something nobody can see" if made else "nothing")


_KINDS: dict[type[Node], str] = {
    **dict.fromkeys((cst.SimpleString, cst.FormattedString, cst.ConcatenatedString), "text"),
    **dict.fromkeys((cst.Integer, cst.Float), "a number"),
    **dict.fromkeys((cst.List, cst.ListComp, cst.Tuple), "a list"),
    **dict.fromkeys((cst.Dict, cst.DictComp), "a dict"),
}


def _predicts(program: Program, node: Node) -> bool:
    """Whether an expression runs a predictor or makes a prediction, of whatever fields."""
    if isinstance(node, cst.Name) and node.value == "None":
        return True  # `best = None` before a loop that finds one
    match program.value(node.func) if isinstance(node, cst.Call) else None:
        case Predictor() | Instance() | Dspy("Prediction" | "majority"):
            return True
        case Bound(name):
            return name in ("acall", "aforward", "forward", "__call__")
        case _:
            return isinstance(program.value(node), Result)


def _ends(statements: Sequence[Node]) -> bool:
    """Whether a block always returns or raises."""
    return any(_ends_with(one) for one in statements)


def _ends_with(statement: Node) -> bool:
    match statement:
        case cst.SimpleStatementLine(body=body):
            return any(isinstance(one, cst.Return | cst.Raise) for one in body)
        case cst.Return() | cst.Raise():
            return True
        case cst.If(body=body, orelse=orelse):
            rest = _ends_with(orelse) if isinstance(orelse, cst.If) else orelse and _ends(orelse.body.body)
            return bool(rest) and _ends(body.body)
        case cst.Try(body=body, handlers=handlers, orelse=orelse, finalbody=final):
            main = _ends(body.body) or (orelse is not None and _ends(orelse.body.body))
            return (main and all(_ends(one.body.body) for one in handlers)) or bool(
                final and _ends(final.body.body)
            )
        case cst.Match(cases=cases):
            return any(_catches_all(one) for one in cases) and all(_ends(one.body.body) for one in cases)
        case cst.While(test=cst.Name(value="True"), body=body):
            return not any(isinstance(one, cst.Break) for one in body.body)
        case _:
            return False


def _catches_all(case: cst.MatchCase) -> bool:
    return case.guard is None and isinstance(case.pattern, cst.MatchAs) and case.pattern.pattern is None


def _tools(program: Program) -> Iterator[Found]:
    known = program.host_tools
    for _, value in program.tools:
        if not isinstance(value, cst.List | cst.Tuple):
            yield Found(value, "the tools cannot be seen", "write `tools=[search, ...]`")
            continue
        for one in value.elements:
            made = program.value(one.value)
            if isinstance(made, Function):
                yield from _tool(program, made, one)
            elif program.path(one.value) not in known:
                name = quoted(one.value, "this")
                yield Found(
                    one, f"{name} is no function of the file and no tool of the spec", "define or import it"
                )


def _tool(program: Program, tool: Function, place: Node) -> Iterator[Found]:
    node = tool.node
    if isinstance(node, cst.Lambda):
        yield Found(place, "a tool is a lambda, which has neither name nor description", "write a function")
        return
    name = node.name.value
    if not node.get_docstring(clean=False):
        yield Found(
            node, f"the tool `{name}` has no docstring, which is all a model knows of it", "say what it does"
        )
    if node.returns is None:
        yield Found(
            node, f"the tool `{name}` does not say what it returns", f"write `def {name}(...) -> str`, say"
        )
    if name == "finish":
        yield Found(node, "the tool `finish` hides the one by which an agent ends", "give it another name")
    if isinstance(node.params.star_arg, cst.Param):
        yield Found(node.params.star_arg, f"the tool `{name}` takes any number of arguments", "name them")
    if not any(one.value for one in program.returns.get(program.tree.own[node], ())):
        yield Found(node, f"the tool `{name}` returns nothing", "return what the model is to see")
    for param in (*node.params.params, *node.params.kwonly_params):
        if param.annotation is None and param.name.value != "self":
            yield Found(
                param, f"the tool `{name}` does not say the type of `{param.name.value}`", "annotate it"
            )


RULES = (
    Rule(
        "predictor-place",
        "semantics",
        "Predictors are built in `__init__` of a module.",
        _place,
        example='def forward(self, text):\n    return dspy.Predict("text -> label")(text=text)',
    ),
    Rule(
        "returns-prediction",
        "semantics",
        "Every path of `forward` returns a dspy.Prediction.",
        _returns,
        example="return result.answer",
    ),
    Rule(
        "tool",
        "semantics",
        "Tools are functions of the file or the spec, documented and typed.",
        _tools,
        example='dspy.ReAct("question -> answer", tools=[lambda x: x])',
    ),
)
