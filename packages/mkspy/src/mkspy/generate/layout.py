"""Expressions in lines of limited width, broken where ruff and black would break them.

A formatter keeps a bracket open that ends in a comma. So whatever is too long is opened, its outermost
bracket first, with one element a line and a comma after the last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import libcst as cst

from mkspy.generate.text import WIDTH, columns, pieces

INDENT = 4
_NOWHERE = cst.Module([])


@dataclass(frozen=True)
class Room:
    """Where an expression begins.

    Attributes:
        block: Columns its statement is indented by.
        column: Column of its first character.
        after: Columns taken by what follows it on its last line.
        depth: Brackets that are open around it.
        parentheses: Whether parentheses may be put around it; not in an annotation.
    """

    block: int
    column: int
    after: int = 0
    depth: int = 0
    parentheses: bool = True

    @property
    def inside(self) -> "Room":
        """The room of an element, a line to itself and a comma after it."""
        column = self.block + INDENT * (self.depth + 1)
        return replace(self, column=column, after=1, depth=self.depth + 1)

    def behind(self, text: str) -> "Room":
        return replace(self, column=self.column + columns(text))

    def before(self, text: str) -> "Room":
        return replace(self, after=self.after + columns(text))

    def holds(self, node: cst.CSTNode) -> bool:
        return self.column + columns(code(node)) + self.after <= WIDTH

    @property
    def here(self) -> cst.ParenthesizedWhitespace:
        """A line break, and on to this depth."""
        margin = cst.SimpleWhitespace(" " * INDENT * self.depth)
        return cst.ParenthesizedWhitespace(indent=True, last_line=margin)


def code(node: cst.CSTNode) -> str:
    """Return a node's text."""
    return _NOWHERE.code_for_node(node)


def fit[Node: cst.BaseExpression](node: Node, room: Room) -> Node | cst.BaseExpression:
    """Return `node` on one line when there is room for it, else broken into several."""
    breaks = _BREAKS.get(type(node))
    return node if breaks is None or room.holds(node) else breaks(node, room)


def opened(node: cst.BaseExpression, room: Room) -> cst.BaseExpression:
    """Return `node` broken, whether there is room for it or not."""
    return _BREAKS[type(node)](node, room)


# --- statements ---------------------------------------------------------------------------------------------


def line(statement: cst.BaseSmallStatement) -> cst.SimpleStatementLine:
    return cst.SimpleStatementLine([statement])


def assigned(
    target: cst.BaseAssignTargetExpression, value: cst.BaseExpression, *, block: int
) -> cst.SimpleStatementLine:
    """Return `target = value`."""
    room = Room(block, block).behind(f"{code(target)} = ")
    return line(cst.Assign([cst.AssignTarget(target)], enclosed(value, room)))


def enclosed(value: cst.BaseExpression, room: Room) -> cst.BaseExpression:
    """Return `value` broken, and in parentheses when the first of its lines is too long even so."""
    fitted = fit(value, room)
    first, *rest = code(fitted).split("\n")
    if room.column + columns(first) + (0 if rest else room.after) <= WIDTH:
        return fitted
    inner = replace(room.inside, after=0)
    return fit(value, inner).with_changes(
        lpar=[cst.LeftParen(whitespace_after=inner.here)], rpar=[cst.RightParen(whitespace_before=room.here)]
    )


def declared(
    target: cst.Name, annotation: cst.BaseExpression, value: cst.BaseExpression | None = None
) -> cst.SimpleStatementLine:
    """Return `target: annotation` or `target: annotation = value`, in the body of a class."""
    start = Room(INDENT, INDENT).behind(f"{target.value}: ")
    equals = " = " if value else ""
    if not start.before(f"{equals}(" if value else "").holds(annotation):
        annotation = _annotation(annotation, start)
    broken = "\n" in code(annotation)
    room = (Room(INDENT, INDENT).behind("]") if broken else start.behind(code(annotation))).behind(equals)
    return line(cst.AnnAssign(target, cst.Annotation(annotation), enclosed(value, room) if value else None))


def returned(value: cst.BaseExpression, *, block: int) -> cst.SimpleStatementLine:
    return line(cst.Return(fit(value, Room(block, block).behind("return "))))


def called(value: cst.BaseExpression, *, block: int) -> cst.SimpleStatementLine:
    """Return a statement that calls something for its effect."""
    return line(cst.Expr(fit(value, Room(block, block))))


def fits(statement: cst.SimpleStatementLine, *, block: int) -> bool:
    """Tell whether a statement is on one line, and ends within the width."""
    text = code(statement).rstrip("\n")
    return "\n" not in text and block + columns(text) <= WIDTH


def _annotation(node: cst.BaseExpression, room: Room) -> cst.BaseExpression:
    """Break an annotation, which is too long. Parentheses may be around one, and not in it."""
    room = replace(room, parentheses=False)
    if not isinstance(node, cst.BinaryOperation):
        return opened(node, room) if type(node) in _BREAKS else node
    inner = replace(room.inside, after=0)
    return fit(node, inner).with_changes(
        lpar=[cst.LeftParen(whitespace_after=inner.here)], rpar=[cst.RightParen(whitespace_before=room.here)]
    )


# --- how each kind of expression is broken ------------------------------------------------------------------


def listed[Node: cst.CSTNode](elements: Sequence[Node], room: Room) -> list[Node]:
    """Give each element of a call, a list or the like a line of its own, and each a comma."""
    inner = room.inside
    commas = [*([inner.here] * (len(elements) - 1)), room.here]
    return [
        element.with_changes(comma=cst.Comma(whitespace_after=space))
        for element, space in zip(elements, commas, strict=True)
    ]


def _call(node: cst.Call, room: Room) -> cst.BaseExpression:
    if not node.args:
        return node
    inner = room.inside
    args = [
        arg.with_changes(value=fit(arg.value, inner.behind(f"{arg.keyword.value}=" if arg.keyword else "")))
        for arg in node.args
    ]
    return node.with_changes(args=listed(args, room), whitespace_before_args=inner.here)


def _subscript(node: cst.Subscript, room: Room) -> cst.BaseExpression:
    inner = replace(room.inside, parentheses=False)
    elements = [_element(element, inner, alone=len(node.slice) == 1) for element in node.slice]
    if len(elements) > 1:
        elements = listed(elements, room)
        return node.with_changes(slice=elements, lbracket=cst.LeftSquareBracket(whitespace_after=inner.here))
    return node.with_changes(
        slice=elements,
        lbracket=cst.LeftSquareBracket(whitespace_after=inner.here),
        rbracket=cst.RightSquareBracket(whitespace_before=room.here),
    )


def _element(node: cst.SubscriptElement, room: Room, *, alone: bool) -> cst.SubscriptElement:
    index = cast("cst.Index", node.slice)
    return node.with_changes(slice=cst.Index(fit(index.value, replace(room, after=0 if alone else 1))))


def _sequence(node: cst.List | cst.Tuple, room: Room) -> cst.BaseExpression:
    inner = room.inside
    elements = [element.with_changes(value=fit(element.value, inner)) for element in node.elements]
    if isinstance(node, cst.Tuple):
        return node.with_changes(
            elements=listed(elements, room), lpar=[cst.LeftParen(whitespace_after=inner.here)]
        )
    bracket = cst.LeftSquareBracket(whitespace_after=inner.here)
    return node.with_changes(elements=listed(elements, room), lbracket=bracket)


def _dict(node: cst.Dict, room: Room) -> cst.BaseExpression:
    inner = room.inside
    given = cast("Sequence[cst.DictElement]", node.elements)
    elements = [one.with_changes(value=fit(one.value, inner.behind(f"{code(one.key)}: "))) for one in given]
    brace = cst.LeftCurlyBrace(whitespace_after=inner.here)
    return node.with_changes(elements=listed(elements, room), lbrace=brace)


def _comprehension(node: cst.ListComp, room: Room) -> cst.BaseExpression:
    """Break after the bracket; when that is not enough, before `for` and `if` too."""
    inner = replace(room.inside, after=0)
    opened = node.with_changes(
        lbracket=cst.LeftSquareBracket(whitespace_after=inner.here),
        rbracket=cst.RightSquareBracket(whitespace_before=room.here),
    )
    if inner.column + columns(code(node)) - len("[]") <= WIDTH:
        return opened
    ifs = [one.with_changes(whitespace_before=inner.here) for one in node.for_in.ifs]
    return opened.with_changes(
        elt=fit(node.elt, inner), for_in=node.for_in.with_changes(whitespace_before=inner.here, ifs=ifs)
    )


def _string(node: cst.SimpleString, room: Room) -> cst.BaseExpression:
    """Write a long string as several, one below the other."""
    inner = room.inside if room.parentheses else room
    after = 0 if room.parentheses else room.after
    parts = list(pieces(cast("str", node.evaluated_value), WIDTH - inner.column - after))
    joined: cst.BaseExpression = parts[-1]
    for part in reversed(parts[:-1]):
        joined = cst.ConcatenatedString(part, cast("cst.SimpleString", joined), whitespace_between=inner.here)
    if not room.parentheses:
        return joined
    return joined.with_changes(
        lpar=[cst.LeftParen(whitespace_after=inner.here)], rpar=[cst.RightParen(whitespace_before=room.here)]
    )


def _attribute(node: cst.Attribute, room: Room) -> cst.BaseExpression:
    return node.with_changes(value=fit(node.value, room.before(f".{node.attr.value}")))


def _await(node: cst.Await, room: Room) -> cst.BaseExpression:
    return node.with_changes(expression=fit(node.expression, room.behind("await ")))


def _union(node: cst.BinaryOperation, room: Room) -> cst.BaseExpression:
    """Break `A | B` before each bar."""
    operator = cst.BitOr(whitespace_before=room.here)
    left = fit(node.left, replace(room, after=0))
    return node.with_changes(left=left, operator=operator, right=fit(node.right, room.behind("| ")))


_BREAKS: dict[type[cst.BaseExpression], Callable[[Any, Room], cst.BaseExpression]] = {
    cst.Attribute: _attribute,
    cst.Await: _await,
    cst.BinaryOperation: _union,
    cst.Call: _call,
    cst.Dict: _dict,
    cst.List: _sequence,
    cst.ListComp: _comprehension,
    cst.SimpleString: _string,
    cst.Subscript: _subscript,
    cst.Tuple: _sequence,
}
