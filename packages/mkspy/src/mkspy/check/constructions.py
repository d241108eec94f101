"""Semantics of construction: what classes are built with, and methods whose names are slips."""

from collections.abc import Iterator

import libcst as cst

from mkspy.check.fields import class_signature
from mkspy.check.known import KINDS, WRAPPERS
from mkspy.check.program import Program
from mkspy.check.report import BOTH, Found, Rule
from mkspy.check.semantics import one_of, slip
from mkspy.check.slips import misspelt
from mkspy.check.values import Class, ClassObject, Dspy

_CLOSED = {
    "ReAct": KINDS["ReAct"].arguments,
    "ReActV2": KINDS["ReActV2"].arguments,
    "ProgramOfThought": KINDS["ProgramOfThought"].arguments,
    "CodeAct": KINDS["CodeAct"].arguments,
    "RLM": (
        *("signature", "max_iters", "max_llm_calls", "max_output_chars", "verbose", "tools", "sub_lm"),
        "interpreter_factory",
    ),
    **{name: (*arguments, "fail_count") for name, arguments in WRAPPERS.items()},
}
"""Arguments of those that take no others."""


def _calls(program: Program) -> Iterator[Found]:
    for node, on in program.calls:
        match on:
            case Dspy(name) if name in _CLOSED:
                yield from _unknown(node, f"dspy.{name}", _CLOSED[name])
            case ClassObject(one) if one.kind == "module" and not one.node.decorators:
                yield from _module(node, one)
            case ClassObject(one) if one.kind == "signature":
                yield from _signature(program, node, one)
            case _:
                pass


def _unknown(node: cst.Call, said: str, takes: "tuple[str, ...] | list[str]") -> Iterator[Found]:
    for arg in node.args:
        name = arg.keyword.value if arg.keyword else ""
        if name and name not in takes:
            message = f"{said} is built with {one_of(takes)}, not `{name}`"
            yield Found(arg, message, slip(name, takes, "leave it out", "="))


def _module(node: cst.Call, one: Class) -> Iterator[Found]:
    method = one.method("__init__")
    if one.open or one.library or (method and method.decorators):
        return
    params = method.params if method else cst.Parameters()
    named = [*params.posonly_params, *params.params][1:] + list(params.kwonly_params)
    names = [param.name.value for param in named] if method else ["callbacks"]
    if params.star_kwarg is None:
        yield from _unknown(node, f"`{one.name}`", names)
    plain = len([arg for arg in node.args if not arg.keyword])
    given = {arg.keyword.value for arg in node.args if arg.keyword}
    if any(arg.star for arg in node.args) or not given <= set(names):
        return
    for param in named[plain:]:
        name = param.name.value
        if param.default is None and name not in given:
            yield Found(node, f"`{one.name}` is built without `{name}`", f"say `{name}=...`")


def _signature(program: Program, node: cst.Call, one: Class) -> Iterator[Found]:
    """Yield a signature that is called: its instances hold all of the fields, and ask no model."""
    read = class_signature(program, one)
    needed = [each.name for each in (*read.inputs, *read.outputs) if not each.optional]
    given = {arg.keyword.value for arg in node.args if arg.keyword}
    if read.open or any(arg.star for arg in node.args):
        return
    if any(not arg.keyword for arg in node.args) or not given.issuperset(needed):
        hint = f"write `dspy.Predict({one.name})`, and call that; or name the class without calling it"
        yield Found(node, f"the signature `{one.name}` is called, which asks no model", hint)


def _methods(program: Program) -> Iterator[Found]:
    """Yield what was meant to be `__init__` or `aforward`; without `forward`, `no-forward` says so."""
    for one in program.of_kind("module"):
        names = {name for each in one.lineage() for name in each.methods}
        meant = {"__init__": "" if one.open or "__init__" in names else misspelt(one.methods, "__init__")}
        if not _builds(program, one.methods.get(meant["__init__"])):
            meant = {}
        if "forward" in names and "aforward" not in names:
            meant["aforward"] = misspelt([name for name in one.methods if name.startswith("a")], "aforward")
        for right, wrong in meant.items():
            if wrong and wrong not in program.text_attributes:
                message = f"`{one.name}` has a method `{wrong}`, and no `{right}`"
                yield Found(one.methods[wrong], message, f"call it `{right}`")


def _builds(program: Program, method: cst.FunctionDef | None) -> bool:
    """Whether a method calls `super().__init__()`, or builds a predictor."""
    if method is None:
        return False
    inside = set(program.tree.within(method.body))
    builds = any(node in inside for node, _ in program.predictors)
    through = (one for one in inside if isinstance(one, cst.Attribute) and one.attr.value == "__init__")
    return builds or any(isinstance(one.value, cst.Call) for one in through)


RULES = (
    Rule(
        "construction",
        "semantics",
        "A class is called with what it takes; a signature is not called, but given to a predictor.",
        _calls,
        BOTH,
        example='dspy.ReAct("question -> answer", tools=[search], max_iterations=3)',
    ),
    Rule(
        "misspelt-method",
        "semantics",
        "`__init__` and `aforward` are spelt right.",
        _methods,
        BOTH,
        example="def __int__(self):\n    super().__init__()",
    ),
)
