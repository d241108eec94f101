"""Semantics of signatures: what DSPy can make of the strings and classes."""

import re
from collections.abc import Iterator

import libcst as cst

from mkspy.check.fields import declared, written_signature
from mkspy.check.known import KINDS
from mkspy.check.program import Program
from mkspy.check.report import BOTH, Found, Rule
from mkspy.check.signatures import BadSignature, parse, problems, unknown_types
from mkspy.check.tree import Node, dotted, literal
from mkspy.check.values import Class, Dspy, External


def signature_texts(program: Program) -> Iterator[tuple[cst.BaseExpression, str]]:
    """Yield every string that is a signature, with its text."""
    for node, on in program.calls:
        if isinstance(on, Dspy) and (on.name in KINDS or on.name in ("Signature", "make_signature")):
            given = program.argument(node, "signature", 0)
            text = literal(given)
            if given and text is not None:
                yield given, text


def _signature(program: Program) -> Iterator[Found]:
    for node, text in signature_texts(program):
        read = parse(text)
        for bad in [read] if isinstance(read, BadSignature) else problems(read):
            yield Found(node, bad.message, bad.hint)


def _signature_types(program: Program) -> Iterator[Found]:
    for node, text in signature_texts(program):
        read = parse(text)
        if isinstance(read, BadSignature) or program.tree.stars or _custom(program, node):
            continue
        known, looked_up = _visible(program, node), frozenset(_AFTER_COLON.findall(text))
        for one in (*read.inputs, *read.outputs):
            for name in unknown_types(one.annotation, known & looked_up):
                if name in known:
                    message = (
                        f"field `{one.name}`: DSPy does not find `{name}` here, only right after a colon"
                    )
                    yield Found(node, message, "write the signature as a class")
                    continue
                hint = f"write `{_PLAIN[name]}`" if name in _PLAIN else "import it, or write a type of Python"
                yield Found(node, f"field `{one.name}` has the unknown type `{name}`", hint)


_AFTER_COLON = re.compile(r":\s*([A-Za-z_]\w*)")
_PLAIN = {
    **{
        "string": "str",
        "text": "str",
        "integer": "int",
        "number": "float",
        "boolean": "bool",
        "array": "list",
    },
    **{"object": "dict", "double": "float", "date": "datetime.date", "literal": "Literal", "any": "Any"},
}


def _custom(program: Program, node: Node) -> bool:
    call = program.tree.parents[program.tree.parents[node]]
    return isinstance(call, cst.Call) and program.argument(call, "custom_types", 3) is not None


def _visible(program: Program, node: Node) -> frozenset[str]:
    names: set[str] = set()
    for scope in program.tree.own.values():
        names.update(scope.bindings)
    return frozenset(names | set(program.tree.top.bindings))


def _signature_class(program: Program) -> Iterator[Found]:
    parents = {base for one in program.classes.values() for base in one.bases}
    for one in program.of_kind("signature"):
        if one.open:
            continue
        yield from _fields(program, one)
        read = written_signature(program, one)
        for bad in problems(read) if not read.open else ():
            yield Found(one.node, f"`{one.name}`: {bad.message}", bad.hint)
        if one not in parents and not one.node.decorators and not read.outputs and not read.open:
            hint = "add a field with dspy.OutputField()"
            yield Found(one.node, f"signature `{one.name}` has no output field", hint)


def _fields(program: Program, one: Class) -> Iterator[Found]:
    seen: set[str] = set()
    for target, annotation, value in declared(one):
        name = target.value
        if name in seen:
            yield Found(target, f"field `{name}` is there twice", "give every field a name of its own")
        seen.add(name)
        kind = program.value(value) if value is not None else None
        if isinstance(kind, Dspy) and kind.name in ("InputField", "OutputField"):
            yield Found(target, f"field `{name}` is dspy.{kind.name} itself", f"write `dspy.{kind.name}()`")
        elif isinstance(value, cst.Call) and program.value(value.func) == External("pydantic.Field"):
            hint = "write dspy.InputField() or dspy.OutputField()"
            yield Found(target, f"field `{name}` is a pydantic.Field, neither input nor output", hint)
        elif _is_annotation(annotation) and (value is None or _is_plain(value)) and name != "model_config":
            hint = f"write `{name}: ... = dspy.InputField()` or `dspy.OutputField()`"
            yield Found(target, f"field `{name}` is neither input nor output", hint)


def _is_annotation(annotation: Node | None) -> bool:
    return annotation is not None and not dotted(
        annotation.value if isinstance(annotation, cst.Subscript) else annotation
    ).endswith("ClassVar")


def _is_plain(value: Node) -> bool:
    return isinstance(value, cst.SimpleString | cst.Integer | cst.Float | cst.List | cst.Dict)


def _by_position(program: Program) -> Iterator[Found]:
    for node, on in program.calls:
        if isinstance(on, Dspy) and on.name in ("InputField", "OutputField"):
            for arg in node.args:
                if not arg.keyword and not arg.star:
                    yield Found(arg, f"dspy.{on.name} takes keywords only", "write `desc=...`")


def _classes(program: Program) -> Iterator[Found]:
    yield from _signature_class(program)
    yield from _by_position(program)


RULES = (
    Rule(
        "signature",
        "semantics",
        "A signature string can be read: names, types, one arrow, an output.",
        _signature,
        BOTH,
        example='dspy.Predict("question, answer")',
    ),
    Rule(
        "signature-type",
        "semantics",
        "The types in a signature string exist.",
        _signature_types,
        BOTH,
        example='dspy.Predict("question -> answer: string")',
    ),
    Rule(
        "signature-class",
        "semantics",
        "Every field of a signature class is an input or an output.",
        _classes,
        BOTH,
        example="class QA(dspy.Signature):\n    question: str",
    ),
)
