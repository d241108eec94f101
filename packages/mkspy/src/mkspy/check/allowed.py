"""The allow-list: a candidate does only what is on it, so that an attack nobody thought of is refused too."""

from collections.abc import Iterator

import libcst as cst

from mkspy.check.annotations import RULES as ANNOTATION_RULES
from mkspy.check.annotations import in_annotation
from mkspy.check.calls import RULES as CALL_RULES
from mkspy.check.classes import RULES as CLASS_RULES
from mkspy.check.known import KINDS, MODULE_METHODS, PREDICT_METHODS, words
from mkspy.check.lists import BUILTINS, CONSTRUCTS, EXCEPTIONS, HIDDEN, METHODS, MODULES, PREDICTIONS, SAYS
from mkspy.check.program import Program
from mkspy.check.report import Found, Rule
from mkspy.check.structure import BUILTIN_NAMES
from mkspy.check.text import nearest
from mkspy.check.tree import Node, dotted, imported
from mkspy.check.values import Class, Dspy, Instance, Result

_EXTRAS = frozenset(name for kind in KINDS.values() for name in kind.extras)


def _constructs(program: Program) -> Iterator[Found]:
    for kind, nodes in program.tree.nodes.items():
        if kind.__name__ not in CONSTRUCTS:
            said = SAYS.get(kind.__name__, f"`{kind.__name__}`")
            yield from (
                Found(node, f"{said} is not on the list of what a candidate may use") for node in nodes
            )
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
        for name, path in imported(node):
            module, _, what = path.rpartition(".") if isinstance(node, cst.ImportFrom) else ("", "", path)
            whole = isinstance(node, cst.Import)
            fine = path in MODULES if whole else what in MODULES.get(module, ()) or path in tools
            if not fine or name.startswith("_"):
                yield Found(node, f"`{path.removesuffix('.')}` may not be imported", _may(module or path))


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
    for node in program.tree.of(cst.Attribute):
        if node in program.tree.stored:
            continue
        name, module = node.attr.value, program.path(node.value)
        if module in MODULES:
            if name not in MODULES[module]:
                yield Found(node.attr, f"`{module}.{name}` is not on the list", _may(module))
        elif name.startswith("_"):
            yield from _private(program, node, name)
        elif name in HIDDEN:
            yield Found(node.attr, f"`.{name}` leads into the interpreter", "read outputs and fields only")
        elif not _is_known(program, node, known):
            near = nearest(name, known | METHODS)
            hint = (
                f"did you mean `{near}`?"
                if near
                else "read outputs and fields; call methods of text, lists and dicts"
            )
            yield Found(node.attr, f"`.{name}` is not on the list", hint)


def _private(program: Program, node: cst.Attribute, name: str) -> Iterator[Found]:
    on = program.value(node.value) if isinstance(node.value, cst.Name) else None
    mine = isinstance(on, Instance) and not name.startswith("__") and name in members(program, on.value)
    if not mine and not _is_init(program, node):
        yield Found(node.attr, f"`.{name}` is private", "read outputs and fields only")


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
    if name in MODULE_METHODS | PREDICT_METHODS | {"lm"} and name != "acall":
        return isinstance(on, Result) and name in on.fields
    return name in METHODS or name in declared or name in _EXTRAS or name in PREDICTIONS or name == "value"


def _stores(program: Program) -> Iterator[Found]:
    for node in program.tree.of(cst.Attribute):
        if node in program.tree.stored:
            function = program.function_of(node)
            on = program.value(node.value) if isinstance(node.value, cst.Name) else None
            inside = function is not None and function.name.value == "__init__"
            if not (isinstance(on, Instance) and on.value.kind == "module" and inside):
                text = dotted(node) or node.attr.value
                yield Found(
                    node, f"`{text}` is set outside `__init__`", "set attributes of `self` in `__init__` only"
                )
            elif node.attr.value.startswith("__"):
                yield Found(node, f"`{node.attr.value}` is private to Python", "choose another name")
    for node in program.tree.of(cst.Subscript):
        if node in program.tree.stored:
            scope = isinstance(node.value, cst.Name) and program.tree.scopes[node].find(node.value.value)
            if not scope or scope[0].kind == "module":
                yield Found(
                    node,
                    "an item of something outside the function is set",
                    "build the value inside the function",
                )


_MUTATES = words("add append clear discard extend insert pop popitem remove reverse setdefault sort update")


def _kept(program: Program) -> Iterator[Found]:
    """Yield what a run leaves for the next one: the second answer may not depend on the first question."""
    for node in program.tree.of(cst.Attribute):
        if node.attr.value not in _MUTATES or not isinstance(program.tree.parents[node], cst.Call):
            continue
        base = node.value.value if isinstance(node.value, cst.Subscript) else node.value
        function = program.function_of(node)
        building = function is not None and function.name.value == "__init__"
        found = program.tree.scopes[base].find(base.value) if isinstance(base, cst.Name) else None
        of_self = isinstance(base, cst.Attribute) and isinstance(program.value(base.value), Instance)
        of_file = found is not None and found[0].kind == "module" and found[1][0].kind == "assign"
        if of_file or (of_self and not building):
            yield Found(
                node, f"`{dotted(base)}` changes, and is still there in the next run", "use a local value"
            )


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
    Rule(
        "store",
        "allow-list",
        "Attributes are set on `self`, in `__init__`; items of local values only.",
        _stores,
        example="dspy.settings.lm = None",
    ),
    Rule(
        "kept",
        "allow-list",
        "Nothing is kept from one run to the next.",
        _kept,
        example="SEEN.append(question)",
    ),
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
