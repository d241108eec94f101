"""DSPy semantics: signatures that can be made, calls that fit them, results read by the names they have."""

from collections.abc import Iterator, Sequence

import libcst as cst

from mkspy.check.behind import predictors, results
from mkspy.check.guards import is_asked_for
from mkspy.check.known import CALL_OPTIONS, KINDS, MODULE, PREDICTION, SOMETIMES, WRAPPERS
from mkspy.check.lists import METHODS
from mkspy.check.program import Program
from mkspy.check.report import BOTH, Found, Rule
from mkspy.check.slips import nearest
from mkspy.check.tree import Node, dotted, literal, quoted
from mkspy.check.values import (
    Awaitable,
    Bound,
    Class,
    External,
    Function,
    Instance,
    Listed,
    Predictor,
    Result,
    Runner,
)


def one_of(names: Sequence[str]) -> str:
    """Return names as a list for a reader."""
    shown = sorted(set(names))
    return ", ".join(shown[:12]) + (", ..." if len(shown) > 12 else "") if shown else "nothing"


def slip(name: str, options: Sequence[str], otherwise: str = "", end: str = "") -> str:
    """Return "did you mean" the nearest of the options, or `otherwise`."""
    near = nearest(name, options)
    return f"did you mean `{near}{end}`?" if near else otherwise


# --- predictors ---------------------------------------------------------------------------------------------


def _arguments(program: Program) -> Iterator[Found]:
    for node, kind in program.predictors:
        if any(arg.star for arg in node.args):
            continue
        required = ("signature", *KINDS[kind].required) if kind in KINDS else WRAPPERS[kind]
        missing = [name for at, name in enumerate(required) if program.argument(node, name, at) is None]
        if missing:
            said = " and ".join(f"`{name}`" for name in missing)
            hint = _EXAMPLES.get(missing[0], f"say `{missing[0]}=`")
            yield Found(node, f"dspy.{kind} is built without {said}", hint)
    for node, value in program.tools:
        yield from _tools(program, node, value)


_EXAMPLES = {
    "signature": 'write dspy.Predict("question -> answer"), or name a signature class',
    "tools": "write `tools=[search]` with functions of yours",
}


def _tools(program: Program, node: cst.Call, value: cst.BaseExpression) -> Iterator[Found]:
    if isinstance(program.value(value), Function):
        yield Found(
            value, "`tools` is one function, not a list", f"write `tools=[{dotted(value) or 'tool'}]`"
        )
    for one in value.elements if isinstance(value, cst.List | cst.Tuple) else ():
        if isinstance(one.value, cst.SimpleString | cst.Integer | cst.Float | cst.Dict):
            yield Found(one, "a tool is a function, not text or data", "define the function and name it here")
        elif isinstance(one.value, cst.Call) and isinstance(program.value(one.value.func), Function):
            name = dotted(one.value.func)
            if name and name in _typed_as_data(program, one.value):
                yield Found(one, f"`{name}(...)` is what the tool answers, not the tool", f"write `{name}`")


def _typed_as_data(program: Program, node: cst.Call) -> set[str]:
    """Return the name of a function that says it returns text or a number, so that its result is no tool."""
    function = program.value(node.func)
    if (
        not isinstance(function, Function)
        or isinstance(function.node, cst.Lambda)
        or not function.node.returns
    ):
        return set()
    return (
        {function.node.name.value}
        if dotted(function.node.returns.annotation) in ("str", "int", "float")
        else set()
    )


def _keywords(program: Program) -> Iterator[Found]:
    for node, on in program.calls:
        bound = isinstance(on, Bound) and on.name not in ("deepcopy", "reset_copy")
        if isinstance(on, Runner):
            yield from _pairs(program, node)
        match on.value if isinstance(on, Bound) and bound else on:
            case Predictor() as value:
                yield from _predictor_call(program, node, value)
            case Instance(one) if one.kind == "module":
                asynchronous = isinstance(on, Bound) and on.name in ("acall", "aforward")
                yield from _module_call(node, one, asynchronous=asynchronous)
            case None if program.profile == "candidate":
                yield from _unsure_call(program, node)
            case _:
                pass


def _unsure_call(program: Program, node: cst.Call) -> Iterator[Found]:
    """Judge a call of one of several predictors, out of a list, say: what none of them takes is wrong."""
    several = predictors(program, node.func)
    inputs = [name for one in several for name in one.signature.names()[0]]
    takes = {*inputs, *CALL_OPTIONS, *(name for one in several for name in KINDS[one.kind].takes)}
    for arg in node.args if several else ():
        name = arg.keyword.value if arg.keyword else ""
        if name and name not in takes:
            yield Found(
                arg, f"{called(node)} takes {one_of(inputs)}, not `{name}`", slip(name, inputs, "", "=")
            )
        elif not name and not arg.star and not any(KINDS[one.kind].positional for one in several):
            yield Found(
                arg, f"{called(node)} takes keywords only", f"write `{inputs[0] if inputs else 'x'}=...`"
            )


def _pairs(program: Program, node: cst.Call) -> Iterator[Found]:
    """Hold the dicts in `parallel([(module, {...})])` against the inputs of the modules."""
    for pair in program.tree.within(node.args[0].value) if node.args else ():
        values = [one.value for one in pair.elements] if isinstance(pair, cst.Tuple) else []
        made = program.value(values[0]) if len(values) == 2 else None
        if not (isinstance(made, Predictor) and isinstance(values[1], cst.Dict)) or made.signature.open:
            continue
        inputs = made.signature.names()[0]
        for one in values[1].elements:
            name = literal(one.key) if isinstance(one, cst.DictElement) else None
            if name is not None and name not in (*inputs, *KINDS[made.kind].takes, *CALL_OPTIONS):
                text = dotted(values[0]).removeprefix("self.")
                said = f"`{text}`" if text else "the predictor"
                yield Found(one, f"{said} takes {one_of(inputs)}, not `{name}`", slip(name, inputs))


def called(node: cst.Call) -> str:
    """Return what a call is of, as a reader would say it."""
    text = dotted(node.func)
    return f"`{text.removeprefix('self.')}`" if text else "the predictor"


def _predictor_call(program: Program, node: cst.Call, value: Predictor) -> Iterator[Found]:
    kind, signature = KINDS[value.kind], value.signature
    plain = [arg for arg in node.args if not arg.keyword and not arg.star]
    inputs = signature.names()[0]
    if len(plain) > kind.positional:
        first = inputs[0] if inputs else "question"
        hint = f"write `{first}=...`"
        yield Found(plain[kind.positional], f"{called(node)} takes keywords only", hint)
    if signature.open or program.signatures_change:
        return
    takes = (*inputs, *kind.takes)
    given = {arg.keyword.value for arg in node.args if arg.keyword}
    for arg in node.args:
        if arg.keyword and arg.keyword.value not in takes and arg.keyword.value not in CALL_OPTIONS:
            name = arg.keyword.value
            message = f"{called(node)} takes {one_of(inputs)}, not `{name}`"
            left = [one for one in inputs if one not in given]
            guess = f"did you mean `{left[0]}=`?" if len(left) == 1 else ""
            yield Found(arg, message, slip(name, inputs, guess, "="))
    strange = given - {*takes, *CALL_OPTIONS}
    if any(arg.star for arg in node.args) or "signature" in given or plain or strange:
        return
    for one in signature.inputs:
        if one.name not in given and not one.optional and "History" not in one.annotation:
            yield Found(
                node, f"{called(node)} is called without its input `{one.name}`", f"say `{one.name}=...`"
            )


def _module_call(node: cst.Call, one: Class, *, asynchronous: bool) -> Iterator[Found]:
    method = one.method("aforward" if asynchronous else "forward") or one.method("forward")
    if one.open or not method or method.decorators or one.method("__call__"):
        return
    params = method.params
    named = [*params.posonly_params, *params.params][1:] + list(params.kwonly_params)
    names = [param.name.value for param in named]
    given = {arg.keyword.value for arg in node.args if arg.keyword}
    for arg in node.args:
        if arg.keyword and arg.keyword.value not in names and params.star_kwarg is None:
            name = arg.keyword.value
            yield Found(arg, f"`{one.name}` takes {one_of(names)}, not `{name}`", slip(name, names, "", "="))
    plain = len([arg for arg in node.args if not arg.keyword])
    if any(arg.star for arg in node.args) or given - set(names):
        return
    for param in named[plain:]:
        if param.default is None and param.name.value not in given:
            name = param.name.value
            yield Found(node, f"`{one.name}` is called without `{name}`", f"say `{name}=...`")


# --- results ------------------------------------------------------------------------------------------------


def _result_fields(program: Program) -> Iterator[Found]:
    if program.signatures_change:
        return
    for node in program.tree.of(cst.Attribute):
        if node not in program.tree.stored:
            yield from _read(program, node.attr, node.attr.value, program.value(node.value), node.value)
            yield from _hidden(program, node)
    for node in program.tree.of(cst.Subscript):
        index = node.slice[0].slice if len(node.slice) == 1 else None
        name = literal(index.value) if isinstance(index, cst.Index) else None
        if name is not None and node not in program.tree.stored:
            yield from _read(program, node, name, program.value(node.value), node.value)


def _hidden(program: Program, node: cst.Attribute) -> Iterator[Found]:
    """Yield an output whose name a method of every prediction has: reading it gives the method."""
    name, on, parent = node.attr.value, program.value(node.value), program.tree.parents.get(node)
    called = isinstance(parent, cst.Call) and parent.func is node
    if isinstance(on, Result) and name in PREDICTION and name in on.fields and not called:
        said = dotted(node.value) or "result"
        message = f"`{said}.{name}` is a method of every dspy.Prediction, not the output `{name}`"
        yield Found(node.attr, message, f'write `{said}["{name}"]`, or give the output another name')


def _read(program: Program, node: Node, name: str, on: object, base: Node) -> Iterator[Found]:
    if (
        name.startswith("_" if program.profile == "candidate" else "__")
        or name in program.stores
        or _is_filled(program, name, base)
    ):
        return
    match on:
        case Result(fields, of) if name not in fields | PREDICTION | SOMETIMES and not is_asked_for(
            program, node, name
        ):
            said = quoted(base, "the result")
            shown = one_of(list(fields))
            yield Found(node, f"{said} has {shown} (from {of}), not `{name}`", slip(name, list(fields)))
        case None if program.profile == "candidate" and name not in METHODS:
            yield from _unsure_read(program, node, name, base)
        case Awaitable(Result()):
            yield Found(node, f"{quoted(base, 'this call')} is not awaited", "write `await` before the call")
        case Predictor(kind) if name not in _ON_PREDICTOR and name in KINDS[kind].extras + _outputs(on):
            hint = f"call it first: `{dotted(base) or 'it'}(...).{name}`"
            yield Found(node, f"`{name}` is read from the predictor, not from its result", hint)
        case _:
            pass


def _unsure_read(program: Program, node: Node, name: str, base: Node) -> Iterator[Found]:
    several = results(program, base)
    fields = {field for one in several for field in one.fields}
    if several and name not in fields | PREDICTION | SOMETIMES:
        said = quoted(base, "this result")
        yield Found(node, f"{said} has {one_of(list(fields))}, not `{name}`", slip(name, list(fields)))


_ON_PREDICTOR = MODULE | {
    "signature",
    "demos",
    "lm",
    "config",
    "predict",
    "extract",
    "react",
    "tools",
    "traces",
    "train",
}


def _outputs(on: Predictor) -> tuple[str, ...]:
    return on.signature.names()[1]


def _is_filled(program: Program, name: str, base: Node) -> bool:
    """Whether the file writes `something["name"] =`, which a prediction takes, or fields nobody can see."""
    if name in program.filled:
        return True
    found = program.scope(base).find(base.value) if isinstance(base, cst.Name) else None
    return found is not None and any(id(one.node) in program.opened for one in found[1])


def _awaits(program: Program) -> Iterator[Found]:
    for node in program.tree.of(cst.Await):
        call = node.expression
        on = program.value(call.func) if isinstance(call, cst.Call) else None
        plain = isinstance(on, Predictor) or (
            isinstance(on, Instance)
            and on.value.kind == "module"
            and not on.value.open
            and not on.value.method("__call__")
            and not _is_async(on.value.method("forward"))
        )
        if plain and isinstance(call, cst.Call):
            text = dotted(call.func)
            yield Found(
                node,
                f"{called(call)} answers at once, there is nothing to await",
                f"write `await {text}.acall(...)`",
            )


def _is_async(method: cst.FunctionDef | None) -> bool:
    return method is None or method.asynchronous is not None


def _gathered(program: Program) -> Iterator[Found]:
    for node, on in program.calls:
        for arg in node.args if on == External("asyncio.gather") else ():
            value = program.value(arg.value)
            answer = value.value if arg.star and isinstance(value, Listed) else value
            if isinstance(answer, Result) or (not arg.star and isinstance(value, Listed)):
                message = "asyncio.gather is given what is there already, or a list"
                yield Found(arg, message, "write `asyncio.gather(*[step.acall(...) for ...])`")
    for one in program.of_kind("module") if program.profile == "candidate" else ():
        for name, asynchronous in (("forward", False), ("aforward", True)):
            method = one.methods.get(name)
            if method and bool(method.asynchronous) is not asynchronous:
                if asynchronous:
                    yield Found(method, f"`{one.name}.aforward` is not asynchronous", "write `async def`")
                else:
                    yield Found(method, f"`{one.name}.forward` is asynchronous", "call it `aforward`")


def _waits(program: Program) -> Iterator[Found]:
    yield from _awaits(program)
    yield from _gathered(program)


RULES = (
    Rule(
        "predictor-arguments",
        "semantics",
        "A predictor is built with all it needs.",
        _arguments,
        BOTH,
        example='dspy.ReAct("question -> answer")',
    ),
    Rule(
        "call-inputs",
        "semantics",
        "A call says the inputs of the signature, by keyword, and no others.",
        _keywords,
        BOTH,
        example='dspy.Predict("question -> answer")(query="...")',
    ),
    Rule(
        "result-field",
        "semantics",
        "Only outputs are read from a result.",
        _result_fields,
        BOTH,
        example="self.answer(question=question).anwser",
    ),
    Rule(
        "await",
        "semantics",
        "`await` stands before `acall`, and nowhere else.",
        _waits,
        BOTH,
        example="await self.answer(question=question)",
    ),
)
