"""Opened predictions: those that are handed to somebody who may add fields to them under any name."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import libcst as cst

from mkspy.check.tree import Node, literal
from mkspy.check.values import External, Function, Result

if TYPE_CHECKING:
    from mkspy.check.program import Program


def opened(program: "Program") -> set[int]:
    """Return the bindings, by `id` of their nodes, of predictions that may have fields nobody can see."""
    filling: set[cst.FunctionDef | cst.Lambda] = set()
    found: set[int] = set()
    for base in _filled(program):
        bindings = _bindings(program, base)
        found.update(map(id, bindings))
        filling.update(
            one
            for binding in bindings
            if isinstance(binding, cst.Param)
            and isinstance(one := program.tree.parents[binding], cst.FunctionDef | cst.Lambda)
        )
    for node, on in program.calls:
        foreign = isinstance(on, External) and not on.path.startswith(_HARMLESS)
        if foreign or (isinstance(on, Function) and on.node in filling):
            for arg in node.args:
                if isinstance(program.value(arg.value), Result):
                    found.update(map(id, _bindings(program, arg.value)))
    return found


_HARMLESS = ("dspy", "typing", "json", "rich", "pprint", "logging")


def _filled(program: "Program") -> Iterator[Node]:
    """Yield what something is set on under a name that is computed."""
    for node in program.tree.of(cst.Subscript):
        index = node.slice[0].slice
        if node in program.tree.stored and isinstance(index, cst.Index) and literal(index.value) is None:
            yield node.value
    for node in program.tree.of(cst.Call):
        match node:
            case cst.Call(func=cst.Name(value="setattr"), args=[first, name, *_]):
                yield from [first.value] if literal(name.value) is None else []
            case cst.Call(func=cst.Attribute(value=base, attr=cst.Name(value="__setitem__"))):
                yield base
            case cst.Call(func=cst.Attribute(value=cst.Attribute(value=base, attr=cst.Name(value="_store")))):
                yield base
            case _:
                pass


def _bindings(program: "Program", node: Node) -> list[Node]:
    found = program.scope(node).find(node.value) if isinstance(node, cst.Name) else None
    return [one.node for one in found[1]] if found else []
