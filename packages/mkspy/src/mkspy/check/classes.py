"""The allow-list, classes: a candidate's classes are modules, signatures, records and enums."""

from collections.abc import Iterator

import libcst as cst

from mkspy.check.known import MODULE
from mkspy.check.program import Program
from mkspy.check.report import Found, Rule
from mkspy.check.tree import Node, dotted, literal
from mkspy.check.values import Class, ClassObject, Dspy, External

_ROOTS = {"dspy.Module", "dspy.Signature", "pydantic.BaseModel", "enum.Enum", "enum.IntEnum", "enum.StrEnum"}
_KINDS = {"module", "signature", "record", "enum"}


def _bases(program: Program) -> Iterator[Found]:
    for one in program.classes.values():
        node = one.node
        bases = [arg for arg in node.bases if not arg.keyword and not arg.star]
        plain = [arg for arg in bases if not (one.kind == "enum" and dotted(arg.value) in ("str", "int"))]
        fine = len(plain) == 1 and _is_root(program, plain[0].value) and one.kind in _KINDS
        if not fine or len(bases) != len(node.bases) or node.keywords:
            hint = "derive from dspy.Module, dspy.Signature, pydantic.BaseModel, Enum, or such a class here"
            yield Found(node, f"class `{one.name}` does not have exactly one base from the list", hint)
        if node.decorators or program.tree.scopes[node].kind != "module":
            yield Found(
                node,
                f"class `{one.name}` is decorated or nested",
                "define it plainly, at the top of the file",
            )


def _is_root(program: Program, base: Node) -> bool:
    match program.value(base):
        case Dspy("Module" | "Signature"):
            return True
        case External(path):
            return path in _ROOTS
        case ClassObject(one):
            return one.kind in _KINDS - {"enum"}
        case _:
            return False


def _bodies(program: Program) -> Iterator[Found]:
    for one in program.classes.values():
        for line in one.node.body.body:
            for statement in line.body if isinstance(line, cst.SimpleStatementLine) else [line]:
                if not _belongs(program, one, statement):
                    hint = "modules hold methods, signatures and records their fields, enums values"
                    yield Found(statement, f"this does not belong into the {_said(one)} `{one.name}`", hint)


def _said(one: Class) -> str:
    return one.kind if one.kind in _KINDS else "class"


def _belongs(program: Program, one: Class, statement: Node) -> bool:
    match statement:
        case cst.Pass() | cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString() | cst.Ellipsis()):
            return True
        case cst.FunctionDef():
            return one.kind == "module"
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name())], value=value):
            return _is_value(program, one, value)
        case cst.AnnAssign(target=cst.Name(), value=value):
            return value is None or _is_value(program, one, value)
        case _:
            return False


def _is_value(program: Program, one: Class, value: Node) -> bool:
    made = program.value(value.func) if isinstance(value, cst.Call) else None
    if one.kind == "signature":
        return made in (Dspy("InputField"), Dspy("OutputField"))
    if isinstance(value, cst.Attribute):
        on = program.value(value.value)
        return isinstance(on, ClassObject) and on.value.kind == "enum"
    return made == External("pydantic.Field") or _is_data(program, value)


def _is_data(program: Program, value: Node) -> bool:
    """Whether a default is data: a literal, a record of the file made of such, or a list of them."""
    match value:
        case cst.List() | cst.Tuple():
            return all(
                isinstance(one, cst.Element) and _is_data(program, one.value) for one in value.elements
            )
        case cst.Call():
            made = program.value(value.func)
            is_record = isinstance(made, ClassObject) and made.value.kind == "record"
            return is_record and all(one.keyword and _is_data(program, one.value) for one in value.args)
        case _:
            return is_literal(value)


def is_literal(node: Node | None) -> bool:
    """Whether an expression is written-down data: numbers, text, and collections of them."""
    match node:
        case cst.Integer() | cst.Float() | cst.Ellipsis():
            return True
        case cst.SimpleString() | cst.ConcatenatedString():
            return literal(node) is not None
        case cst.Name(value="True" | "False" | "None"):
            return True
        case cst.UnaryOperation(operator=cst.Minus() | cst.Plus(), expression=cst.Integer() | cst.Float()):
            return True
        case cst.List() | cst.Tuple() | cst.Set():
            return all(isinstance(one, cst.Element) and is_literal(one.value) for one in node.elements)
        case cst.Dict():
            plain = [one for one in node.elements if isinstance(one, cst.DictElement)]
            return len(plain) == len(node.elements) and all(
                is_literal(p) for one in plain for p in (one.key, one.value)
            )
        case _:
            return False


def _methods(program: Program) -> Iterator[Found]:
    for node in program.tree.of(cst.FunctionDef):
        name, owner = node.name.value, program.tree.scopes[node].kind == "class"
        if name.startswith("__") and not (owner and name == "__init__"):
            yield Found(
                node, f"`{name}` changes what Python does with an object", "give the method a plain name"
            )
        elif owner and name in MODULE:
            yield Found(node, f"`{name}` replaces a method of dspy.Module", "give the method another name")
        for decorator in node.decorators:
            if dotted(decorator.decorator) != "staticmethod":
                yield Found(
                    decorator, "this decorator is not on the list", "leave it out; `@staticmethod` is allowed"
                )
        if name == "__init__" and node.asynchronous:
            yield Found(node, "`__init__` is asynchronous", "write `def __init__(self)`")


def _defaults(program: Program) -> Iterator[Found]:
    for node in program.tree.of(cst.Param):
        if node.default is not None and any(map(_is_changeable, program.tree.within(node.default))):
            hint = "write None or a tuple, and build the value inside"
            yield Found(node.default, f"the default of `{node.name.value}` is kept between calls", hint)
        elif node.default is not None and not is_literal(node.default):
            yield Found(
                node.default, f"the default of `{node.name.value}` is computed", "write a plain value"
            )


def _is_changeable(node: Node) -> bool:
    return isinstance(node, cst.List | cst.Dict | cst.Set)


RULES = (
    Rule(
        "class-base",
        "allow-list",
        "A class derives from one module, signature, record or enum.",
        _bases,
        example="class Meta(type): ...",
    ),
    Rule(
        "class-body",
        "allow-list",
        "A class holds what its kind holds.",
        _bodies,
        example="class Plan(BaseModel):\n    import os",
    ),
    Rule(
        "method",
        "allow-list",
        "Methods have plain names and no decorator but `@staticmethod`.",
        _methods,
        example="def __reduce__(self): ...",
    ),
    Rule(
        "default",
        "allow-list",
        "Defaults of parameters are plain values.",
        _defaults,
        example="def forward(self, question=open('/etc/passwd')): ...",
    ),
)
