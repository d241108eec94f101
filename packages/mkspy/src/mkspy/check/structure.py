"""Structure: what makes a file a DSPy program at all."""

import builtins
from collections.abc import Iterator

import libcst as cst

from mkspy.check.known import words
from mkspy.check.program import Program
from mkspy.check.report import BOTH, Found, Rule
from mkspy.check.slips import misspelt, nearest
from mkspy.check.tree import Node, dotted, imported
from mkspy.check.values import Class, ClassObject, Dspy, External, Instance

BUILTIN_NAMES = frozenset(dir(builtins)) | words(
    "__file__ __name__ __doc__ __path__ __spec__ __package__ __loader__ __builtins__ __annotations__"
    " __debug__ __class__ __module__ __qualname__ __dict__ reveal_type get_ipython display"
)


def imports(program: Program) -> list[tuple[str, str]]:
    """Return what the file imports: the name here, and the path."""
    return [pair for node in program.tree.of(cst.Import, cst.ImportFrom) for pair in imported(node)]


def _no_dspy(program: Program) -> Iterator[Found]:
    if "dspy" not in {path.split(".")[0] for _, path in imports(program)}:
        yield Found(program.tree.module, "nothing imports dspy", "begin with `import dspy`")


def _no_module(program: Program) -> Iterator[Found]:
    if not program.of_kind("module"):
        hint = "write `class Program(dspy.Module):` with `__init__` and `forward`"
        yield Found(program.tree.module, "no class derives from dspy.Module", hint)


def _not_a_module(program: Program) -> Iterator[Found]:
    builders = {program.owner(node) for node, _ in program.predictors}
    for one in program.classes.values():
        plain = one.kind == "other" and not one.open and not one.node.decorators
        if plain and one in builders and (one.method("forward") or one.method("aforward")):
            hint = f"write `class {one.name}(dspy.Module):`"
            message = f"`{one.name}` has predictors and `forward` but is no dspy.Module"
            called = program.profile == "candidate" or one.name in _called_names(program)
            yield Found(one.node, message, hint, None if called else "warning")


def _called_names(program: Program) -> set[str]:
    """Return the names of which an instance is called, `A()(...)` or `a(...)` with `a = A()`."""
    names: set[str] = set()
    for node, _ in program.calls:
        func: Node | None = node.func
        if isinstance(func, cst.Name):
            found = program.scope(func).find(func.value)
            func = found[1][0].value if found else None
        if isinstance(func, cst.Call):
            names.add(dotted(func.func))
    return names


def _runs(program: Program, one: Class) -> bool:
    """Whether a class has something to run: a method, or what is bound to its name in any other way."""
    bound = {name for each in one.lineage() for name in program.tree.own[each.node].bindings}
    given = any(_is_class(program, node, one) for name in _RUNS for node, _ in program.stores.get(name, ()))
    return given or not bound.isdisjoint(_RUNS)


_RUNS = ("forward", "aforward", "__call__")


def _is_class(program: Program, node: cst.Attribute, one: Class) -> bool:
    on = program.value(node.value)
    return not isinstance(on, ClassObject | Instance) or on.value in one.lineage()


def _no_forward(program: Program) -> Iterator[Found]:
    parents = {base for one in program.classes.values() for base in one.bases}
    asked = {on.value for _, on in program.calls if isinstance(on, Instance)}
    asked |= {one for _, one in program.entries}
    for one in program.of_kind("module"):
        if one.open or one.library or one in parents or one.node.decorators or _runs(program, one):
            continue
        slip = misspelt(one.methods, "forward") or misspelt(one.methods, "aforward")
        if slip:
            message = f"`{one.name}` has a method `{slip}`, and no `forward`"
            yield Found(one.methods[slip], message, "call it `forward`")
        elif program.profile == "candidate" or one in asked:
            hint = "define `def forward(self, ...)` and return a dspy.Prediction"
            yield Found(one.node, f"`{one.name}` is a dspy.Module without `forward`", hint)


def _methods(program: Program) -> Iterator[tuple[Class, cst.FunctionDef]]:
    for one in program.of_kind("module"):
        for name in ("forward", "aforward"):
            if name in one.methods:
                yield one, one.methods[name]


def _forward_self(program: Program) -> Iterator[Found]:
    for one in program.of_kind("module"):
        for name, method in one.methods.items():
            params = method.params
            if not (
                method.decorators
                or params.posonly_params
                or params.params
                or isinstance(params.star_arg, cst.Param)
            ):
                yield Found(method, f"`{one.name}.{name}` takes no `self`", f"write `def {name}(self, ...)`")
    for one, method in _methods(program):
        params = [*method.params.posonly_params, *method.params.params]
        if (
            params
            and not method.decorators
            and params[0].name.value != "self"
            and _uses_self(program, method)
        ):
            given = params[0].name.value
            hint = f"write `def {method.name.value}(self, {given}, ...)`"
            yield Found(method, f"`{one.name}.{method.name.value}` begins with `{given}`, not `self`", hint)


def _uses_self(program: Program, method: cst.FunctionDef) -> bool:
    return any(isinstance(one, cst.Name) and one.value == "self" for one in program.tree.within(method))


def _no_return(program: Program) -> Iterator[Found]:
    for one, method in _methods(program):
        returns = program.returns.get(program.tree.own[method], [])
        if any(each.value for each in returns) or _is_open_end(program, method) or _acts(program, method):
            continue
        hint = "return a dspy.Prediction with the outputs"
        yield Found(method, f"`{one.name}.{method.name.value}` never returns anything", hint)


def _acts(program: Program, method: cst.FunctionDef) -> bool:
    """Whether a method of a project does something that outlives it: it sets, or tells somebody."""
    if program.profile == "candidate":
        return False
    inside = list(program.tree.within(method.body))
    if any(one in program.tree.stored and not isinstance(one, cst.Name) for one in inside):
        return True
    calls = (one.value for one in inside if isinstance(one, cst.Expr))
    unknown = (one for one in calls if isinstance(one, cst.Call) and program.value(one) is None)
    return not all(map(_is_text_method, unknown))


def _is_text_method(node: cst.Call) -> bool:
    return isinstance(node.func, cst.Attribute) and node.func.attr.value in dir(str)


def _is_open_end(program: Program, method: cst.FunctionDef) -> bool:
    """Whether a function without `return` is a stub, a generator, or only raises."""
    inside = [type(node) for node in program.tree.within(method.body)]
    if cst.Yield in inside or cst.Raise in inside:
        return True
    lines = method.body.body
    statements = [
        each
        for line in lines
        for each in (line.body if isinstance(line, cst.SimpleStatementLine) else [line])
    ]
    stub = all(isinstance(each, cst.Pass | cst.Expr) for each in statements)
    values = [each.value for each in statements if isinstance(each, cst.Expr)]
    return stub and all(
        isinstance(each, cst.Ellipsis | cst.SimpleString | cst.ConcatenatedString) for each in values
    )


def _undefined(program: Program) -> Iterator[Found]:
    if (
        program.tree.stars
        or _is_databricks(program)
        or not {"globals", "exec", "vars"}.isdisjoint(_loaded(program))
    ):
        return
    seen: set[str] = set()
    later = "annotations" in program.tree.top.bindings and program.profile == "project"
    for node in program.tree.of(cst.Name):
        name = node.value
        if node in program.tree.stored or name in BUILTIN_NAMES or name in seen:
            continue
        if later and any(isinstance(one, cst.Annotation) for one in program.tree.around(node)):
            continue
        if program.tree.scopes[node].find(name) is None and not _is_keyword_name(program, node):
            seen.add(name)
            near = nearest(name, [*program.tree.top.bindings, *BUILTIN_NAMES])
            known = f"did you mean `{near}`?" if near else "define it or import it"
            yield Found(node, f"`{name}` is not defined", "write `import dspy`" if name == "dspy" else known)


def _is_databricks(program: Program) -> bool:
    """Whether a file is an exported notebook, into whose names Databricks puts its own."""
    comments = (line.comment.value for line in program.tree.module.header if line.comment)
    return any(one.startswith("# Databricks notebook") for one in comments)


def _loaded(program: Program) -> set[str]:
    return {node.value for node in program.tree.of(cst.Name)}


def _is_keyword_name(program: Program, node: Node) -> bool:
    return isinstance(program.tree.parents.get(node), cst.Global | cst.Nonlocal | cst.NameItem)


def _no_program(program: Program) -> Iterator[Found]:
    bound = program.tree.top.bindings.get("program", [])
    made = program.entries
    name = next((one.name for one in reversed(program.of_kind("module"))), "Program")
    if not bound:
        yield Found(program.tree.module, "nothing is called `program`", f"end with `program = {name}()`")
    elif len(bound) > 1 or not made or made[0][1].kind != "module":
        yield Found(
            bound[-1].node,
            "`program` is not one dspy.Module of this file",
            f"write `program = {name}()` once",
        )
    else:
        yield from _entry_arguments(made[0][0], made[0][1])


def _entry_arguments(statement: cst.Assign | cst.AnnAssign, one: Class) -> Iterator[Found]:
    assert isinstance(statement.value, cst.Call)
    if statement.value.args:
        yield Found(
            statement, f"`program` gives arguments to `{one.name}`", f"write `program = {one.name}()`"
        )
    method = one.method("__init__")
    params = [*method.params.params[1:], *method.params.kwonly_params] if method else []
    for param in params:
        if param.default is None:
            hint = "give it a default, or leave it out"
            yield Found(param, f"`{one.name}()` does not say `{param.name.value}`", hint)


def _module_level(program: Program) -> Iterator[Found]:
    for line in program.tree.module.body:
        for statement in line.body if isinstance(line, cst.SimpleStatementLine) else [line]:
            if not _belongs(program, statement):
                hint = "the module holds imports, classes, functions, constants and `program = Class()`"
                yield Found(statement, "this runs when the file is imported", hint)


def _belongs(program: Program, statement: Node) -> bool:
    match statement:
        case cst.Import() | cst.ImportFrom() | cst.ClassDef() | cst.FunctionDef() | cst.Pass():
            return True
        case cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString()):
            return True
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name())], value=value):
            return _constant(program, value)
        case cst.AnnAssign(target=cst.Name(), value=value):
            return value is not None and _constant(program, value)
        case _:
            return False


def _constant(program: Program, value: Node) -> bool:
    """Whether an expression at module level only writes down a value, a type, or the program."""
    match value:
        case cst.Call():
            made = program.value(value.func)
            if isinstance(made, ClassObject):
                return made.value.kind == "module" and not value.args
            if made == External("re.compile") or (made is None and dotted(value.func) in _COLLECTIONS):
                return all(_constant(program, arg.value) and not arg.star for arg in value.args)
            return isinstance(made, Dspy) and made.name in ("Signature", "Tool")
        case cst.List() | cst.Tuple() | cst.Set():
            return all(_constant(program, one.value) for one in value.elements)
        case cst.Dict():
            parts = [part for one in value.elements for part in program.tree.below(one)]
            return all(_constant(program, one) for one in parts)
        case cst.Name(value="True" | "False" | "None") | cst.Ellipsis():
            return True
        case (
            cst.SimpleString() | cst.ConcatenatedString() | cst.Integer() | cst.Float() | cst.UnaryOperation()
        ):
            return not any(isinstance(one, cst.FormattedString) for one in program.tree.within(value))
        case cst.Subscript(value=base):
            return program.path(base).startswith("typing.") or dotted(base) in ("list", "dict", "tuple")
        case cst.Name() | cst.Attribute():
            on = program.value(value)
            return isinstance(on, ClassObject) or (isinstance(on, External) and on.path.startswith("re."))
        case _:
            return False


_COLLECTIONS = ("dict", "frozenset", "list", "set", "tuple")


def _annotated(program: Program) -> Iterator[Found]:
    for one, method in _methods(program):
        params = [*method.params.params[1:], *method.params.kwonly_params]
        for param in params:
            if param.annotation is None:
                name = param.name.value
                where = f"`{one.name}.{method.name.value}`"
                yield Found(param, f"{where} does not say the type of `{name}`", f"write `{name}: str`, say")


_FORWARD = "class QA(dspy.Module):\n    def __init__(self): ..."

RULES = (
    Rule("no-dspy", "structure", "A program imports dspy.", _no_dspy),
    Rule("no-module", "structure", "A program has a class that derives from dspy.Module.", _no_module),
    Rule(
        "not-a-module",
        "structure",
        "A class with predictors and `forward` derives from dspy.Module.",
        _not_a_module,
        BOTH,
        example="class QA:\n    def forward(self, question): ...",
    ),
    Rule(
        "no-forward",
        "structure",
        "A dspy.Module has `forward` or `aforward`.",
        _no_forward,
        BOTH,
        example=_FORWARD,
    ),
    Rule(
        "no-self",
        "structure",
        "A method takes `self`.",
        _forward_self,
        BOTH,
        example="def forward(question): ...",
    ),
    Rule(
        "no-return",
        "structure",
        "`forward` returns something.",
        _no_return,
        BOTH,
        example="def forward(self, question):\n    self.answer(question=question)",
    ),
    Rule(
        "undefined-name",
        "structure",
        "Every name is defined, imported or built in.",
        _undefined,
        BOTH,
        example="class QA(dspy.Modul): ...",
    ),
    Rule("no-program", "structure", "The file ends with `program = Class()`.", _no_program),
    Rule(
        "module-level",
        "structure",
        "Nothing runs at import but definitions.",
        _module_level,
        example='print("loaded")',
    ),
    Rule(
        "untyped-parameter",
        "structure",
        "The parameters of `forward` have types.",
        _annotated,
        example="def forward(self, question): ...",
    ),
)
