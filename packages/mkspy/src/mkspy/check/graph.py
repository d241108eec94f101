"""Who calls whom: functions of the file, the calls that reach them, and those that are handed on as values.

A function that is named without being called can be called by whoever gets it. So a name is as good as a
call, and a call of what is not known may reach every function that was handed on.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import libcst as cst

from mkspy.check.known import KINDS
from mkspy.check.lists import METHODS
from mkspy.check.tree import Node
from mkspy.check.values import Bound, ClassObject, Dspy, Function, Instance, Predictor, Runner, Value

if TYPE_CHECKING:
    from mkspy.check.program import Program

type Code = cst.FunctionDef | cst.Lambda


class Graph:
    """The functions of a file as nodes, and what each may call as edges."""

    def __init__(self, program: "Program") -> None:
        self.program = program
        self.callers: dict[Code, list[cst.Call]] = {}
        self.calls: dict[Code | None, list[tuple[cst.Call, Code]]] = {}
        self.edges: dict[Code, set[Code]] = {}
        self.handed: dict[Code, list[Node]] = {}
        self.unknown: list[cst.Call] = []
        for node in program.tree.of(cst.Name, cst.Attribute, cst.Call, cst.Lambda):
            if node not in program.tree.stored and not self._is_link(node):
                self._hand(node)
        for node, on in program.calls:
            for code in self._known(node, on):
                self.callers.setdefault(code, []).append(node)
                self.calls.setdefault(self.around(node), []).append((node, code))
                self._add(node, code)
        given = [code for code, places in self.handed.items() if any(map(self._is_tool, places))]
        for node, on in program.calls:
            if self._takes_tools(on):
                self._add(node, *given)
            elif on is None and self._could_be_code(node.func):
                self.unknown.append(node)
                self._add(node, *self.handed)

    def around(self, node: Node) -> Code | None:
        """Return the innermost function or lambda around a node."""
        scope = self.program.tree.scopes.get(node)
        while scope:
            if isinstance(scope.node, cst.FunctionDef | cst.Lambda):
                return scope.node
            scope = scope.parent
        return None

    def reached(self, start: Code) -> set[Code]:
        """Return what a function may come to call, itself included only if it may."""
        seen: set[Code] = set()
        stack = [*self.edges.get(start, ())]
        while stack:
            one = stack.pop()
            if one not in seen:
                self.program.tree.step()
                seen.add(one)
                stack += self.edges.get(one, ())
        return seen

    @cached_property
    def before(self) -> set[Code]:
        """Everything that runs when the program is made, and not when it is called."""
        made = [
            one.methods["__init__"] for one in self.program.of_kind("module") if "__init__" in one.methods
        ]
        return {*made}.union(*(self._called_from(one) for one in made))

    def _called_from(self, start: Code) -> set[Code]:
        """Return what a function calls by name, which is less than what it may hand on."""
        seen: set[Code] = set()
        stack: list[Code] = [start]
        while stack:
            called = {code for _, code in self.calls.get(stack.pop(), ())} - seen
            stack += called
            seen |= called
        return seen

    def _add(self, place: Node, *codes: Code) -> None:
        function = self.around(place)
        if function and codes:
            self.edges.setdefault(function, set()).update(codes)

    def _is_link(self, node: Node) -> bool:
        """Whether a node is what is called, or what an attribute is read from."""
        parent = self.program.tree.parents.get(node)
        called = isinstance(parent, cst.Call) and parent.func is node
        return called or isinstance(parent, cst.Attribute | cst.Decorator | cst.Annotation)

    def _hand(self, node: Node) -> None:
        value = self.program.value(node)
        for code in self._runs(value):
            if not (isinstance(node, cst.Call) and self._is_kept_by_name(node)):
                self.handed.setdefault(code, []).append(node)
                if isinstance(value, Function) or self._is_for_parallel(node):
                    self._add(node, code)

    def _is_for_parallel(self, node: Node) -> bool:
        calls = (one for one in self.program.tree.around(node) if isinstance(one, cst.Call))
        return any(isinstance(self.program.value(one.func), Runner) for one in calls)

    def _is_kept_by_name(self, node: Node) -> bool:
        """Whether a new object is bound to a name or an attribute, by which its calls are found."""
        return isinstance(self.program.tree.parents[node], cst.Assign | cst.AnnAssign | cst.Expr | cst.Return)

    def _runs(self, value: Value) -> Iterator[Code]:
        match value:
            case Function(code):
                yield code
            case Instance(one) | Bound(_, Instance(one)):
                yield from (one.methods[name] for name in ("forward", "aforward") if name in one.methods)
            case _:
                pass

    def _known(self, node: cst.Call, on: Value) -> Iterator[Code]:
        match on:
            case Function(code):
                yield code
            case ClassObject(one):
                made = one.method("__init__")
                yield from [made] if made else []
            case Instance(one) | Bound(_, Instance(one)):
                asynchronous = isinstance(on, Bound) and on.name in ("acall", "aforward")
                names = ("aforward", "forward") if asynchronous else ("forward", "aforward")
                found = next(filter(None, map(one.method, names)), None)
                yield from [found] if found else []
            case None if isinstance(node.func, cst.Attribute):
                yield from self._methods(node.func)
            case _:
                pass

    def _methods(self, func: cst.Attribute) -> Iterator[Code]:
        """Yield the methods that a call on something unknown could mean, and not the ones text has too."""
        on = self.program.value(func.value)
        name = "aforward" if func.attr.value == "acall" else func.attr.value
        if isinstance(on, Instance):
            found = on.value.method(name)
            yield from [found] if found else []
        elif on is None and not name.startswith("__") and name not in METHODS:
            yield from (one.methods[name] for one in self.program.of_kind("module") if name in one.methods)

    def _is_tool(self, place: Node) -> bool:
        return is_given_to_dspy(self.program, place)

    @staticmethod
    def _takes_tools(on: Value) -> bool:
        match on:
            case Predictor(kind) | Bound(_, Predictor(kind)):
                return "tools" in KINDS[kind].required
            case _:
                return False

    def _could_be_code(self, func: Node) -> bool:
        match func:
            case cst.Name(value=name):
                found = self.program.scope(func).find(name)
                return found is not None and any(one.kind != "import" for one in found[1])
            case cst.Attribute(value=base):
                on = self.program.value(base)
                return isinstance(on, Instance) and not on.value.method(func.attr.value)
            case _:
                return True


def is_given_to_dspy(program: "Program", node: Node) -> bool:
    """Whether a function is named as a tool or a metric, which DSPy calls with values of its own."""
    for one in program.tree.around(node):
        if isinstance(one, cst.Call):
            return isinstance(program.value(one.func), Dspy)
    return False


def name_of(code: Code) -> str:
    """Return what a function is called, "" for a lambda."""
    return code.name.value if isinstance(code, cst.FunctionDef) else ""
