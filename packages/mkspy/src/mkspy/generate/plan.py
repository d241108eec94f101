"""What of a task becomes a predictor: its strategy, its signature, its instructions."""

from collections.abc import Iterable, Iterator
from typing import assert_never

from mkspy.spec import (
    Branch,
    Chain,
    Classify,
    Extract,
    Filter,
    Free,
    Map,
    Operation,
    Parallel,
    Reduce,
    Repeat,
    Step,
    Task,
    Tool,
    walk,
)
from mkspy.types import Field

type Asked = Step | Classify | Extract | Free
"""An operation that a language model carries out: one predictor."""

ASKED = (Step, Classify, Extract, Free)


def asked(operation: Operation) -> Iterator[Asked]:
    """Yield every operation in `operation` that a language model carries out, in the order it is written."""
    return (each for _, each in walk(operation) if isinstance(each, ASKED))


def tools(operation: Operation) -> Iterator[Tool]:
    """Yield every host function that a process calls itself."""
    return (each for _, each in walk(operation) if isinstance(each, Tool))


def strategy(operation: Asked) -> str:
    """Return which module asks: the lowest rung that will do.

    A closed choice and a reading are a Predict, what takes thought is a ChainOfThought, what needs tools is a
    ReAct.
    """
    match operation:
        case Step(strategy="auto"):
            return "react" if operation.tools else "chain_of_thought"
        case Step():
            return operation.strategy
        case Classify() | Extract():
            return "predict"
        case Free():
            return "chain_of_thought"
        case _:
            assert_never(operation)


def instructions(operation: Asked, task: Task, *, alone: bool, final: frozenset[str]) -> str:
    """Return the docstring of an operation's signature.

    Args:
        operation: What is asked.
        task: Speaks for an operation that is alone and has nothing to say.
        alone: Whether the model is asked nothing else.
        final: Operations that give what the task gives; they keep to its constraints.
    """
    said = operation.instructions.strip() or (task.description if alone else "") or _default(operation)
    rules = "\n".join(f"- {' '.join(rule.split())}" for rule in task.constraints if rule.strip())
    return f"{said}\n\nConstraints:\n{rules}" if rules and operation.name in final else said


def final(operation: Operation, wanted: Iterable[str]) -> frozenset[str]:
    """Return the names of the operations a language model carries out that give a field in `wanted`."""
    names = frozenset(wanted)
    match operation:
        case Step() | Classify() | Extract() | Free():
            gives = any(field.name in names for field in operation.outputs)
            return frozenset([operation.name] if gives else [])
        case Map():
            names = frozenset(out for out, into in operation.into if into in names)
        case Reduce():
            names = frozenset([operation.carry[0]] if operation.into in names else [])
        case Filter() | Tool():
            return frozenset[str]()
        case Chain() | Parallel() | Branch() | Repeat():
            pass
        case _:
            assert_never(operation)
    return frozenset[str]().union(*(final(child, names) for child in operation.children))


def _default(operation: Asked) -> str:
    given, wanted = _listed(operation.inputs), _listed(operation.outputs)
    match operation:
        case Classify(multiple=True):
            return f"Choose every {wanted} that fits {given}."
        case Classify():
            return f"Choose the {wanted} that fits {given}."
        case Extract(many=True):
            return f"Read every {wanted} out of {given}."
        case Extract():
            return f"Read the {wanted} out of {given}."
        case Step() | Free():
            return f"Given {given}, write {wanted}." if given else f"Write {wanted}."
        case _:
            assert_never(operation)


def _listed(fields: Iterable[Field]) -> str:
    *rest, last = [f"`{field.name}`" for field in fields] or [""]
    return f"{', '.join(rest)} and {last}" if rest else last
