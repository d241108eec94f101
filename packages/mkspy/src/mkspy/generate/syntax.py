"""The few LibCST nodes that generated programs are made of. A name is only made here, and checked."""

import keyword
import re
from collections.abc import Iterable, Mapping, Sequence

import libcst as cst

from mkspy.errors import BadSpec, clip

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def name(text: str) -> cst.Name:
    """Return an identifier.

    Raises:
        BadSpec: `text` is none, so it would be code.
    """
    if not _NAME.fullmatch(text) or (keyword.iskeyword(text) and text not in ("None", "True", "False")):
        raise BadSpec(f"{clip(text)} is no identifier; expected letters, digits and underscores")
    return cst.Name(text)


def dotted(text: str) -> cst.Name | cst.Attribute:
    """Return `a.b.c`, each part of it an identifier."""
    first, *rest = text.split(".")
    node: cst.Name | cst.Attribute = name(first)
    for part in rest:
        node = attribute(node, part)
    return node


def attribute(value: cst.BaseExpression, of: str) -> cst.Attribute:
    return cst.Attribute(value, name(of))


def keywords(values: Mapping[str, cst.BaseExpression]) -> list[cst.Arg]:
    """Return the arguments `key=value, ...`."""
    equals = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    return [cst.Arg(value, keyword=name(key), equal=equals) for key, value in values.items()]


def call(
    function: cst.BaseExpression, /, *given: cst.BaseExpression, **named: cst.BaseExpression
) -> cst.Call:
    return cst.Call(function, [*map(cst.Arg, given), *keywords(named)])


def subscript(of: cst.BaseExpression, items: Sequence[cst.BaseExpression]) -> cst.Subscript:
    return cst.Subscript(of, [cst.SubscriptElement(cst.Index(item)) for item in items])


def sequence(items: Iterable[cst.BaseExpression]) -> cst.List:
    return cst.List([cst.Element(item) for item in items])


def comprehension(
    element: cst.BaseExpression,
    each: cst.Name,
    of: cst.BaseExpression,
    condition: cst.BaseExpression | None = None,
) -> cst.ListComp:
    """Return `[element for each in of if condition]`."""
    ifs = [] if condition is None else [cst.CompIf(condition)]
    return cst.ListComp(element, cst.CompFor(each, of, ifs=ifs))


def awaited(value: cst.BaseExpression) -> cst.Await:
    """Return `(await value)`, from which something is read."""
    return cst.Await(value, lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def block(statements: Sequence[cst.BaseStatement]) -> cst.IndentedBlock:
    return cst.IndentedBlock(statements or [cst.SimpleStatementLine([cst.Pass()])])


def parameter(text: str, annotation: cst.BaseExpression, default: cst.BaseExpression | None) -> cst.Param:
    """Return `name: annotation`, or `name: annotation = default`."""
    return cst.Param(
        name(text),
        cst.Annotation(annotation),
        default=default,
        equal=cst.AssignEqual() if default else cst.MaybeSentinel.DEFAULT,
    )


def imported(module: str, names: Iterable[str | tuple[str, str]]) -> cst.ImportFrom:
    """Return `from module import a, b as c`."""
    aliases = [
        cst.ImportAlias(name(one))
        if isinstance(one, str)
        else cst.ImportAlias(name(one[0]), cst.AsName(name(one[1])))
        for one in names
    ]
    return cst.ImportFrom(dotted(module), aliases)
