"""A program as the rules see it: its classes, and what an expression stands for as far as reading tells.

An expression that could stand for several things, or for something from outside the file, is `None`: unknown.
Rules accuse only what is known, so that code the gate does not follow is left alone.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import libcst as cst

from mkspy.check.fields import class_signature, derived
from mkspy.check.known import KINDS, SUBMODULES, WRAPPERS
from mkspy.check.report import Profile
from mkspy.check.signatures import OPEN, BadSignature, Signature, parse
from mkspy.check.tools import host_tools
from mkspy.check.tree import Binding, Node, Scope, Tree, dotted, literal
from mkspy.check.values import (
    Awaitable,
    Bound,
    Class,
    ClassObject,
    Dspy,
    External,
    Function,
    Instance,
    Listed,
    Predictor,
    Result,
    Runner,
    Value,
)

if TYPE_CHECKING:
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
        self._busy: set[int] = set()
        self._depth = 0
        self.classes = self._classes()
        for one in self.classes.values():
            self._place(one)
        for one in self.classes.values():
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
        for parent in one.lineage():
            one.open = one.open or parent.open
            one.library = one.library or parent.library
            if one.kind == "other":
                one.kind = parent.kind

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
        found = self._scope(node).find(first)
        if not found or not all(one.kind == "import" for one in found[1]):
            return ""
        return f"{found[1][0].path}.{rest}" if rest else found[1][0].path

    def _scope(self, node: Node) -> Scope:
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
        if key in self._values:
            return self._values[key]
        if key in self._busy or self._depth > _DEEP:
            return None
        self._busy.add(key)
        self._depth += 1
        try:
            found = self._evaluate(node)
        finally:
            self._depth -= 1
            self._busy.discard(key)
        self._values[key] = found
        return found

    def _evaluate(self, node: Node) -> Value:
        path = self.path(node)
        if path:
            name = self.dspy_name(path)
            return Dspy(name) if name else External(path)
        how = _EVALUATE.get(type(node))
        return how(self, node) if how else None

    def _merged(self, values: Sequence[Value]) -> Value:
        if not values or any(one is None for one in values):
            return None
        if all(one == values[0] for one in values):
            return values[0]
        results = [one for one in values if isinstance(one, Result)]
        if len(results) == len(values):
            return Result(frozenset[str]().union(*(one.fields for one in results)), results[0].of)
        return None

    def _named(self, node: Node) -> Value:
        assert isinstance(node, cst.Name)
        found = self._scope(node).find(node.value)
        return self._merged([self._binding(one) for one in found[1]]) if found else None

    def _binding(self, binding: Binding) -> Value:
        node = binding.node
        match node:
            case cst.ClassDef():
                return ClassObject(self.classes[node])
            case cst.FunctionDef():
                return None if node.decorators else Function(node)
            case cst.Param():
                return self._parameter(node)
            case _ if binding.kind == "loop":
                listed = self.value(binding.value)
                return listed.value if isinstance(listed, Listed) else None
            case _:
                return self.value(binding.value) if binding.kind == "assign" else None

    def _parameter(self, node: cst.Param) -> Value:
        function = self.tree.parents[node]
        if not isinstance(function, cst.FunctionDef) or self.self_name(function) != node.name.value:
            return None
        holder = self._class_of(function)
        if holder is None:
            return None
        on_class = any(dotted(one.decorator) == "classmethod" for one in function.decorators)
        return ClassObject(holder) if on_class else Instance(holder)

    def _class_of(self, function: cst.FunctionDef) -> Class | None:
        scope = self.tree.scopes[function]
        if scope.kind != "class" or not isinstance(scope.node, cst.ClassDef):
            return None
        return self.classes.get(scope.node)

    def _attribute(self, node: Node) -> Value:
        assert isinstance(node, cst.Attribute)
        name = node.attr.value
        match self.value(node.value):
            case Dspy("dspy"):
                return Dspy(name)
            case External(path):
                return External(f"{path}.{name}")
            case Predictor() as on if name in ("acall", "forward", "aforward", "__call__"):
                return Bound(name, on)
            case Predictor(signature=signature) if name == "signature":
                return signature
            case Predictor() | Instance() as on if name in ("deepcopy", "reset_copy"):
                return Bound(name, on)
            case Instance(one) as on:
                return self._member(on, one, name)
            case Signature() as on:
                return None if on.open else on
            case _:
                return None

    def _member(self, on: Instance, one: Class, name: str) -> Value:
        if name == "acall" and one.kind == "module" and not one.method(name):
            return Bound(name, on)
        stores = self.assigned(one).get(name, [])
        if len(stores) != len([store for store in self.stores.get(name, []) if self._may_be(store[0], one)]):
            return None
        if stores:
            return self._merged([self.value(expression) for _, expression in stores])
        method = one.method(name)
        return Function(method, one) if method and not method.decorators else None

    def _may_be(self, node: cst.Attribute, one: Class) -> bool:
        """Whether a store could be on an instance of the class: not when it is surely on another one."""
        on = self.value(node.value)
        return not isinstance(on, Instance) or on.value in one.lineage() or one in on.value.lineage()

    def _call(self, node: Node) -> Value:
        assert isinstance(node, cst.Call)
        match self.value(node.func):
            case Dspy(name):
                return self._made_by(name, node)
            case ClassObject(one):
                return Instance(one) if one.kind == "module" else None
            case Bound("deepcopy" | "reset_copy", value):
                return value
            case Bound("acall" | "aforward", value):
                return Awaitable(self._run(value, asynchronous=True))
            case Bound(_, value) | (Predictor() | Instance() as value):
                return self._run(value)
            case Function(function):
                return self._returned(function)
            case Signature() as signature if isinstance(node.func, cst.Attribute):
                return derived(self, signature, node.func.attr.value, node)
            case _:
                return None

    def _made_by(self, name: str, node: cst.Call) -> Value:
        if name in KINDS:
            return Predictor(name, self.signature(node))
        if name in WRAPPERS:
            return self.value(self.argument(node, "module", 0))
        if name in ("Signature", "make_signature"):
            return self._signature(self.argument(node, "signature", 0))
        if name == "Parallel":
            return Runner()
        if name == "majority":
            on = self.value(self.argument(node, "prediction_or_completions", 0))
            return on if isinstance(on, Result) else None
        if name == "Prediction":
            names = [arg.keyword.value if arg.keyword else "" for arg in node.args]
            return Result(frozenset(names), "dspy.Prediction") if all(names) else None
        return None

    def signature(self, node: cst.Call) -> Signature:
        """Return the signature a predictor is built with, `OPEN` when it is not in sight."""
        return self._signature(self.argument(node, "signature", 0))

    def _signature(self, node: Node | None) -> Signature:
        text = literal(node)
        if text is not None:
            read = parse(text)
            return OPEN if isinstance(read, BadSignature) else read
        match self.value(node):
            case Signature() as found:
                return found
            case ClassObject(one) if one.kind == "signature":
                return class_signature(self, one)
            case _:
                return OPEN

    def _run(self, value: Predictor | Instance, *, asynchronous: bool = False) -> Value:
        if isinstance(value, Predictor):
            return self.result(value)
        one = value.value
        method = one.method("aforward" if asynchronous else "forward")
        if one.open or one.method("__call__") or not method:
            return None
        made = self._returned(method)
        return made.value if isinstance(made, Awaitable) else made

    def result(self, value: Predictor) -> Value:
        """Return what a predictor answers with."""
        if value.signature.open:
            return None
        fields = {*value.signature.names()[1], *KINDS[value.kind].extras}
        return Result(frozenset(fields), value.signature.name or f"dspy.{value.kind}")

    def _returned(self, function: cst.FunctionDef | cst.Lambda) -> Value:
        if isinstance(function, cst.Lambda):
            return None
        returns = self.returns.get(self.tree.own[function], [])
        found = self._merged([self.value(one.value) for one in returns])
        return Awaitable(found) if function.asynchronous else found

    def _subscript(self, node: Node) -> Value:
        assert isinstance(node, cst.Subscript)
        on = self.value(node.value)
        return on.value if isinstance(on, Listed) and isinstance(node.slice[0].slice, cst.Index) else None

    def _await(self, node: Node) -> Value:
        assert isinstance(node, cst.Await)
        on = self.value(node.expression)
        return on.value if isinstance(on, Awaitable) else None

    def _list(self, node: Node) -> Value:
        assert isinstance(node, cst.List | cst.Tuple)
        return self._listed([self.value(one.value) for one in node.elements])

    def _comprehension(self, node: Node) -> Value:
        assert isinstance(node, cst.ListComp)
        return self._listed([self.value(node.elt)])

    def _listed(self, values: Sequence[Value]) -> Value:
        grows = not self.text_attributes.isdisjoint(("append", "extend", "insert"))
        return None if grows else Listed(self._merged(values))

    def _either(self, node: Node) -> Value:
        assert isinstance(node, cst.IfExp)
        return self._merged([self.value(node.body), self.value(node.orelse)])

    def _walrus(self, node: Node) -> Value:
        assert isinstance(node, cst.NamedExpr)
        return self.value(node.value)

    def _lambda(self, node: Node) -> Value:
        assert isinstance(node, cst.Lambda)
        return Function(node)

    # --- calls ----------------------------------------------------------------------------------------------

    def argument(self, node: cst.Call, name: str, position: int) -> cst.BaseExpression | None:
        """Return an argument, by keyword or by position."""
        for arg in node.args:
            if arg.keyword and arg.keyword.value == name:
                return arg.value
        plain = [arg for arg in node.args if not arg.keyword and not arg.star]
        starred = any(arg.star for arg in node.args[: position + 1])
        return plain[position].value if 0 <= position < len(plain) and not starred else None

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


_EVALUATE: dict[type[Node], Callable[[Program, Node], Value]] = {
    cst.Name: Program._named,  # pyright: ignore[reportPrivateUsage]
    cst.Attribute: Program._attribute,  # pyright: ignore[reportPrivateUsage]
    cst.Call: Program._call,  # pyright: ignore[reportPrivateUsage]
    cst.Subscript: Program._subscript,  # pyright: ignore[reportPrivateUsage]
    cst.Await: Program._await,  # pyright: ignore[reportPrivateUsage]
    cst.List: Program._list,  # pyright: ignore[reportPrivateUsage]
    cst.Tuple: Program._list,  # pyright: ignore[reportPrivateUsage]
    cst.ListComp: Program._comprehension,  # pyright: ignore[reportPrivateUsage]
    cst.IfExp: Program._either,  # pyright: ignore[reportPrivateUsage]
    cst.NamedExpr: Program._walrus,  # pyright: ignore[reportPrivateUsage]
    cst.Lambda: Program._lambda,  # pyright: ignore[reportPrivateUsage]
}
