"""Resources, amounts: powers, ranges, repetition and growth that need more time or memory than there is."""

from collections.abc import Iterator

import libcst as cst

from mkspy.check.growth import growing
from mkspy.check.known import words
from mkspy.check.origins import origins
from mkspy.check.program import Program
from mkspy.check.report import Found, Rule
from mkspy.check.sizes import MAX_TURNS, Size
from mkspy.check.tree import Node, dotted, number

MAX_POWER = 64
MAX_DIGITS = 15
MAX_WIDTH = 4
_BOUND = "bound it by a number that is written down, such as `min(count, 10)`, or by the length of an input"


def _numbers(program: Program) -> Iterator[Found]:
    for node in program.tree.of(cst.BinaryOperation, cst.AugAssign):
        match node.operator:
            case cst.Power() | cst.PowerAssign():
                yield from _power(program, node)
            case cst.LeftShift() | cst.LeftShiftAssign():
                yield Found(node, "a number is shifted left", "multiply")
            case cst.Multiply() | cst.MultiplyAssign():
                yield from _repeated(program, node)
            case cst.Modulo() | cst.ModuloAssign():
                left = node.left if isinstance(node, cst.BinaryOperation) else node.target
                if program.kinds.of(left) == "text":
                    yield Found(node, "text is formatted by `%`", "write an f-string")
            case _:
                pass
    for node in program.tree.of(cst.Integer):
        if len(node.value) > MAX_DIGITS:
            yield Found(node, f"a number of {len(node.value)} digits", "compute with smaller ones")
    for node in program.tree.of(cst.Call):
        if dotted(node.func) == "range":
            yield from _range(program, node)
        elif dotted(node.func) == "round" and len(node.args) == 2:
            digits = program.sizes.of(node.args[1].value)
            if digits is None or digits.degree or digits.factor > MAX_DIGITS:
                yield Found(
                    node, "a number is rounded to many digits, or to a number nobody can see", "write it"
                )
    for node in program.tree.of(cst.Name):
        if (
            node.value == "range"
            and program.scope(node).find("range") is None
            and not _is_called(program, node)
        ):
            yield Found(
                node, "`range` is handed on, so that nothing limits it", "write `range(...)` in the loop"
            )
    for node in program.tree.of(cst.FormattedStringExpression):
        yield from _width(node)
    yield from growing(program)


def _is_called(program: Program, node: Node) -> bool:
    parent = program.tree.parents.get(node)
    return isinstance(parent, cst.Call) and parent.func is node


def _power(program: Program, node: cst.BinaryOperation | cst.AugAssign) -> Iterator[Found]:
    left, right = _sides(node)
    exponent = number(right)
    large = exponent is None or abs(exponent) > MAX_POWER
    if large and not _is_root(node) and not any(_is_fraction(program, one) for one in (left, right)):
        yield Found(node, "a power whose exponent is large or not written down", f"at most {MAX_POWER}")


def _sides(node: cst.BinaryOperation | cst.AugAssign) -> tuple[Node, Node]:
    return (node.left, node.right) if isinstance(node, cst.BinaryOperation) else (node.target, node.value)


def _is_fraction(program: Program, node: Node) -> bool:
    """Whether a number has a point: a power of it is soon an error, and never long."""
    return all(_is_made_fraction(one.node) for one in origins(program, node))


def _is_made_fraction(node: Node) -> bool:
    match node:
        case cst.Float() | cst.BinaryOperation(operator=cst.Divide()):
            return True
        case cst.BinaryOperation(left=left, right=right):
            return _is_made_fraction(left) or _is_made_fraction(right)
        case cst.Call(func=func):
            return dotted(func).rpartition(".")[2] in _FRACTIONS
        case _:
            return False


_FRACTIONS = words("exp float fmean log log10 log2 sqrt stdev")


def _is_root(node: cst.BinaryOperation | cst.AugAssign) -> bool:
    return (
        isinstance(node, cst.BinaryOperation)
        and isinstance(node.right, cst.Float)
        and len(node.right.value) < 5
    )


def _range(program: Program, node: cst.Call) -> Iterator[Found]:
    size = program.sizes.range(node)
    if size is None:
        yield Found(node, "nothing in sight limits this range", _BOUND)
    elif not size.is_small:
        yield Found(
            node, f"this range has {_said(size)}", f"at most {MAX_TURNS:,} turns, or a pass over an input"
        )


def _said(size: Size) -> str:
    many = f"{size.factor:,} turns" if size.factor > 1 or not size.degree else "turns"
    return many if not size.degree else f"{many} times the length of an input, {size.degree} times over"


def _repeated(program: Program, node: cst.BinaryOperation | cst.AugAssign) -> Iterator[Found]:
    sides = _sides(node)
    kinds = [program.kinds.of(one) for one in sides]
    if not {"text", "list"}.isdisjoint(kinds):
        sequence, times = sides if kinds[0] in ("text", "list") else sides[::-1]
        size = program.sizes.of(times)
        if size is None:
            yield Found(node, "nothing in sight limits how often this is repeated", _BOUND)
        elif (
            not size.is_small
            or _is_repeated_inside(program, sequence)
            or (size.degree and _shares(program, sequence, times))
        ):
            hint = f"at most {MAX_TURNS:,} times, and not by its own length"
            yield Found(node, "something is repeated a large number of times", hint)
    elif any((number(one) or 0) > 10**9 for one in sides):
        yield Found(node, "a factor above a thousand million", "compute with smaller numbers")


def _is_repeated_inside(program: Program, node: Node) -> bool:
    """Whether what is repeated is, or holds, a repetition, which multiplies the two."""
    return any(
        isinstance(one, cst.BinaryOperation) and isinstance(one.operator, cst.Multiply)
        and program.kinds.of(one) in ("text", "list")
        for one in program.tree.within(node)
    )  # fmt: skip


def _shares(program: Program, left: Node, right: Node) -> bool:
    """Whether two expressions are made of the same thing."""
    of_left, of_right = (
        {id(each.node) for inner in program.tree.within(one) if isinstance(inner, cst.Name | cst.Attribute)
         for each in origins(program, inner) if not isinstance(each.node, cst.Name)}
        for one in (left, right)
    )  # fmt: skip
    return not of_left.isdisjoint(of_right)


def _width(node: cst.FormattedStringExpression) -> Iterator[Found]:
    for part in node.format_spec or ():
        written = part.value if isinstance(part, cst.FormattedStringText) else ""
        if isinstance(part, cst.FormattedStringExpression) or sum(map(str.isdigit, written)) > MAX_WIDTH:
            yield Found(node, "text is padded to a large or computed width", "write a small width")


RULES = (
    Rule(
        "large-number",
        "resources",
        "Powers, ranges, repetitions and widths are small, and nothing grows by itself.",
        _numbers,
        example="9 ** 9 ** 9",
    ),
)
