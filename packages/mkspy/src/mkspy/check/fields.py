"""Signature classes: the fields they declare, and what their methods make of them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import libcst as cst

from mkspy.check.signatures import OPEN, Signature, SignatureField, problems, source
from mkspy.check.tree import Node, dotted, literal
from mkspy.check.values import Class, Dspy, Value

if TYPE_CHECKING:
    from mkspy.check.program import Program


def class_signature(program: "Program", one: Class) -> Signature:
    """Return the fields of a signature class, with those of its bases; `OPEN` if it is wrong."""
    if one.node not in program.signatures:
        made = written_signature(program, one)
        names = [target.value for target, _, _ in declared(one)]
        wrong = len(set(names)) < len(names) or any(problems(made))
        program.signatures[one.node] = OPEN if wrong else made
    return program.signatures[one.node]


def written_signature(program: "Program", one: Class) -> Signature:
    """Return the fields of a signature class as they are written, right or wrong."""
    if one.open or one.node.decorators or not all(map(_is_plain, one.lineage())):
        return OPEN
    program.tree.step(3 * len(one.lineage()))
    found: dict[str, tuple[str, SignatureField]] = {}
    for each in reversed(list(one.lineage())):
        for name, side, annotation, default in fields(program, each):
            if not side:
                return OPEN
            optional = default or "None" in annotation or "Optional" in annotation or annotation == "Any"
            found[name] = side, SignatureField(name, annotation, optional)
    inputs, outputs = (tuple(f for s, f in found.values() if s == side) for side in ("input", "output"))
    return Signature(inputs, outputs, name=one.name)


def fields(program: "Program", one: Class) -> "Iterator[tuple[str, str, str, bool]]":
    """Yield the fields a class declares: name, side ("" when unknown), annotation, has a default."""
    for target, annotation, value in declared(one):
        side, default = "", False
        if isinstance(value, cst.Call):
            match program.value(value.func):
                case Dspy("InputField" | "OldInputField"):
                    side = "input"
                case Dspy("OutputField" | "OldOutputField"):
                    side = "output"
                case _:
                    pass
            default = any(dotted(arg.keyword) in ("default", "default_factory") for arg in value.args)
        yield target.value, side, source(annotation), default


def declared(one: Class) -> Iterator[tuple[cst.Name, Node | None, cst.BaseExpression | None]]:
    """Yield what the body of a class assigns: name, annotation, value."""
    body = one.node.body
    for line in body.body:
        for statement in line.body if isinstance(line, cst.SimpleStatementLine) else [line]:
            match statement:
                case cst.AnnAssign(target=cst.Name() as name, annotation=annotation, value=value):
                    yield name, annotation.annotation, value
                case cst.Assign(targets=[cst.AssignTarget(target=cst.Name() as name)], value=value):
                    yield name, None, value
                case _:
                    pass


def derived(program: "Program", signature: Signature, method: str, node: cst.Call) -> Value:
    name = literal(program.argument(node, "name", 1 if method == "insert" else 0))
    if method in ("with_instructions", "append_instructions", "with_updated_fields"):
        return signature
    if method == "delete" and name:
        keep = [tuple(f for f in side if f.name != name) for side in (signature.inputs, signature.outputs)]
        return Signature(keep[0], keep[1], name=signature.name)
    made = program.argument(node, "field", 2 if method == "insert" else 1)
    kind = program.value(made.func) if isinstance(made, cst.Call) else None
    if method not in ("append", "prepend", "insert") or not name or not isinstance(kind, Dspy):
        return None
    new = (SignatureField(name),)
    if kind.name == "InputField":
        return Signature(signature.inputs + new, signature.outputs, name=signature.name)
    return Signature(signature.inputs, signature.outputs + new, name=signature.name)


def _is_plain(one: Class) -> bool:
    """Whether the body of a class has nothing that decides what it holds: no `if`, no loop."""
    return all(isinstance(line, _PLAIN) for line in one.node.body.body)


_PLAIN = (cst.SimpleStatementLine, cst.FunctionDef, cst.ClassDef, cst.BaseSmallStatement)
