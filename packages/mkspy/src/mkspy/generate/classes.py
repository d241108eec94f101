"""Classes of a generated file: pydantic models, signatures, modules."""

from collections.abc import Iterator, Sequence

import libcst as cst
import libcst.matchers as m

from mkspy.generate.annotations import Annotations, plain, scalar
from mkspy.generate.layout import INDENT, Room, assigned, called, code, declared, fit, listed
from mkspy.generate.syntax import attribute, block, call, dotted, name, parameter
from mkspy.generate.text import WIDTH, columns, docstring, literal
from mkspy.types import AUDIO, FILE, REQUIRED, Field, Record, Type, can_be_missing, parts

_BODY = 2 * INDENT
"""Columns that a method's statements are indented by."""


def model(record: Record, class_name: str, annotations: Annotations) -> cst.ClassDef:
    """Return the pydantic model of a record."""
    return _class(
        class_name,
        "BaseModel",
        [_model_field(field, annotations) for field in record.fields],
        documentation=record.description,
    )


def signature(
    class_name: str,
    instructions: str,
    inputs: Sequence[Field],
    outputs: Sequence[Field],
    annotations: Annotations,
) -> cst.ClassDef:
    """Return a `dspy.Signature`, whose docstring is its instructions."""
    kinds = ((inputs, "dspy.InputField"), (outputs, "dspy.OutputField"))
    lines = [_signature_field(field, kind, annotations) for fields, kind in kinds for field in fields]
    return _class(class_name, "dspy.Signature", lines, documentation=instructions)


def module(class_name: str, methods: Sequence[cst.FunctionDef], *, documentation: str = "") -> cst.ClassDef:
    """Return a `dspy.Module`."""
    first, *rest = methods
    spaced = [method.with_changes(leading_lines=[_blank()]) for method in rest]
    return _class(class_name, "dspy.Module", [first, *spaced], documentation=documentation)


def initializer(attributes: dict[str, cst.BaseExpression]) -> cst.FunctionDef:
    """Return the `__init__` that sets each attribute to its value."""
    start = called(call(attribute(call(name("super")), "__init__")), block=_BODY)
    rest = [assigned(attribute(name("self"), each), value, block=_BODY) for each, value in attributes.items()]
    parameters = cst.Parameters([cst.Param(name("self"))])
    return cst.FunctionDef(
        name("__init__"), parameters, block([start, *rest]), returns=cst.Annotation(name("None"))
    )


def method(
    method_name: str, inputs: Sequence[Field], body: Sequence[cst.BaseStatement], annotations: Annotations
) -> cst.FunctionDef:
    """Return `forward` or `aforward`. Inputs that can be left out come last, as Python wants them."""
    fields = sorted(inputs, key=_optional)
    parameters = [cst.Param(name("self")), *(_parameter(field, annotations) for field in fields)]
    given = [*_defaults(fields, annotations), *body]
    made = cst.FunctionDef(
        name(method_name),
        cst.Parameters(parameters),
        block(given),
        returns=cst.Annotation(dotted("dspy.Prediction")),
        asynchronous=cst.Asynchronous() if method_name == "aforward" else None,
    )
    return made if _one_line(made) else _opened(made)


# --- fields -------------------------------------------------------------------------------------------------


def _signature_field(field: Field, kind: str, annotations: Annotations) -> cst.SimpleStatementLine:
    said = {"desc": literal(field.description)} if field.description else {}
    value = call(dotted(kind), **said)
    return declared(name(field.name), annotations.of(field.type), value)


def _model_field(field: Field, annotations: Annotations) -> cst.SimpleStatementLine:
    target, annotation = name(field.name), annotations.of(field.type)
    said: dict[str, cst.BaseExpression] = {}
    if field.default is not REQUIRED and _computed(field, annotations) and _read_back(field.type):
        said = {"default": scalar(plain(field.default, field.type)), "validate_default": name("True")}
    elif field.default is not REQUIRED:
        said["default"] = annotations.value(field.default, field.type)
    elif can_be_missing(field.type):
        said["default"] = name("None")
    if field.description or len(said) > 1:
        about = {"description": literal(field.description)} if field.description else {}
        return declared(target, annotation, call(name("Field"), **said, **about))
    return declared(target, annotation, said.get("default"))


def _read_back(type: Type) -> bool:
    """Tell whether pydantic makes every value of `type` out of what JSON has."""
    return type not in (AUDIO, FILE) and all(map(_read_back, parts(type)))


def _optional(field: Field) -> bool:
    return field.default is not REQUIRED or can_be_missing(field.type)


def _parameter(field: Field, annotations: Annotations) -> cst.Param:
    annotation = annotations.of(field.type)
    if not _optional(field):
        return parameter(field.name, annotation, None)
    if field.default is REQUIRED or not _anew(field, annotations):
        default = None if field.default is REQUIRED else field.default
        return parameter(field.name, annotation, annotations.value(default, field.type))
    wide = (
        annotation
        if can_be_missing(field.type)
        else cst.BinaryOperation(annotation, cst.BitOr(), name("None"))
    )
    return parameter(field.name, wide, name("None"))


def _computed(field: Field, annotations: Annotations) -> bool:
    """Tell whether making the default takes a call: of a date, of a record."""
    return bool(m.findall(annotations.value(field.default, field.type), m.Call()))


def _anew(field: Field, annotations: Annotations) -> bool:
    """Tell whether a default has to be made anew for each call, as a list has to."""
    return _computed(field, annotations) or not isinstance(field.default, bool | int | float | str | None)


def _defaults(fields: Sequence[Field], annotations: Annotations) -> Iterator[cst.BaseStatement]:
    """Yield `if name is None:` and what it is then, for each default that is made anew."""
    for field in fields:
        if field.default is not REQUIRED and field.default is not None and _anew(field, annotations):
            value = annotations.value(field.default, field.type)
            target = name(field.name)
            missing = cst.Comparison(target, [cst.ComparisonTarget(cst.Is(), name("None"))])
            yield cst.If(missing, block([assigned(target, value, block=_BODY + INDENT)]))


# --- layout -------------------------------------------------------------------------------------------------


def _class(
    class_name: str,
    base: str,
    body: Sequence[cst.SimpleStatementLine | cst.FunctionDef],
    *,
    documentation: str = "",
) -> cst.ClassDef:
    documented = docstring(documentation, indent=INDENT)
    if documented and body:
        body = [body[0].with_changes(leading_lines=[_blank()]), *body[1:]]
    return cst.ClassDef(
        name(class_name),
        block([*documented, *body]),
        bases=[cst.Arg(dotted(base))],
        leading_lines=[_blank(), _blank()],
        lpar=cst.LeftParen(),
        rpar=cst.RightParen(),
    )


def _blank() -> cst.EmptyLine:
    return cst.EmptyLine(indent=False)


def _one_line(made: cst.FunctionDef) -> bool:
    head = code(made.with_changes(body=cst.SimpleStatementSuite([cst.Pass()]), leading_lines=[]))
    return INDENT + columns(head.rstrip().removesuffix(" pass")) <= WIDTH


def _opened(made: cst.FunctionDef) -> cst.FunctionDef:
    """Give each parameter a line of its own."""
    room = Room(INDENT, INDENT)
    inner = room.inside
    opened = listed([_fitted(one, inner) for one in made.params.params], room)
    return made.with_changes(
        params=made.params.with_changes(params=opened), whitespace_before_params=inner.here
    )


def _fitted(one: cst.Param, room: Room) -> cst.Param:
    if one.annotation is None:
        return one
    default = f" = {code(one.default)}" if one.default else ""
    annotation = fit(one.annotation.annotation, room.behind(f"{one.name.value}: ").before(default))
    return one.with_changes(annotation=cst.Annotation(annotation))
