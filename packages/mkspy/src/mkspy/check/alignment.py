"""Alignment: a program against the task it is for."""

import ast
from collections.abc import Iterator, Mapping

import libcst as cst

from mkspy.check.fields import declared
from mkspy.check.program import Program
from mkspy.check.report import BOTH, Found, Rule
from mkspy.check.semantics import one_of, slip
from mkspy.check.signatures import source
from mkspy.check.tree import Node, dotted
from mkspy.check.values import Class, Predictor, Result
from mkspy.errors import BadType
from mkspy.types import (
    BOOLEAN,
    NUMBER,
    REQUIRED,
    TEXT,
    Field,
    Json,
    List,
    Record,
    Type,
    is_subtype,
    parse,
    to_text,
    why_not,
)

_METHODS = ("forward", "aforward")
_DEEP = 6


def _methods(program: Program) -> Iterator[tuple[Class, cst.FunctionDef]]:
    one = program.entry if program.task else None
    for name in _METHODS if one else ():
        method = one.method(name) if one else None
        if one and method:
            yield one, method


def _parameters(program: Program) -> Iterator[Found]:
    task = program.task
    for one, method in _methods(program) if task else ():
        where = f"`{one.name}.{method.name.value}`"
        params = method.params
        named = {
            param.name.value: param
            for param in [*params.posonly_params, *params.params][1:] + list(params.kwonly_params)
        }
        inputs = {each.name: each for each in task.inputs} if task else {}
        for name, each in inputs.items():
            if name not in named and params.star_kwarg is None:
                yield Found(
                    method, f"{where} does not take the input `{name}`", f"write `{name}: ...` as a parameter"
                )
            elif name in named:
                yield from _input(program, named[name], each)
        for name, param in named.items():
            if name not in inputs and param.default is None:
                hint = slip(name, list(inputs), "give it a default, or leave it out")
                yield Found(param, f"{where} wants `{name}`, which is no input of {_named(program)}", hint)


def _named(program: Program) -> str:
    return f"the task `{program.task.name}`" if program.task else "the task"


def _input(program: Program, param: cst.Param, each: Field) -> Iterator[Found]:
    given = _type(program, param.annotation.annotation) if param.annotation else None
    if given is not None and not is_subtype(each.type, given):
        hint = f"write `{each.name}: ...` as the task has it: {to_text(each.type)}"
        yield Found(
            param, f"`{each.name}` does not take what the task gives: {why_not(each.type, given)}", hint
        )
    if param.default is None and each.default is not REQUIRED:
        hint = f"write `{each.name}: ... = {each.default!r}`"
        yield Found(param, f"`{each.name}` can be left out of the task, but has no default", hint)


def _outputs(program: Program) -> Iterator[Found]:
    task = program.task
    if task is None:
        return
    wanted = {each.name: each for each in task.outputs}
    for one, method in _methods(program):
        for each in program.returns.get(program.tree.own[method], []):
            on = program.value(each.value)
            if not isinstance(on, Result):
                yield from _no_outputs(program, one, each, list(wanted))
                continue
            for name in wanted.keys() - on.fields:
                hint = slip(name, list(on.fields), f"give it: `{name}=...`")
                message = f"`{one.name}` answers {one_of(list(on.fields))}, without the output `{name}`"
                yield Found(each, message, hint)
            yield from _answers(program, each, wanted)


def _no_outputs(program: Program, one: Class, node: cst.Return, wanted: list[str]) -> Iterator[Found]:
    """Yield a return that is visibly no prediction; in a candidate `returns-prediction` says so."""
    shown = _VISIBLE.get(type(node.value)) if node.value is not None else "nothing"
    if isinstance(node.value, cst.Attribute) and isinstance(program.value(node.value.value), Result):
        shown = f"`{dotted(node.value) or node.value.attr.value}`"
    if shown and program.profile == "project":
        hint = f"write `return dspy.Prediction({wanted[0]}=...)`" if wanted else "return a dspy.Prediction"
        yield Found(node, f"`{one.name}` answers {shown}, not a dspy.Prediction with {one_of(wanted)}", hint)


_VISIBLE: dict[type[Node], str] = {
    **dict.fromkeys((cst.SimpleString, cst.FormattedString, cst.ConcatenatedString), "a text"),
    **dict.fromkeys((cst.Integer, cst.Float, cst.Comparison), "a number or boolean"),
    **dict.fromkeys((cst.List, cst.ListComp, cst.Tuple, cst.Set), "a list"),
    **dict.fromkeys((cst.Dict, cst.DictComp), "a dict"),
}


def _answers(program: Program, node: cst.Return, wanted: Mapping[str, Field]) -> Iterator[Found]:
    """Compare types, where an output comes straight from a field of a signature."""
    value = node.value
    whole = _predictor(program, value) if value is not None else None
    for each in whole.signature.outputs if whole else ():
        if each.name in wanted:
            yield from _differs(node, wanted[each.name], _annotated(program, each.annotation))
    for arg in value.args if isinstance(value, cst.Call) and whole is None else ():
        name = arg.keyword.value if arg.keyword else ""
        if name in wanted:
            flows = _flows(program, arg.value)
            yield from _differs(arg, wanted[name], flows)
            yield from _built(program, arg, wanted[name]) if flows is None else ()


def _differs(node: Node, each: Field, given: Type | None) -> Iterator[Found]:
    if given is not None and not is_subtype(given, each.type):
        reason = why_not(given, each.type)
        message = f"the output `{each.name}` has another type than in the task: {reason}"
        yield Found(node, message, f"the task has {to_text(each.type)}")


def _built(program: Program, arg: cst.Arg, each: Field) -> Iterator[Found]:
    """Yield an output that is built here, of another kind than the task has."""
    value = _bound(program, arg.value)
    made = program.kinds.of(value) if isinstance(value, _BUILT) else None
    if isinstance(value, cst.Call) and not isinstance(value.func, cst.Name):
        made = None
    right = _kind(each.type)
    if made and right and made != right:
        message = f"the output `{each.name}` is a {made}, and the task has {to_text(each.type)}"
        yield Found(arg, message, "give the output of a signature that has this type")


_BUILT = (
    *(cst.SimpleString, cst.ConcatenatedString, cst.FormattedString, cst.Integer, cst.Float, cst.Comparison),
    *(cst.List, cst.ListComp, cst.Call),
)


def _kind(type_: Type) -> str:
    plain = (("text", TEXT), ("number", NUMBER), ("number", BOOLEAN))
    listed = "list" if isinstance(type_, List) else ""
    return listed or next((kind for kind, one in plain if is_subtype(type_, one)), "")


def _bound(program: Program, node: Node, depth: int = 0) -> Node:
    """Return what a name is bound to once, and any other expression itself."""
    found = program.tree.scopes[node].find(node.value) if isinstance(node, cst.Name) else None
    value = found[1][0].value if found and len(found[1]) == 1 and found[1][0].kind == "assign" else None
    return _bound(program, value, depth + 1) if value is not None and depth < _DEEP else node


def _flows(program: Program, node: Node) -> Type | None:
    """Return the type of `result.field`, or of a name bound to it once; `None` when it is not in sight."""
    node = _bound(program, node)
    if not isinstance(node, cst.Attribute) or not isinstance(program.value(node.value), Result):
        return None
    origin = _predictor(program, node.value)
    fields = origin.signature.outputs if origin else ()
    return next((_annotated(program, one.annotation) for one in fields if one.name == node.attr.value), None)


def _predictor(program: Program, node: Node) -> Predictor | None:
    node = _bound(program, node)
    node = node.expression if isinstance(node, cst.Await) else node
    func = node.func if isinstance(node, cst.Call) else None
    if isinstance(func, cst.Attribute) and func.attr.value == "acall":
        func = func.value
    made = program.value(func)
    return made if isinstance(made, Predictor) and not made.signature.open else None


def _annotated(program: Program, annotation: str) -> Type | None:
    return _parsed(program, annotation) if annotation else TEXT


def _type(program: Program, node: Node) -> Type | None:
    return _parsed(program, source(node))


def _parsed(program: Program, annotation: str) -> Type | None:
    """Return the type an annotation means, `None` when it is none of the spec's."""
    try:
        return parse(annotation, _records(program))
    except BadType:
        return None


def _records(program: Program) -> dict[str, Record]:
    """Return the records of the file, as far as all their fields have types of the spec."""
    if program.records is None:
        made: dict[str, Record] = {}
        for one in program.of_kind("record"):
            record = _record(program, one, made)
            if record is not None:
                made[one.name] = record
        program.records = made
    return program.records


def _record(program: Program, one: Class, made: Mapping[str, Record]) -> Record | None:
    fields: list[Field] = []
    for target, annotation, value in declared(one):
        try:
            type_ = parse(source(annotation), made)
            default = REQUIRED if value is None or _is_required(value) else _default(value)
            fields.append(Field(target.value, type_, default=default))
        except (BadType, ValueError, SyntaxError, TypeError):
            return None
    try:
        return Record(one.name, tuple(fields))
    except ValueError:
        return None


def _is_required(value: cst.BaseExpression) -> bool:
    names = [dotted(arg.keyword) for arg in value.args] if isinstance(value, cst.Call) else None
    return names is not None and "default" not in names and "default_factory" not in names


def _default(value: cst.BaseExpression) -> Json:
    if isinstance(value, cst.Call):
        given = [arg.value for arg in value.args if dotted(arg.keyword) == "default"]
        return ast.literal_eval(source(given[0])) if given else None
    return ast.literal_eval(source(value))


def _tools(program: Program) -> Iterator[Found]:
    used = {node.value for node in program.tree.of(cst.Name)}
    for name, bindings in program.tree.top.bindings.items():
        if bindings[0].path in program.host_tools and name not in used:
            yield Found(
                bindings[0].node, f"the tool `{name}` is imported and not used", "call it, or leave it out"
            )


RULES = (
    Rule(
        "task-inputs",
        "alignment",
        "The parameters of `forward` are the inputs of the task, by name and type.",
        _parameters,
        BOTH,
        example="a task with `message`; def forward(self, text: str): ...",
    ),
    Rule(
        "task-outputs",
        "alignment",
        "What `forward` returns has the outputs of the task, by name and type.",
        _outputs,
        BOTH,
        example="a task with `team`; return dspy.Prediction(label=...)",
    ),
    Rule("task-tools", "alignment", "A tool that is imported is used.", _tools),
)
