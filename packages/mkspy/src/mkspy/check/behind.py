"""What stands behind an expression that has no one value: each predictor, or each result, that it may be."""

from collections import deque
from typing import TYPE_CHECKING

import libcst as cst

from mkspy.check.evaluation import answered
from mkspy.check.origins import origins
from mkspy.check.tree import Node
from mkspy.check.values import Bound, Instance, Predictor, Result, Value

if TYPE_CHECKING:
    from mkspy.check.program import Program


def predictors(program: "Program", node: Node) -> list[Predictor]:
    """Return all predictors an expression may be, none if it may be anything else."""
    if isinstance(node, cst.Attribute) and node.attr.value == "acall":
        node = node.value
    if isinstance(node, cst.Attribute) and _is_of_collection(program, node):
        return []
    made = [program.value(one.node) if not one.depth else None for one in origins(program, node)]
    found = [one for one in made if isinstance(one, Predictor) and not one.signature.open]
    return found if len(found) == len(made) else []


def _is_of_collection(program: "Program", node: cst.Attribute) -> bool:
    """Whether a method is one of a list or dict, whose items are then not what is called."""
    return node.attr.value in _OF_COLLECTIONS and not isinstance(program.value(node.value), Instance)


_OF_COLLECTIONS = {name for kind in (dict, list, set, tuple, deque) for name in dir(kind)}


def results(program: "Program", node: Node) -> list[Result]:
    """Return all results an expression may be, none if it may be anything else."""
    found: list[Result] = []
    for one in origins(program, node):
        made = [] if one.depth else list(map(_as_result, _answers(program, one.node)))
        if not made or None in made:
            return []
        found += [each for each in made if each]
    return found


def _as_result(value: Value) -> Result | None:
    return value if isinstance(value, Result) else None


def _answers(program: "Program", node: Node) -> list[Value]:
    value = program.value(node)
    if value is not None or not isinstance(node, cst.Call):
        return [value]
    on = program.value(node.func)
    called = [on.value] if isinstance(on, Bound) else predictors(program, node.func)
    return [answered(program, one) for one in called if isinstance(one, Predictor)]
