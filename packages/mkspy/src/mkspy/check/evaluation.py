"""What an expression stands for, as far as reading tells. Types of expressions are a table at the end."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import libcst as cst

from mkspy.check.fields import class_signature, derived
from mkspy.check.known import KINDS, WRAPPERS
from mkspy.check.signatures import OPEN, BadSignature, Signature, parse, problems
from mkspy.check.tree import Binding, Node, dotted, literal
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
    from mkspy.check.program import Program


def evaluate(program: "Program", node: Node) -> Value:
    path = program.path(node)
    if path:
        name = program.dspy_name(path)
        return Dspy(name) if name else External(path)
    how = _EVALUATE.get(type(node))
    return how(program, node) if how else None


def _merged(program: "Program", values: Sequence[Value]) -> Value:
    if not values or any(one is None for one in values):
        return None
    if all(one == values[0] for one in values):
        return values[0]
    results = [one for one in values if isinstance(one, Result)]
    if len(results) == len(values):
        program.tree.step(sum(len(one.fields) for one in results))
        return Result(frozenset[str]().union(*(one.fields for one in results)), results[0].of)
    return None


def _named(program: "Program", node: Node) -> Value:
    assert isinstance(node, cst.Name)
    found = program.scope(node).find(node.value)
    values: list[Value] = []
    for one in found[1] if found else ():
        value = _binding(program, one)
        if value is None:
            return None  # and so is the whole, whatever the others are
        values.append(value)
    return _merged(program, values)


def _binding(program: "Program", binding: Binding) -> Value:
    node = binding.node
    match node:
        case cst.ClassDef():
            return ClassObject(program.classes[node])
        case cst.FunctionDef():
            return None if node.decorators else Function(node)
        case cst.Param():
            return _parameter(program, node)
        case _ if binding.kind == "loop":
            listed = program.value(binding.value)
            return listed.value if isinstance(listed, Listed) else None
        case _:
            return program.value(binding.value) if binding.kind == "assign" else None


def _parameter(program: "Program", node: cst.Param) -> Value:
    function = program.tree.parents[node]
    if not isinstance(function, cst.FunctionDef) or program.self_name(function) != node.name.value:
        return None
    if program.is_called_on_class(function):
        return None
    holder = _class_of(program, function)
    if holder is None:
        return None
    on_class = any(dotted(one.decorator) == "classmethod" for one in function.decorators)
    return ClassObject(holder) if on_class else Instance(holder)


def _class_of(program: "Program", function: cst.FunctionDef) -> Class | None:
    scope = program.tree.scopes[function]
    if scope.kind != "class" or not isinstance(scope.node, cst.ClassDef):
        return None
    return program.classes.get(scope.node)


def _attribute(program: "Program", node: Node) -> Value:
    assert isinstance(node, cst.Attribute)
    name = node.attr.value
    match program.value(node.value):
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
            return _member(program, on, one, name)
        case Signature() as on:
            return None if on.open else on
        case _:
            return None


def _member(program: "Program", on: Instance, one: Class, name: str) -> Value:
    if name == "acall" and one.kind == "module" and not one.method(name):
        return Bound(name, on)
    stores = program.assigned(one).get(name, [])
    if len(stores) != len(
        [store for store in program.stores.get(name, []) if _may_be(program, store[0], one)]
    ):
        return None
    if stores:
        return _merged(program, [program.value(expression) for _, expression in stores])
    method = one.method(name)
    return Function(method, one) if method and not method.decorators else None


def _may_be(program: "Program", node: cst.Attribute, one: Class) -> bool:
    """Whether a store could be on an instance of the class: not when it is surely on another one."""
    on = program.value(node.value)
    return not isinstance(on, Instance) or on.value in one.lineage() or one in on.value.lineage()


def _call(program: "Program", node: Node) -> Value:
    assert isinstance(node, cst.Call)
    match program.value(node.func):
        case Dspy(name):
            return _made_by(program, name, node)
        case ClassObject(one):
            return Instance(one) if one.kind == "module" else None
        case Bound("deepcopy" | "reset_copy", value):
            return value
        case Bound("acall" | "aforward", value):
            return Awaitable(_run(program, value, asynchronous=True))
        case Bound(_, value) | (Predictor() | Instance() as value):
            return _run(program, value)
        case Function(function):
            return _returned(program, function)
        case Signature() as signature if isinstance(node.func, cst.Attribute):
            return derived(program, signature, node.func.attr.value, node)
        case _:
            return None


def _made_by(program: "Program", name: str, node: cst.Call) -> Value:
    if name in KINDS:
        return Predictor(name, signature_of(program, node))
    if name in WRAPPERS:
        return program.value(program.argument(node, "module", 0))
    if name in ("Signature", "make_signature"):
        return _signature(program, program.argument(node, "signature", 0))
    if name == "Parallel":
        return Runner()
    if name == "majority":
        on = program.value(program.argument(node, "prediction_or_completions", 0))
        return on if isinstance(on, Result) else None
    if name == "Prediction":
        names = [arg.keyword.value if arg.keyword else "" for arg in node.args]
        return Result(frozenset(names), "dspy.Prediction") if all(names) else None
    return None


def signature_of(program: "Program", node: cst.Call) -> Signature:
    """Return the signature a predictor is built with, `OPEN` when it is not in sight."""
    return _signature(program, program.argument(node, "signature", 0))


def _signature(program: "Program", node: Node | None) -> Signature:
    text = literal(node)
    if text is not None:
        read = parse(text)
        return OPEN if isinstance(read, BadSignature) or any(problems(read)) else read
    match program.value(node):
        case Signature() as found:
            return found
        case ClassObject(one) if one.kind == "signature":
            return class_signature(program, one)
        case _:
            return OPEN


def _run(program: "Program", value: Predictor | Instance, *, asynchronous: bool = False) -> Value:
    if isinstance(value, Predictor):
        return answered(program, value)
    one = value.value
    method = one.method("aforward" if asynchronous else "forward")
    if one.open or one.method("__call__") or not method:
        return None
    made = _returned(program, method)
    return made.value if asynchronous and isinstance(made, Awaitable) else made


def answered(program: "Program", value: Predictor) -> Value:
    """Return what a predictor answers with."""
    if value.signature.open:
        return None
    fields = {*value.signature.names()[1], *KINDS[value.kind].extras}
    return Result(frozenset(fields), value.signature.name or f"dspy.{value.kind}")


def _returned(program: "Program", function: cst.FunctionDef | cst.Lambda) -> Value:
    if isinstance(function, cst.Lambda):
        return None
    returns = program.returns.get(program.tree.own[function], [])
    found = _merged(program, [program.value(one.value) for one in returns])
    return Awaitable(found) if function.asynchronous else found


def _subscript(program: "Program", node: Node) -> Value:
    assert isinstance(node, cst.Subscript)
    on = program.value(node.value)
    return on.value if isinstance(on, Listed) and isinstance(node.slice[0].slice, cst.Index) else None


def _await(program: "Program", node: Node) -> Value:
    assert isinstance(node, cst.Await)
    on = program.value(node.expression)
    return on.value if isinstance(on, Awaitable) else None


def _list(program: "Program", node: Node) -> Value:
    assert isinstance(node, cst.List | cst.Tuple)
    return _listed(program, [program.value(one.value) for one in node.elements])


def _comprehension(program: "Program", node: Node) -> Value:
    assert isinstance(node, cst.ListComp)
    return _listed(program, [program.value(node.elt)])


def _listed(program: "Program", values: Sequence[Value]) -> Value:
    grows = not program.text_attributes.isdisjoint(("append", "extend", "insert"))
    return None if grows else Listed(_merged(program, values))


def _either(program: "Program", node: Node) -> Value:
    assert isinstance(node, cst.IfExp)
    return _merged(program, [program.value(node.body), program.value(node.orelse)])


def _walrus(program: "Program", node: Node) -> Value:
    assert isinstance(node, cst.NamedExpr)
    return program.value(node.value)


def _lambda(program: "Program", node: Node) -> Value:
    assert isinstance(node, cst.Lambda)
    return Function(node)


_EVALUATE: "dict[type[Node], Callable[[Program, Node], Value]]" = {
    cst.Name: _named,
    cst.Attribute: _attribute,
    cst.Call: _call,
    cst.Subscript: _subscript,
    cst.Await: _await,
    cst.List: _list,
    cst.Tuple: _list,
    cst.ListComp: _comprehension,
    cst.IfExp: _either,
    cst.NamedExpr: _walrus,
    cst.Lambda: _lambda,
}
