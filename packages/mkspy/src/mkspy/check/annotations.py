"""The allow-list, types: annotations, and signature strings, of which DSPy imports what they name."""

import ast
from collections.abc import Iterator

import libcst as cst

from mkspy.check.fields import declared
from mkspy.check.known import KINDS
from mkspy.check.lists import BUILTIN_TYPES, MODULES, TYPES
from mkspy.check.program import Program
from mkspy.check.report import Found, Rule
from mkspy.check.signature_rules import signature_texts
from mkspy.check.signatures import BadSignature, parse
from mkspy.check.tree import Node, dotted, literal, quoted
from mkspy.check.values import Dspy

_SYNTAX = (
    *(
        cst.Annotation,
        cst.Name,
        cst.Attribute,
        cst.Subscript,
        cst.SubscriptElement,
        cst.Index,
        cst.BinaryOperation,
    ),
    *(cst.Tuple, cst.Element, cst.Ellipsis),
)
_DATES = MODULES["datetime"]
_TYPING = MODULES["typing"]
_HINT = "write types of Python, typing, datetime or dspy, or classes of the file"


def in_annotation(program: Program, node: Node) -> bool:
    """Whether a node is part of an annotation."""
    return any(isinstance(one, cst.Annotation) for one in program.tree.around(node))


def _annotations(program: Program) -> Iterator[Found]:
    yield from _subscripts(program)
    for node in program.tree.of(cst.Annotation):
        yield from _type(program, node.annotation)
    for call, kind in program.predictors:
        given = program.argument(call, "rationale_field_type", -1)
        if kind in KINDS and given is not None:
            yield from _type(program, given)


def _subscripts(program: Program) -> Iterator[Found]:
    """Yield text in a type outside of an annotation: `list["..."]` is code to whoever resolves the type."""
    for node in program.tree.of(cst.Subscript):
        if not in_annotation(program, node) and _is_generic(program, node.value):
            yield from _type(program, node)


def _is_generic(program: Program, base: Node) -> bool:
    path = program.path(base)
    if path:
        return path.startswith(("typing.", "dspy.", "collections."))
    name = dotted(base)
    return name in BUILTIN_TYPES and program.tree.scopes[base].find(name) is None


def _type(program: Program, node: Node) -> Iterator[Found]:
    stack = [node]
    while stack:
        one = stack.pop()
        if isinstance(one, cst.Subscript) and _takes_values(program, one.value):
            yield from _values(program, one)
        elif isinstance(one, cst.Name | cst.Attribute):
            if not _is_type(program, one):
                yield Found(one, f"{quoted(one, 'this')} is not a type on the list", _HINT)
        elif not isinstance(one, _SYNTAX):
            yield Found(one, "an annotation is a type, not text or a computation", _HINT)
        else:
            stack += program.tree.below(one)


def _takes_values(program: Program, node: Node) -> bool:
    return program.path(node) in ("typing.Literal", "dspy.Code")


def _values(program: Program, node: cst.Subscript) -> Iterator[Found]:
    for element in node.slice:
        value = element.slice.value if isinstance(element.slice, cst.Index) else None
        number = isinstance(value, cst.Integer | cst.UnaryOperation)
        if (literal(value) is None and not number and dotted(value) not in ("True", "False", "None")) or (
            isinstance(value, cst.UnaryOperation) and not isinstance(value.expression, cst.Integer)
        ):
            yield Found(element, "`Literal` holds text, integers and booleans", _HINT)


def _is_type(program: Program, node: Node) -> bool:
    path = program.path(node)
    if path:
        module, _, name = path.rpartition(".")
        if module == "dspy":
            return name in TYPES | {"Prediction", "Example", "Module", "Signature"}
        return name in MODULES.get(module, ()) and module in (
            "typing",
            "datetime",
            "decimal",
            "enum",
            "collections",
        )
    name = dotted(node)
    found = program.tree.scopes.get(node, program.tree.top).find(name) if isinstance(node, cst.Name) else None
    if found is None:
        return name in BUILTIN_TYPES
    return any(isinstance(one.node, cst.ClassDef) for one in found[1]) or (
        found[0].kind == "module" and all(one.kind == "assign" for one in found[1])
    )


def _signature_types(program: Program) -> Iterator[Found]:
    own = {one.name for one in program.classes.values()}
    for node, text in signature_texts(program):
        read = parse(text)
        if isinstance(read, BadSignature):
            continue
        for one in (*read.inputs, *read.outputs):
            odd = _odd(one.annotation, own) if one.annotation else ""
            if odd:
                yield Found(node, f"field `{one.name}`: `{odd}` is not a type on the list", _HINT)


def _odd(annotation: str, own: set[str]) -> str:
    """Return the first part of a type in a signature string that is not on the list, "" when all are."""
    stack: list[ast.AST] = [ast.parse(annotation, mode="eval").body]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Subscript):
            values = ast.unparse(node.value) in ("Literal", "typing.Literal", "dspy.Code", "Code")
            stack.append(node.value)
            if values and not all(isinstance(one, ast.Constant) for one in _elements(node.slice)):
                return ast.unparse(node)[:60]
            stack += [] if values else [node.slice]
        elif not _is_listed(node, own):
            return ast.unparse(node)[:60]
        elif isinstance(node, ast.BinOp | ast.Tuple):
            stack += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    return ""


def _elements(node: ast.expr) -> list[ast.expr]:
    return [
        one.operand if isinstance(one, ast.UnaryOp) else one
        for one in (node.elts if isinstance(node, ast.Tuple) else [node])
    ]


def _is_listed(node: ast.AST, own: set[str]) -> bool:
    match node:
        case ast.Name(id=name):
            return name in BUILTIN_TYPES or name in _TYPING or name in own
        case ast.Attribute(value=ast.Name(id="dspy"), attr=name):
            return name in TYPES
        case ast.Attribute(value=ast.Name(id="datetime"), attr=name):
            return name in _DATES
        case ast.Attribute(value=ast.Name(id="typing"), attr=name):
            return name in _TYPING
        case ast.Constant(value=None) | ast.Tuple() | ast.BinOp(op=ast.BitOr()):
            return True
        case _:
            return False


def _visible(program: Program) -> Iterator[Found]:
    for node, kind in program.predictors:
        given = program.argument(node, "signature", 0)
        if kind in KINDS and given is not None and literal(given) is None and program.signature(node).open:
            hint = 'write the signature here: text such as "question -> answer", or a class of the file'
            yield Found(given, f"the signature of this {kind} cannot be seen", hint)
    for node, on in program.calls:
        if on == Dspy("Signature") and literal(program.argument(node, "signature", 0)) is None:
            yield Found(
                node, "dspy.Signature is made of something other than text", "write the fields as text"
            )


def _untyped(program: Program) -> Iterator[Found]:
    for one in program.of_kind("signature"):
        for target, annotation, _ in declared(one):
            if annotation is None:
                yield Found(target, f"field `{target.value}` has no type", f"write `{target.value}: str`")


RULES = (
    Rule(
        "annotation",
        "allow-list",
        "Annotations are types on the list; none is text.",
        _annotations,
        example="question: \"__import__('os')\"",
    ),
    Rule(
        "signature-import",
        "allow-list",
        "A signature string names types on the list: DSPy imports what it names.",
        _signature_types,
        example='dspy.Predict("question: antigravity.x -> answer")',
    ),
    Rule(
        "signature-visible",
        "allow-list",
        "A signature is written out, not computed.",
        _visible,
        example="dspy.Predict(fields)",
    ),
    Rule(
        "signature-typed",
        "allow-list",
        "The fields of a signature class have types.",
        _untyped,
        example="answer = dspy.OutputField()",
    ),
)
