"""Semantics of modules: the attributes they have, use and hide, and the names of dspy."""

from collections.abc import Iterator

import libcst as cst

from mkspy.check.guards import depends_on_version, is_asked_for
from mkspy.check.known import GONE, MODULE, MODULE_DATA, NAMES
from mkspy.check.program import Program
from mkspy.check.report import BOTH, Found, Rule
from mkspy.check.semantics import slip
from mkspy.check.slips import nearest
from mkspy.check.tree import Node, dotted, literal
from mkspy.check.values import Class, ClassObject, Dspy, Instance, Predictor


def _self_attributes(program: Program) -> Iterator[Found]:
    if not _DYNAMIC.isdisjoint({node.value for node in program.tree.of(cst.Name)}):
        return
    for node in program.tree.of(cst.Attribute):
        name = node.attr.value
        on = program.value(node.value) if isinstance(node.value, cst.Name) else None
        if (
            node in program.tree.stored
            or not isinstance(on, Instance)
            or name in program.stores
            or name in MODULE
        ):
            continue
        one = on.value
        if (
            one.kind != "module"
            or one.open
            or one.library
            or name.startswith("_")
            or not _fixed(program, one)
            or _is_abstract(program, one)
        ):
            continue
        if name not in _members(program, one) and not is_asked_for(program, node, name):
            options = [*_members(program, one)]
            hint = slip(name, options, f"set `self.{name}` in `__init__`")
            yield Found(node.attr, f"`{one.name}` has no `{name}`", hint)


_DYNAMIC = {"setattr", "vars", "locals"}


def _fixed(program: Program, one: Class) -> bool:
    """Whether the file shows all attributes of a class: nothing fills it by name, nobody derives from it."""
    derived = one in program.derived
    odd = any(name in each.methods for each in one.lineage() for name in ("__getattr__", "__getattribute__"))
    return not (derived or odd or "__dict__" in program.text_attributes or one.node.decorators)


def _is_abstract(program: Program, one: Class) -> bool:
    """Whether a class of a project leaves it to classes in other files to build what it uses."""
    owners = {program.owner(node) for node, _ in program.predictors}
    made = any(isinstance(on, ClassObject) and on.value is one for _, on in program.calls)
    return program.profile == "project" and not made and owners.isdisjoint(one.lineage())


def _members(program: Program, one: Class) -> set[str]:
    names = {"lm", "signature"} if one.library else set[str]()
    for each in one.lineage():
        names.update(program.tree.own[each.node].bindings)
    return names | set(program.assigned(one))


def _reserved(program: Program) -> Iterator[Found]:
    for name in sorted((MODULE | {"forward", "aforward"}) & program.stores.keys()):
        for node, value in program.stores[name]:
            on = program.value(node.value)
            if not (
                isinstance(on, Instance) and on.value.kind == "module" and isinstance(node.value, cst.Name)
            ):
                continue
            made = program.value(value)
            is_module = isinstance(made, Predictor | Instance) or literal(value) is not None
            if is_module or (
                name not in MODULE_DATA and name in ("forward", "predictors", "named_predictors")
            ):
                hint = f"call it `self.{name}_step`, say"
                yield Found(node, f"`self.{name}` hides what every dspy.Module has", hint)


def _dead(program: Program) -> Iterator[Found]:
    for node, kind in program.predictors:
        held = program.tree.parents[node]
        owner = program.owner(node)
        if not isinstance(held, cst.Assign | cst.AnnAssign) or owner is None or owner.open:
            continue  # a base that is not in sight may call it
        targets = [one.target for one in held.targets] if isinstance(held, cst.Assign) else [held.target]
        for target in targets:
            if isinstance(target, cst.Attribute) and _unread(program, target):
                name = target.attr.value
                hint = "call it in `forward`, or leave it out"
                public = program.profile == "project" and not name.startswith("_")  # another file may call it
                message = f"the {kind} `{name}` is never called" + (" in this file" if public else "")
                yield Found(target, message, hint, "warning" if public else None)


def _unread(program: Program, target: cst.Attribute) -> bool:
    dynamic = {"getattr", "vars"} & {node.value for node in program.tree.of(cst.Name)}
    dynamic |= {"__dict__", "named_predictors", "predictors", "named_sub_modules"} & program.text_attributes
    return not dynamic and target.attr.value not in program.text_attributes


def _dspy_names(program: Program) -> Iterator[Found]:
    for node, name in _dspy_uses(program):
        first = name.split(".")[0]
        if first in NAMES or first.startswith("_") or first == "dspy" or depends_on_version(program, node):
            continue
        near = nearest(first, NAMES)
        if first in GONE:
            yield Found(node, f"dspy 3 has no `{first}`", f"use {GONE[first]}")
        elif near:
            yield Found(node, f"dspy has no `{first}`", f"did you mean `dspy.{near}`?")


def _dspy_uses(program: Program) -> Iterator[tuple[Node, str]]:
    for node in program.tree.of(cst.Attribute):
        path = program.path(node) if node not in program.tree.stored else ""
        if path.startswith("dspy.") and path.count(".") == 1:
            yield node, path.removeprefix("dspy.")
    for node in program.tree.of(cst.ImportFrom):
        if dotted(node.module) == "dspy" and not node.relative and not isinstance(node.names, cst.ImportStar):
            yield from ((alias, dotted(alias.name)) for alias in node.names)


def _lm_text(program: Program) -> Iterator[Found]:
    for node, on in program.calls:
        if isinstance(on, Dspy) and on.name in (
            "configure",
            "context",
            "settings.configure",
            "settings.context",
        ):
            given = program.argument(node, "lm", -1)
            text = literal(given)
            if given and text is not None:
                yield Found(given, "the language model is text", f"write `lm=dspy.LM({text!r})`")


RULES = (
    Rule(
        "self-attribute",
        "semantics",
        "What a module reads from `self` is set.",
        _self_attributes,
        BOTH,
        example="return self.answr(question=question)",
    ),
    Rule(
        "reserved-attribute",
        "semantics",
        "A module leaves the attributes of dspy.Module alone.",
        _reserved,
        BOTH,
        example='self.history = dspy.Predict("question -> answer")',
    ),
    Rule("dead-predictor", "semantics", "Every predictor that is built is used.", _dead, BOTH),
    Rule(
        "dspy-name", "semantics", "The names of dspy exist.", _dspy_names, BOTH, example="dspy.ChainOfThough"
    ),
    Rule(
        "lm-text",
        "semantics",
        "A language model is a dspy.LM.",
        _lm_text,
        BOTH,
        example='dspy.configure(lm="openai/gpt-4o-mini")',
    ),
)
