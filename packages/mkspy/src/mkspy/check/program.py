"""A program as the rules see it: its classes, and what its names and calls mean.

An expression that could stand for several things, or for something from outside the file, is `None`: unknown.
Rules accuse only what is known, so that code the gate does not follow is left alone.
"""

from functools import cached_property
from typing import TYPE_CHECKING

import libcst as cst

from mkspy.check.evaluation import evaluate, signature_of
from mkspy.check.graph import Graph
from mkspy.check.kinds import Kinds
from mkspy.check.known import KINDS, SUBMODULES, WRAPPERS
from mkspy.check.opened import opened
from mkspy.check.report import Profile
from mkspy.check.signatures import Signature
from mkspy.check.sizes import Sizes
from mkspy.check.tools import host_tools
from mkspy.check.tree import Node, Scope, Tree, dotted, literal
from mkspy.check.values import (
    Class,
    ClassObject,
    Dspy,
    External,
    Instance,
    Value,
)

if TYPE_CHECKING:
    from mkspy.check.origins import Origin
    from mkspy.spec import Task
    from mkspy.types import Record

_DEEP = 40


class Program:
    """A tree, its classes and its values. Made once for each check."""

    def __init__(self, tree: Tree, profile: Profile, task: "Task | None" = None) -> None:
        self.tree = tree
        self.profile: Profile = profile
        self.task = task
        self.host_tools = host_tools(task)
        self.records: dict[str, Record] | None = None
        self._values: dict[int, Value] = {}
        self.steps = 0
        self.origins: dict[tuple[Node, int], list[Origin]] = {}
        self.signatures: dict[Node, Signature] = {}
        self._busy: set[int] = set()
        self._depth = 0
        self.classes = self._classes()
        for one in self.classes.values():
            self._place(one)
        for one in self.classes.values():
            one.line = tuple(one.lineage())
            self._inherit(one)

    # --- tables ---------------------------------------------------------------------------------------------

    def _classes(self) -> dict[cst.ClassDef, Class]:
        found = {node: Class(node.name.value, node) for node in self.tree.of(cst.ClassDef)}
        for one in found.values():
            bindings = [binding for bound in self.tree.own[one.node].bindings.values() for binding in bound]
            one.methods = {b.node.name.value: b.node for b in bindings if isinstance(b.node, cst.FunctionDef)}
        return found

    def of_kind(self, kind: str) -> list[Class]:
        """Return the classes that are modules, signatures, records or enums."""
        return [one for one in self.classes.values() if one.kind == kind]

    def _place(self, one: Class) -> None:
        bases: list[Class] = []
        for arg in one.node.bases:
            base = arg.value.value if isinstance(arg.value, cst.Subscript) else arg.value
            match self.value(base):
                case ClassObject(parent) if parent is not one:
                    bases.append(parent)
                case Dspy("Module" | "Signature" as name):
                    one.kind = name.lower()
                case Dspy(name) if name in KINDS or name in WRAPPERS or name == "Parallel":
                    one.kind, one.library = "module", name
                case External("pydantic.BaseModel"):
                    one.kind = "record"
                case External(path) if path.startswith("enum."):
                    one.kind = "enum"
                case External(path) if path.startswith(("abc.", "typing.")):
                    pass
                case _ if dotted(base) not in ("object", "str", "int"):
                    one.open = True
                case _:
                    pass
        one.bases = tuple(bases)

    def _inherit(self, one: Class) -> None:
        self.tree.step(len(one.line))
        for parent in one.line:
            one.open = one.open or parent.open
            one.library = one.library or parent.library
            if one.kind == "other":
                one.kind = parent.kind

    @cached_property
    def derived(self) -> set[Class]:
        """The classes that another class of the file derives from."""
        return {base for one in self.classes.values() for base in one.lineage() if base is not one}

    @cached_property
    def returns(self) -> dict[Scope, list[cst.Return]]:
        """The `return` statements of each function."""
        table: dict[Scope, list[cst.Return]] = {}
        for node in self.tree.of(cst.Return):
            table.setdefault(self.tree.scopes[node].function(), []).append(node)
        return table

    @cached_property
    def stores(self) -> dict[str, list[tuple[cst.Attribute, cst.BaseExpression | None]]]:
        """Every attribute that is assigned to, by its name, with the expression where there is one."""
        table: dict[str, list[tuple[cst.Attribute, cst.BaseExpression | None]]] = {}
        for node in self.tree.of(cst.Attribute):
            if node in self.tree.stored:
                table.setdefault(node.attr.value, []).append((node, self._stored(node)))
        return table

    def _stored(self, node: cst.Attribute) -> cst.BaseExpression | None:
        parent = self.tree.parents[node]
        if isinstance(parent, cst.AnnAssign):
            return parent.value
        assign = self.tree.parents[parent]
        return (
            assign.value if isinstance(parent, cst.AssignTarget) and isinstance(assign, cst.Assign) else None
        )

    def owner(self, node: Node) -> Class | None:
        """Return the class whose method `node` is in; functions within the method count."""
        for one in self.tree.around(node):
            if isinstance(one, cst.ClassDef):
                return self.classes.get(one)
        return None

    def function_of(self, node: Node) -> cst.FunctionDef | None:
        """Return the innermost `def` around a node."""
        return next((one for one in self.tree.around(node) if isinstance(one, cst.FunctionDef)), None)

    def self_name(self, method: cst.FunctionDef) -> str:
        """Return what a method calls its instance, "" when it has none."""
        if any(dotted(one.decorator) == "staticmethod" for one in method.decorators):
            return ""
        params = [*method.params.posonly_params, *method.params.params]
        return params[0].name.value if params else ""

    def is_called_on_class(self, function: cst.FunctionDef) -> bool:
        """Whether a method is wrapped again, or called on a class: then its first parameter is anything."""
        name, scope = function.name.value, self.tree.scopes[function]
        return len(scope.bindings.get(name, ())) > 1 or name in self._called_on_classes

    @cached_property
    def _called_on_classes(self) -> set[str]:
        names: set[str] = set()
        for node in self.tree.of(cst.Attribute):
            found = self.scope(node).find(node.value.value) if isinstance(node.value, cst.Name) else None
            if found and all(one.kind == "class" for one in found[1]):
                names.add(node.attr.value)
        return names - {"__init__", "forward", "aforward"}

    def is_method(self, function: Node) -> bool:
        """Whether the first parameter of a function is its instance or its class."""
        in_class = self.tree.scopes[function].kind == "class"
        return in_class and isinstance(function, cst.FunctionDef) and bool(self.self_name(function))

    def assigned(self, one: Class) -> dict[str, list[tuple[cst.Attribute, cst.BaseExpression | None]]]:
        """Return what the methods of a class, or of its bases, assign to attributes of the instance."""
        if one.node not in self._assigned:
            table: dict[str, list[tuple[cst.Attribute, cst.BaseExpression | None]]] = {}
            for name, stores in self.stores.items():
                mine = [store for store in stores if self._is_self(store[0].value, one)]
                if mine:
                    table[name] = mine
            self._assigned[one.node] = table
        return self._assigned[one.node]

    @cached_property
    def _assigned(self) -> dict[Node, dict[str, list[tuple[cst.Attribute, cst.BaseExpression | None]]]]:
        return {}

    def _is_self(self, node: Node, one: Class) -> bool:
        value = self.value(node) if isinstance(node, cst.Name) else None
        return isinstance(value, Instance) and value.value in one.lineage()

    # --- names ----------------------------------------------------------------------------------------------

    def path(self, node: Node) -> str:
        """Return what a chain of names stands for outside the file: `json.loads`, `dspy.Predict`, or ""."""
        text = dotted(node)
        if not text:
            return ""
        first, _, rest = text.partition(".")
        found = self.scope(node).find(first)
        if not found or not all(one.kind == "import" for one in found[1]):
            return ""
        return f"{found[1][0].path}.{rest}" if rest else found[1][0].path

    def scope(self, node: Node) -> Scope:
        return self.tree.scopes.get(node, self.tree.top)

    @staticmethod
    def dspy_name(path: str) -> str:
        """Return the name in DSPy that a path means, "" for another package."""
        first, *rest = path.split(".")
        if first != "dspy":
            return ""
        while len(rest) > 1 and rest[0] in SUBMODULES:
            rest = rest[1:]
        return ".".join(rest) or "dspy"

    # --- values ---------------------------------------------------------------------------------------------

    def value(self, node: Node | None) -> Value:
        """Return what an expression stands for, `None` when that is not known."""
        if node is None:
            return None
        key = id(node)
        self.tree.step()
        if key in self._values:
            return self._values[key]
        if key in self._busy or self._depth > _DEEP:
            return None
        self._busy.add(key)
        self._depth += 1
        try:
            found = evaluate(self, node)
        finally:
            self._depth -= 1
            self._busy.discard(key)
        self._values[key] = found
        return found

    # --- calls ----------------------------------------------------------------------------------------------

    def signature(self, node: cst.Call) -> Signature:
        """Return the signature a predictor is built with, `OPEN` when it is not in sight."""
        return signature_of(self, node)

    def argument(self, node: cst.Call, name: str, position: int) -> cst.BaseExpression | None:
        """Return an argument, by keyword or by position."""
        for arg in node.args:
            if arg.keyword and arg.keyword.value == name:
                return arg.value
        plain = [arg for arg in node.args if not arg.keyword and not arg.star]
        starred = any(arg.star for arg in node.args[: position + 1])
        return plain[position].value if 0 <= position < len(plain) and not starred else None

    @cached_property
    def entries(self) -> list[tuple[cst.Assign | cst.AnnAssign, Class]]:
        """The statements `program = Class()` of the module, with the class."""
        found: list[tuple[cst.Assign | cst.AnnAssign, Class]] = []
        for binding in self.tree.top.bindings.get("program", []):
            if not isinstance(binding.value, cst.Call):
                continue
            statement = self.tree.parents[binding.node]
            statement = self.tree.parents[statement] if isinstance(statement, cst.AssignTarget) else statement
            made = self.value(binding.value.func)
            if isinstance(statement, cst.Assign | cst.AnnAssign) and isinstance(made, ClassObject):
                found.append((statement, made.value))
        return found

    @cached_property
    def entry(self) -> Class | None:
        """The class that is the program: that of `program = ...`, or else the last dspy.Module."""
        modules = self.of_kind("module")
        return self.entries[-1][1] if self.entries else modules[-1] if modules else None

    @cached_property
    def graph(self) -> Graph:
        """Which function may call which."""
        return Graph(self)

    @cached_property
    def sizes(self) -> Sizes:
        """How large counts can be."""
        return Sizes(self)

    @cached_property
    def kinds(self) -> Kinds:
        """Which expressions are numbers, text or lists."""
        return Kinds(self)

    @cached_property
    def calls(self) -> list[tuple[cst.Call, Value]]:
        """Every call, with what it calls."""
        return [(node, self.value(node.func)) for node in self.tree.of(cst.Call)]

    @cached_property
    def predictors(self) -> list[tuple[cst.Call, str]]:
        """Every place that builds a predictor of DSPy, or a module around one."""
        kinds = KINDS.keys() | WRAPPERS.keys()
        return [(node, on.name) for node, on in self.calls if isinstance(on, Dspy) and on.name in kinds]

    @cached_property
    def signatures_change(self) -> bool:
        """Whether the file gives a predictor another signature after it was built."""
        return "signature" in self.stores and any(
            not isinstance(self.value(node.value), Instance) for node, _ in self.stores["signature"]
        )

    @cached_property
    def filled(self) -> set[str]:
        """Every text that something is stored under."""
        stored = [node for node in self.tree.of(cst.Subscript) if node in self.tree.stored]
        keys = [one.slice.value for node in stored for one in node.slice if isinstance(one.slice, cst.Index)]
        return {text for key in keys if (text := literal(key)) is not None}

    @cached_property
    def opened(self) -> set[int]:
        """Bindings, by `id` of their nodes, of predictions that somebody may add fields to under any name."""
        return opened(self)

    @cached_property
    def tools(self) -> list[tuple[cst.Call, cst.BaseExpression]]:
        """Every expression that a predictor is given as `tools`."""
        given = [
            (node, self.argument(node, "tools", 1))
            for node, kind in self.predictors
            if "tools" in _needs(kind)
        ]
        return [(node, value) for node, value in given if value is not None]

    @cached_property
    def text_attributes(self) -> set[str]:
        """Every attribute name in the file that is read, and every text that could be one."""
        names = {node.attr.value for node in self.tree.of(cst.Attribute) if node not in self.tree.stored}
        return names | {text for node in self.tree.of(cst.SimpleString) if (text := literal(node))}


def _needs(kind: str) -> tuple[str, ...]:
    return KINDS[kind].required if kind in KINDS else WRAPPERS[kind]
