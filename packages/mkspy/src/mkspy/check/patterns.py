"""The allow-list, patterns: those of `re` that take more than a pass over a text, as its parser sees them."""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from itertools import pairwise
from typing import cast

import libcst as cst

from mkspy.check.origins import origins
from mkspy.check.program import Program
from mkspy.check.report import Found, Rule
from mkspy.check.tree import Node, literal
from mkspy.check.values import External

_MAX_LENGTH = 1_000
_MAX_REPEATS = 12
_MAX_WIDE = 3

type Step = tuple[object, object]

_parse = cast("Callable[[str], Sequence[Step]]", import_module("re._parser").parse)


@lru_cache(maxsize=64)
def _slow_pattern(pattern: str) -> str:
    """Return what makes a pattern slow, or no pattern at all; "" when a pass over the text is enough."""
    if len(pattern) > _MAX_LENGTH:
        return "is too long to be understood"
    try:
        with warnings.catch_warnings(action="ignore"):
            steps = list(_parse(pattern))
    except (re.error, RecursionError, OverflowError, ValueError):
        return "cannot be read"
    return _slow(steps)


def _slow(steps: Sequence[Step]) -> str:
    repeats = list(_repeats(steps))
    if any(str(kind) == "GROUPREF" for kind, _ in _all(steps)):
        return "refers to its own groups"
    if any(_varies(body) for body in repeats):
        return "repeats what may repeat, or be one of several, itself"
    if _touching(steps):
        return "repeats two things one after the other that may take the same letters"
    wide = sum(any(str(kind) == "ANY" for kind, _ in body) for body in repeats)
    if len(repeats) > _MAX_REPEATS or wide > _MAX_WIDE:
        return "repeats too much"
    return ""


def _below(argument: object) -> Iterator[Sequence[Step]]:
    """Yield the sequences of steps inside of a step."""
    if type(argument).__name__ == "SubPattern":
        yield list(cast("Sequence[Step]", argument))
    elif isinstance(argument, tuple | list):
        for one in cast("Sequence[object]", argument):
            yield from _below(one)


def _all(steps: Sequence[Step]) -> Iterator[Step]:
    for kind, argument in steps:
        yield kind, argument
        for inner in _below(argument):
            yield from _all(inner)


def _repeats(steps: Sequence[Step]) -> Iterator[Sequence[Step]]:
    """Yield what is repeated a variable number of times."""
    for kind, argument in _all(steps):
        if str(kind) in _REPEATS:
            least, most, body = cast("tuple[int, int, Sequence[Step]]", argument)
            if most != least:
                yield list(body)


_REPEATS = ("MAX_REPEAT", "MIN_REPEAT")


def _varies(body: Sequence[Step]) -> bool:
    """Whether one turn of a repetition can be read in several ways."""
    inner = list(_all(body))
    kinds = {str(kind) for kind, _ in inner}
    several = "BRANCH" in kinds and len(body) == 1
    return several or any(_is_long(step) for step in inner)


def _is_long(step: Step) -> bool:
    kind, argument = step
    if str(kind) not in _REPEATS:
        return False
    least, most, _ = cast("tuple[int, int, object]", argument)
    return most != least and int(most) > 1


def _touching(steps: Sequence[Step]) -> bool:
    """Whether two repetitions of the same letters stand side by side, here or further inside."""
    row = [step for step in steps if str(step[0]) not in ("AT",)]
    for (kind, first), (other, second) in pairwise(row):
        if str(kind) in _REPEATS and str(other) in _REPEATS:
            left, right = (str(cast("tuple[int, int, object]", one)[2]) for one in (first, second))
            if left == right or ("ANY" in left and "ANY" in right):
                return True
    return any(_touching(inner) for _, argument in steps for inner in _below(argument))


def _patterns(program: Program) -> Iterator[Found]:
    for node, on in program.calls:
        if isinstance(on, External) and on.path.startswith("re.") and on.path != "re.escape":
            yield from _pattern(program, node, program.argument(node, "pattern", 0))
    bound = (one for bindings in program.tree.top.bindings.values() for one in bindings)
    imported = any(one.path.partition(".")[0] == "re" for one in bound)
    for node in program.tree.of(cst.Attribute, cst.Name) if imported else ():
        path = program.path(node)
        function = path.startswith("re.") and path.count(".") == 1 and path.islower()
        parent = program.tree.parents.get(node)
        if function and not (isinstance(parent, cst.Call) and parent.func is node):
            yield Found(
                node, f"`{path}` is handed on, with a pattern nobody can see", "call it where it is needed"
            )


def _pattern(program: Program, node: cst.Call, given: cst.BaseExpression | None) -> Iterator[Found]:
    made = [one.node for one in origins(program, given)] if given is not None else []
    texts = [literal(one) for one in made]
    if not made or None in texts:
        if not (given is not None and _is_compiled(program, made)):
            yield Found(node, "a pattern is computed", "write the pattern as plain text")
        return
    for text in texts:
        slow = _slow_pattern(text or "")
        if slow:
            yield Found(node, f"a pattern {slow}", "write a plainer one")


def _is_compiled(program: Program, made: list[Node]) -> bool:
    return all(isinstance(one, cst.Call) and program.path(one.func) == "re.compile" for one in made)


RULES = (
    Rule(
        "pattern",
        "allow-list",
        "Patterns of `re` are plain text.",
        _patterns,
        example="re.search(pattern, text)",
    ),
)
