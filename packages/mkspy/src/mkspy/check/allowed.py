"""The allow-list: a candidate does only what is on it, so that an attack nobody thought of is refused too."""

from collections.abc import Iterator

import libcst as cst

from mkspy.check.annotations import RULES as ANNOTATION_RULES
from mkspy.check.annotations import in_annotation
from mkspy.check.calls import RULES as CALL_RULES
from mkspy.check.classes import RULES as CLASS_RULES
from mkspy.check.kept import RULES as KEPT_RULES
from mkspy.check.known import KINDS
from mkspy.check.lists import (
    BUILTINS,
    CONSTRUCTS,
    EXCEPTIONS,
    HIDDEN,
    METHODS,
    MODULES,
    PREDICTIONS,
    SAYS,
    TAKEN,
)
from mkspy.check.program import Program
from mkspy.check.report import Found, Rule
from mkspy.check.slips import nearest
from mkspy.check.structure import BUILTIN_NAMES
from mkspy.check.tree import Node, dotted, imported
from mkspy.check.values import Class, Dspy, Instance, Result

_EXTRAS = frozenset(name for kind in KINDS.values() for name in kind.extras)


def _constructs(program: Program) -> Iterator[Found]:
    refused = {
        node
        for kind, nodes in program.tree.nodes.items()
        if kind.__name__ not in CONSTRUCTS
        for node in nodes
    }
    for node in refused:
        if program.tree.parents.get(node) not in refused:
            said = SAYS.get(type(node).__name__, "this syntax")
            hint = "write it with functions, loops, conditions and calls"
            yield Found(node, f"{said} is not on the list of what a candidate may use", hint)
    for node in program.tree.of(cst.CompFor, cst.For):
        if node.asynchronous:
            yield Found(node, "`async for` is not on the list of what a candidate may use")
    for node in program.tree.of(cst.FunctionDef, cst.Lambda):
        if node.params.star_kwarg:
            yield Found(node.params.star_kwarg, "`**` takes inputs nobody can see", "name the parameters")
    for node in program.tree.of(cst.ExceptHandler):
        caught = node.type.elements if isinstance(node.type, cst.Tuple) else [node.type]
        for one in caught:
            name = dotted(one.value if isinstance(one, cst.Element) else one)
            if name not in EXCEPTIONS:
                said = f"`except {name}`" if name else "this `except`"
                yield Found(node, f"{said} catches too much", "name an error of Python, such as ValueError")


def _imports(program: Program) -> Iterator[Found]:
    tools = program.host_tools
    for node in program.tree.of(cst.Import, cst.ImportFrom):
        if program.tree.scopes[node].kind != "module" or not _is_top(program, node):
            yield Found(node, "imported inside a block", "import at the top of the file")
            continue
        for name, path in imported(node):
            module, _, what = path.rpartition(".") if isinstance(node, cst.ImportFrom) else ("", "", path)
            whole = isinstance(node, cst.Import)
            fine = path in MODULES if whole else what in MODULES.get(module, ()) or path in tools
            if not fine or name.startswith("_"):
                star = " with `*`" if name == "*" else ""
                yield Found(node, f"`{path}` may not be imported{star}", _may(module or path))


def _is_top(program: Program, node: Node) -> bool:
    return program.tree.parents.get(program.tree.parents[node]) is program.tree.module


def _may(module: str) -> str:
    if module in MODULES:
        return f"of `{module}` there are: " + ", ".join(sorted(MODULES[module])[:20])
    return "a candidate imports " + ", ".join(sorted(MODULES)) + ", and the tools of its spec"


def _names(program: Program) -> Iterator[Found]:
    for node in program.tree.of(cst.Name):
        name = node.value
        if name.startswith("__"):
            yield Found(node, f"`{name}` belongs to the interpreter", "use a name of your own")
            continue
        if node in program.tree.stored:
            continue
        found = program.tree.scopes[node].find(name)
        if (
            found is None
            and name in BUILTIN_NAMES
            and name not in BUILTINS
            and not in_annotation(program, node)
        ):
            near = nearest(name, BUILTINS)
            hint = (
                f"did you mean `{near}`?"
                if near
                else "a program is a function of its inputs; a tool of the spec may do more"
            )
            yield Found(node, f"the builtin `{name}` is not on the list", hint)
        elif found is None and name == "super" and not _is_super(program, node):
            yield Found(node, "`super` is there for `super().__init__()` only")
        elif (
            found
            and program.path(node) in MODULES
            and not isinstance(program.tree.parents[node], cst.Attribute)
        ):
            yield Found(
                node, f"the module `{name}` is used as a value", f"write `{name}.` and what you need of it"
            )


def _is_super(program: Program, node: Node) -> bool:
    call = program.tree.parents[node]
    attribute = program.tree.parents.get(call)
    return isinstance(call, cst.Call) and not call.args and isinstance(attribute, cst.Attribute)


def _attributes(program: Program) -> Iterator[Found]:
    known = _declared(program)
    refused: set[Node] = set()
    for node in reversed(list(program.tree.of(cst.Attribute))):  # of a chain, the first link comes first
        if node in program.tree.stored:
            continue
        found = None if _is_after(node, refused) else _refused(program, node, known)
        if found:
            refused.add(node)
            yield found


def _is_after(node: cst.Attribute, refused: set[Node]) -> bool:
    """Whether an attribute is read from what is refused itself."""
    before: Node = node.value
    while isinstance(before, cst.Attribute | cst.Call | cst.Subscript):
        if before in refused:
            return True
        before = before.func if isinstance(before, cst.Call) else before.value
    return False


def _refused(program: Program, node: cst.Attribute, known: set[str]) -> Found | None:
    name, module = node.attr.value, program.path(node.value)
    if module in MODULES:
        fine = name in MODULES[module]
        return None if fine else Found(node.attr, f"`{module}.{name}` is not on the list", _may(module))
    if module and not _is_listed(program, module):
        return None  # the import says so
    if name.startswith("_"):
        fine = _is_own(program, node, name) or _is_init(program, node)
        return None if fine else Found(node.attr, f"`.{name}` is private", "read outputs and fields only")
    if name in HIDDEN:
        return Found(node.attr, f"`.{name}` leads into the interpreter", "read outputs and fields only")
    fine = _is_known(program, node, known)
    return None if fine else Found(node.attr, f"`.{name}` is not on the list", _instead(name, known))


def _is_listed(program: Program, path: str) -> bool:
    module, _, name = path.rpartition(".")
    return name in MODULES.get(module, ()) or path in program.host_tools


def _instead(name: str, known: set[str]) -> str:
    if name in known:
        return "give the field another name: values of Python and DSPy have this one, too"
    near = nearest(name, known | METHODS)
    return (
        f"did you mean `{near}`?"
        if near
        else "read outputs and fields; call methods of text, lists and dicts"
    )


def _is_own(program: Program, node: cst.Attribute, name: str) -> bool:
    on = program.value(node.value) if isinstance(node.value, cst.Name) else None
    return isinstance(on, Instance) and not name.startswith("__") and name in members(program, on.value)


def _is_init(program: Program, node: cst.Attribute) -> bool:
    """Whether this is `super().__init__()` inside an `__init__`."""
    call, method = program.tree.parents[node], program.function_of(node)
    through = isinstance(node.value, cst.Call) and dotted(node.value.func) == "super"
    inside = method is not None and method.name.value == "__init__"
    return (
        node.attr.value == "__init__" and through and inside and isinstance(call, cst.Call) and not call.args
    )


def members(program: Program, one: Class) -> set[str]:
    """Return what a class of the file gives its instances: methods, constants and attributes it sets."""
    names = {name for each in one.lineage() for name in program.tree.own[each.node].bindings}
    return names | set(program.assigned(one))


def _declared(program: Program) -> set[str]:
    names: set[str] = set()
    for one in program.classes.values():
        names |= members(program, one)
    for node, _ in program.predictors:
        names.update(program.signature(node).names()[1])
    for node, on in program.calls:
        if on in (Dspy("Prediction"), Dspy("Example")):
            names.update(arg.keyword.value for arg in node.args if arg.keyword)
    return names


def _is_known(program: Program, node: cst.Attribute, declared: set[str]) -> bool:
    name, on = node.attr.value, program.value(node.value)
    if isinstance(on, Instance) and isinstance(node.value, cst.Name):
        return name in members(program, on.value)
    if name in TAKEN or (name.startswith("model_") and name not in METHODS):
        return isinstance(on, Result) and name in on.fields
    return name in METHODS or name in declared or name in _EXTRAS or name in PREDICTIONS or name == "value"


def _rebindings(program: Program) -> Iterator[Found]:
    top = program.tree.top.bindings
    for name, bindings in top.items():
        if len(bindings) > 1 and any(one.kind in ("import", "class", "function") for one in bindings):
            yield Found(
                bindings[-1].node, f"`{name}` is defined twice", "give every definition a name of its own"
            )
        if name in BUILTINS:
            yield Found(bindings[0].node, f"`{name}` hides the builtin", "choose another name")
    fixed = {name for name, bindings in top.items() if bindings[0].kind in ("import", "class", "function")}
    for scope in program.tree.own.values():
        for name, bindings in scope.bindings.items():
            odd = scope.kind != "class" and name in fixed and bindings[0].kind != "parameter"
            if odd:
                yield Found(bindings[0].node, f"`{name}` hides what the file defines", "choose another name")


RULES = (
    Rule(
        "construct",
        "allow-list",
        "Every piece of syntax is on the list of constructs.",
        _constructs,
        example="with open(path) as file: ...",
    ),
    Rule(
        "import",
        "allow-list",
        "Every import is on the list, or a tool of the spec.",
        _imports,
        example="import os",
    ),
    Rule(
        "name",
        "allow-list",
        "Every builtin is on the list; modules are no values.",
        _names,
        example='getattr(self, "answer")',
    ),
    Rule(
        "attribute",
        "allow-list",
        "Every attribute is a field, a member, or on the list.",
        _attributes,
        example="().__class__.__base__",
    ),
    *KEPT_RULES,
    Rule(
        "rebinding",
        "allow-list",
        "What is imported, built in or defined keeps its meaning.",
        _rebindings,
        example="str = eval",
    ),
    *CLASS_RULES,
    *ANNOTATION_RULES,
    *CALL_RULES,
)
