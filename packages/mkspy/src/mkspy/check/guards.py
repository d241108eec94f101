"""Guards: places where a program asks first, or expects to fail, so that nothing there is a mistake."""

from typing import TYPE_CHECKING

import libcst as cst

from mkspy.check.known import words
from mkspy.check.tree import Node, dotted, literal

if TYPE_CHECKING:
    from mkspy.check.program import Program

_EXPECTS = words("raises assertRaises assertRaisesRegex suppress warns assertWarns")
_CATCHES = words("AttributeError KeyError NameError Exception BaseException LookupError")
_ASKS = words("hasattr getattr get setdefault")
_VERSIONS = words("hasattr __version__ version Version find_spec")


def expects_failure(program: "Program", node: Node) -> bool:
    """Whether a node is inside of `with pytest.raises(...)` or the like."""
    return any(_is_expecting(one) for one in program.tree.around(node) if isinstance(one, cst.With))


def _is_expecting(node: cst.With) -> bool:
    calls = [item.item for item in node.items]
    return any(isinstance(one, cst.Call) and dotted(one.func).split(".")[-1] in _EXPECTS for one in calls)


def is_asked_for(program: "Program", node: Node, name: str) -> bool:
    """Whether the code around a read asks if the name is there, or catches that it is not."""
    outer: Node = program.tree.module
    inner = node
    for one in program.tree.around(node):
        if isinstance(one, cst.Try) and inner is one.body and any(map(_catches, one.handlers)):
            return True
        if isinstance(one, cst.FunctionDef):
            outer = one
            break
        inner = one
    asked = (each for each in program.tree.of(cst.SimpleString) if literal(each) == name)
    return any(_asks(program, each) and outer in program.tree.around(each) for each in asked)


def _catches(handler: cst.ExceptHandler) -> bool:
    caught = handler.type.elements if isinstance(handler.type, cst.Tuple) else [handler.type]
    names = [dotted(one.value if isinstance(one, cst.Element) else one) for one in caught]
    return handler.type is None or not _CATCHES.isdisjoint(names)


def _asks(program: "Program", text: Node) -> bool:
    """Whether a text is what `hasattr`, `.get` or `in` asks for."""
    holder = program.tree.parents.get(text)
    if isinstance(holder, cst.Comparison):
        return any(isinstance(one.operator, cst.In | cst.NotIn) for one in holder.comparisons)
    call = program.tree.parents.get(holder) if isinstance(holder, cst.Arg) else None
    return isinstance(call, cst.Call) and _last(call.func) in _ASKS


def _last(func: Node) -> str:
    return func.attr.value if isinstance(func, cst.Attribute) else dotted(func)


def depends_on_version(program: "Program", node: Node) -> bool:
    """Whether a node is only reached under a test of what the installed version has."""
    tests = (one.test for one in program.tree.around(node) if isinstance(one, cst.If | cst.IfExp))
    return any(
        (isinstance(each, cst.Name) and each.value in _VERSIONS)
        or (isinstance(each, cst.Attribute) and each.attr.value in _VERSIONS)
        for test in tests for each in program.tree.within(test)
    )  # fmt: skip
