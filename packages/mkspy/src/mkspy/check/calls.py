"""The allow-list, calls: what DSPy's own objects may be given, and where they may stand."""

from collections.abc import Iterator

import libcst as cst

from mkspy.check.annotations import in_annotation
from mkspy.check.classes import is_literal
from mkspy.check.growth import GROWS
from mkspy.check.known import KINDS
from mkspy.check.lists import ARGUMENTS, CONFIG, MADE, OPTIONS, TYPES
from mkspy.check.origins import origins
from mkspy.check.patterns import RULES as PATTERN_RULES
from mkspy.check.program import Program
from mkspy.check.report import Found, Rule
from mkspy.check.signatures import Signature
from mkspy.check.tree import Node, dotted, literal
from mkspy.check.values import Bound, ClassObject, Dspy, External, Predictor, Runner, Value

_FREE = ("Prediction", "Example")


def _built(on: Value) -> str:
    """Return the name in `ARGUMENTS` of what a call builds."""
    match on:
        case Dspy(name):
            return name
        case External("pydantic.Field"):
            return "Field"
        case _:
            return ""


def _arguments(program: Program) -> Iterator[Found]:
    for node, on in program.calls:
        name = _built(on)
        for arg in node.args:
            keyword = arg.keyword.value if arg.keyword else ""
            if name in ARGUMENTS and (arg.star or (keyword and keyword not in ARGUMENTS[name])):
                said = f"`{keyword}=`" if keyword else f"`{arg.star}`"
                hint = f"it takes {', '.join(sorted(ARGUMENTS[name]))}"
                yield Found(arg, f"{name} is not given {said} in a candidate", hint)
            elif arg.star == "**" and not (name in _FREE or _is_record(on)):
                yield Found(arg, "`**` passes inputs nobody can see", "name the inputs")
            elif keyword.startswith("__"):
                yield Found(arg, f"`{keyword}=` is private to Python", "choose another name")
        if name == "Example" and any(not arg.keyword for arg in node.args):
            yield Found(node, "dspy.Example is made of something other than named values", "name the values")
        yield from _too_many(node, name)


def _too_many(node: cst.Call, name: str) -> Iterator[Found]:
    """Yield positional arguments past the ones that are safe: the next is `callbacks` or a factory."""
    plain = [arg for arg in node.args if not arg.keyword and not arg.star]
    most = {"Predict": 1, "ChainOfThought": 1, "ReAct": 3, "ProgramOfThought": 2, "MultiChainComparison": 2}
    most |= {
        "Parallel": 0,
        "Tool": 3,
        "Signature": 2,
        "InputField": 0,
        "OutputField": 0,
        "Code": 0,
        "History": 0,
        "Field": 1,
    }
    for arg in plain[most.get(name, len(plain)) :]:
        yield Found(arg, f"dspy.{name} is given more than the signature by position", "name the argument")


def _is_record(on: Value) -> bool:
    return isinstance(on, ClassObject) and on.value.kind == "record"


def _options(program: Program) -> Iterator[Found]:
    for node, on in program.calls:
        if _built(on) or isinstance(on, ClassObject):
            continue
        inputs = _inputs(on)
        for arg in node.args:
            keyword = arg.keyword.value if arg.keyword else ""
            if keyword == "config" and "config" not in inputs:
                yield from _config(arg)
            elif keyword in OPTIONS and keyword not in inputs:
                yield Found(arg, f"`{keyword}=` reaches past the inputs of a predictor", "leave it out")


def _inputs(on: Value) -> tuple[str, ...]:
    value = on.value if isinstance(on, Bound) else on
    return value.signature.names()[0] if isinstance(value, Predictor) and not value.signature.open else ()


def _config(arg: cst.Arg) -> Iterator[Found]:
    elements = arg.value.elements if isinstance(arg.value, cst.Dict) else None
    keys = [literal(one.key) if isinstance(one, cst.DictElement) else None for one in elements or ()]
    if elements is None or any(key not in CONFIG for key in keys):
        hint = "write a dict of " + ", ".join(sorted(CONFIG))
        yield Found(arg, "`config=` may only choose how the model samples", hint)


def _constructors(program: Program) -> Iterator[Found]:
    for node in program.tree.of(cst.Name, cst.Attribute):
        if node in program.tree.stored or isinstance(program.tree.parents.get(node), cst.Attribute):
            continue
        path = program.path(node)
        module, _, name = path.rpartition(".")
        if module == "dspy":
            yield from _placed(program, node, name)
        elif module == "pydantic" and not _is_called(program, node) and not _is_base(program, node):
            yield Found(node, f"`{name}` is used as a value", "call it, or derive from it")


def _placed(program: Program, node: Node, name: str) -> Iterator[Found]:
    if in_annotation(program, node) or _is_base(program, node):
        return
    if not _is_called(program, node):
        yield Found(node, f"`dspy.{name}` is used as a value", "call it where it is needed")
    elif name in TYPES - MADE and not (name == "Image" and _is_address(program, node)):
        yield Found(
            node, f"`dspy.{name}(...)` reads files and addresses", f"take the {name.lower()} as an input"
        )


def _is_address(program: Program, node: Node) -> bool:
    """Tell whether a call is given an address that is written out, as a default of a spec is."""
    call = program.tree.parents.get(node)
    given = literal(call.args[0].value) if isinstance(call, cst.Call) and len(call.args) == 1 else None
    return isinstance(given, str) and given.startswith(("https://", "http://", "data:"))


def _signature_uses(program: Program) -> Iterator[Found]:
    """Yield signatures that are more than the argument of a predictor: their methods take types, and more."""
    for node in program.tree.of(cst.Name, cst.Call):
        if node in program.tree.stored:
            continue
        match program.value(node):
            case Signature():
                fine = _is_given(program, node) or (
                    isinstance(node, cst.Call) and _is_constant(program, node)
                )
            case ClassObject(one) if one.kind == "signature":
                fine = _is_given(program, node) or _is_base(program, node) or in_annotation(program, node)
            case _:
                continue
        if not fine:
            hint = "write every signature as a class, and give it to a predictor"
            yield Found(node, "a signature is used as a value", hint)


def _is_given(program: Program, node: Node) -> bool:
    """Whether a node is an argument of what builds a predictor."""
    arg = program.tree.parents.get(node)
    call = program.tree.parents.get(arg) if isinstance(arg, cst.Arg) else None
    on = program.value(call.func) if isinstance(call, cst.Call) else None
    return isinstance(on, Dspy) and (on.name in KINDS or on.name == "Signature")


def _is_constant(program: Program, node: Node) -> bool:
    """Whether a node is what a name is bound to, once."""
    assign = program.tree.parents.get(node)
    target = assign.targets[0].target if isinstance(assign, cst.Assign) and len(assign.targets) == 1 else None
    target = assign.target if isinstance(assign, cst.AnnAssign) else target
    return isinstance(target, cst.Name)


def _is_called(program: Program, node: Node) -> bool:
    parent = program.tree.parents.get(node)
    return isinstance(parent, cst.Call) and parent.func is node


def _is_base(program: Program, node: Node) -> bool:
    parent = program.tree.parents.get(node)
    return isinstance(parent, cst.Arg) and isinstance(program.tree.parents.get(parent), cst.ClassDef)


def _field_values(program: Program) -> Iterator[Found]:
    for node, on in program.calls:
        if _built(on) not in ("InputField", "OutputField", "Field"):
            continue
        for arg in node.args:
            factory = arg.keyword is not None and arg.keyword.value == "default_factory"
            if factory and dotted(arg.value) not in ("list", "dict", "set", "tuple"):
                yield Found(arg, "`default_factory` is list, dict, set or tuple", "write one of these")
            elif not factory and not is_literal(arg.value):
                yield Found(arg, "a field is described by something computed", "write a plain value")
    yield from _factories(program)


def _factories(program: Program) -> Iterator[Found]:
    for node, on in program.calls:
        if (
            on == External("collections.defaultdict")
            and node.args
            and dotted(node.args[0].value) not in _EMPTY
        ):
            yield Found(node.args[0], "a defaultdict is filled by code", "write `defaultdict(list)`, say")


_EMPTY = ("list", "dict", "set", "int", "float", "str", "bool", "tuple")


def _parallel(program: Program) -> Iterator[Found]:
    for node, on in program.calls:
        if isinstance(on, Runner):
            yield from _pairs(program, node)
        elif on == Dspy("Parallel") and not _is_called_only(program, node):
            hint = "write `run = dspy.Parallel()` and `run([(self.step, {...})])`"
            yield Found(node, "this dspy.Parallel is handed on before it is called", hint)


def _is_called_only(program: Program, node: cst.Call) -> bool:
    parent = program.tree.parents[node]
    if isinstance(parent, cst.Call) and parent.func is node:
        return True
    target = parent.targets[0].target if isinstance(parent, cst.Assign) and len(parent.targets) == 1 else None
    if isinstance(target, cst.Name):
        found = program.tree.scopes[target].find(target.value)
        uses = [one for one in program.tree.of(cst.Name) if one.value == target.value]
        single = found is not None and len(found[1]) == 1 and found[0].kind == "function"
    elif isinstance(target, cst.Attribute):
        uses = [one for one in program.tree.of(cst.Attribute) if one.attr.value == target.attr.value]
        single = len(program.stores[target.attr.value]) == 1
    else:
        return False
    return single and all(one in program.tree.stored or _is_called(program, one) for one in uses)


def _pairs(program: Program, node: cst.Call) -> Iterator[Found]:
    given: Node | None = node.args[0].value if len(node.args) == 1 and not node.args[0].star else None
    made = origins(program, given) if isinstance(given, cst.Name) else []
    given = made[0].node if len(made) == 1 and not made[0].depth and not _grows(program, given) else given
    pairs: list[Node] = []
    if isinstance(given, cst.List):
        pairs = [one.value for one in given.elements if isinstance(one, cst.Element)]
    elif isinstance(given, cst.ListComp):
        pairs = [given.elt]
    if not pairs or (isinstance(given, cst.List) and len(pairs) != len(given.elements)):
        yield Found(
            node, "the pairs of dspy.Parallel cannot be seen", "write `run([(self.step, {...}), ...])`"
        )
    for pair in pairs:
        yield from _pair(program, pair)


def _grows(program: Program, given: Node | None) -> bool:
    """Whether something is added to a list by its name."""
    name = dotted(given)
    return any(
        dotted(one.value) == name and one.attr.value in GROWS for one in program.tree.of(cst.Attribute)
    )


def _pair(program: Program, pair: Node) -> Iterator[Found]:
    values = [one.value for one in pair.elements] if isinstance(pair, cst.Tuple) else []
    inputs = values[1] if len(values) == 2 else None
    elements = inputs.elements if isinstance(inputs, cst.Dict) else None
    keys = [literal(one.key) if isinstance(one, cst.DictElement) else None for one in elements or ()]
    if elements is None or None in keys:
        yield Found(
            pair,
            "a pair of dspy.Parallel is not a module and a dict of inputs",
            'write `(self.step, {"question": question})`',
        )
        return
    known = _inputs(program.value(values[0]))
    for key in keys:
        if key in OPTIONS | {"config"} and key not in known:
            yield Found(pair, f"`{key}` reaches past the inputs of a predictor", "leave it out")


RULES = (
    Rule(
        "argument",
        "allow-list",
        "What builds predictors and fields is given arguments on the list.",
        _arguments,
        example='dspy.Predict("question -> answer", api_base="https://example.com")',
    ),
    Rule(
        "call-option",
        "allow-list",
        "A call gives inputs; `config=` chooses how the model samples.",
        _options,
        example='self.answer(question=question, config={"api_base": url})',
    ),
    Rule(
        "constructor",
        "allow-list",
        "The names of dspy and pydantic are called or derived from, not handed on.",
        _constructors,
        example="make = dspy.Predict",
    ),
    Rule(
        "signature-use",
        "allow-list",
        "A signature is given to predictors, and used for nothing else.",
        _signature_uses,
        example='QA.append("more", dspy.OutputField(), kind["..."])',
    ),
    Rule(
        "field-value",
        "allow-list",
        "Fields are described by plain values.",
        _field_values,
        example="dspy.InputField(desc=open('/etc/passwd').read())",
    ),
    Rule(
        "parallel",
        "allow-list",
        "dspy.Parallel is given modules and inputs that can be seen.",
        _parallel,
        example="dspy.Parallel()(pairs)",
    ),
    *PATTERN_RULES,
)
