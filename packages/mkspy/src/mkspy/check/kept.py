"""The allow-list, state: nothing is set outside of `__init__`, or changes so that the next run sees it."""

from collections.abc import Iterator

import libcst as cst

from mkspy.check.known import words
from mkspy.check.origins import Origin, origins
from mkspy.check.program import Program
from mkspy.check.report import Found, Rule
from mkspy.check.tree import Node, dotted
from mkspy.check.values import ClassObject, Dspy, External, Instance, Predictor, Runner

_CHANGES = words(
    "add append appendleft clear discard extend insert pop popitem popleft remove reverse setdefault sort"
    " update"
)
_USED_UP = words("batched chain enumerate filter from_iterable groupby islice iter map pairwise reversed"
                 " takewhile zip zip_longest finditer")  # fmt: skip
_COLLECTIONS = words("Counter OrderedDict defaultdict deque dict list set")
_GROWS_WHEN_READ = "defaultdict"


def _stores(program: Program) -> Iterator[Found]:
    for node in program.tree.of(cst.Attribute):
        if node in program.tree.stored:
            on = program.value(node.value) if isinstance(node.value, cst.Name) else None
            if not (isinstance(on, Instance) and on.value.kind == "module" and _is_building(program, node)):
                text = dotted(node) or node.attr.value
                hint = "set attributes of `self` in `__init__` only"
                yield Found(node, f"`{text}` is set outside `__init__`", hint)
            elif node.attr.value.startswith("__"):
                yield Found(node, f"`{node.attr.value}` is private to Python", "choose another name")
    for node in program.tree.of(cst.Subscript):
        if node in program.tree.stored and not _is_item_of_local(program, node):
            hint = "build the value inside the function"
            yield Found(node, "an item of something outside the function is set", hint)


def _is_building(program: Program, node: Node) -> bool:
    function = program.function_of(node)
    return function is not None and function.name.value == "__init__"


def _is_item_of_local(program: Program, node: cst.Subscript) -> bool:
    base: Node = node
    while isinstance(base, cst.Subscript):
        base = base.value
    if isinstance(base, cst.Attribute) and _is_building(program, node):
        return isinstance(program.value(base.value), Instance)
    found = program.scope(base).find(base.value) if isinstance(base, cst.Name) else None
    return found is not None and found[0].kind != "module"


# --- from one run to the next -------------------------------------------------------------------------------


def _kept(program: Program) -> Iterator[Found]:
    """Yield what a run leaves for the next one: the second answer may not depend on the first question."""
    for place, base in changed(program):
        keepers = (_kept_by(program, one, place) for one in origins(program, base))
        keeper = next(filter(None, keepers), "") or _bound_for_later(program, place)
        if keeper:
            through = dotted(base)
            said = f"`{keeper}` changes" + (f" through `{through}`" if through not in ("", keeper) else "")
            yield Found(place, f"{said}, and is still there in the next run", "change a copy, or a new value")
    for one in program.of_kind("module"):
        for name, stores in program.assigned(one).items():
            for _, value in stores:
                yield from _once(program, name, value)


def changed(program: Program) -> Iterator[tuple[Node, Node]]:
    """Yield where something changes, and the expression for it."""
    for node in program.tree.of(cst.Attribute):
        if node.attr.value in _CHANGES and node not in program.tree.stored:
            base = _unbound(program, node) or node.value
            on = program.value(base)
            if not isinstance(on, Instance | ClassObject | Predictor | Runner | Dspy | External):
                yield node, base
    for node in program.tree.of(cst.Subscript):
        if node in program.tree.stored:
            yield node, node.value
    for node in program.tree.of(cst.AugAssign):
        if isinstance(node.target, cst.Name) and _is_collection(program, node):
            yield node, node.target


def _bound_for_later(program: Program, place: Node) -> str:
    """Return what `self.add = items.append` would go on changing."""
    called = isinstance(parent := program.tree.parents[place], cst.Call) and parent.func is place
    later = isinstance(place, cst.Attribute) and _is_building(program, place) and not called
    return dotted(place.value) if later and isinstance(place, cst.Attribute) else ""


def _unbound(program: Program, node: cst.Attribute) -> Node | None:
    """Return what `list.append(items, item)` changes."""
    call = program.tree.parents[node]
    plain = dotted(node.value) in _COLLECTIONS and program.scope(node).find(dotted(node.value)) is None
    return call.args[0].value if plain and isinstance(call, cst.Call) and call.args else None


def _is_collection(program: Program, node: cst.AugAssign) -> bool:
    """Whether `+=` changes the value itself, as it does with lists, and not with text and numbers."""
    made = (one.node for one in origins(program, node.target) if not one.depth)
    return any(_is_made_collection(one) for one in made)


def _is_made_collection(node: Node) -> bool:
    match node:
        case cst.List() | cst.Dict() | cst.Set() | cst.ListComp() | cst.SetComp() | cst.DictComp():
            return True
        case cst.Call(func=func):
            return dotted(func).rpartition(".")[2] in _COLLECTIONS
        case cst.Param(annotation=cst.Annotation(annotation=annotation)):
            base = annotation.value if isinstance(annotation, cst.Subscript) else annotation
            return dotted(base).rpartition(".")[2].lower() in _COLLECTIONS
        case _:
            return False


def _kept_by(program: Program, one: Origin, place: Node) -> str:
    """Return what keeps a value after the run that changes it, "" when nothing does or can."""
    if not one.keeper or isinstance(one.node, _FIXED) or dotted(one.node) in ("None", "True", "False"):
        return ""
    inside_self = one.keeper.count(".") == 1 and _is_building(program, place)
    return "" if inside_self and program.owner(one.node) is program.owner(place) else one.keeper


_FIXED = (
    *(cst.SimpleString, cst.ConcatenatedString, cst.FormattedString, cst.Integer, cst.Float, cst.Lambda),
    *(cst.Comparison, cst.UnaryOperation),
)


def _once(program: Program, name: str, value: Node | None) -> Iterator[Found]:
    for one in origins(program, value) if value is not None else ():
        made = dotted(one.node.func).rpartition(".")[2] if isinstance(one.node, cst.Call) else ""
        if made in _USED_UP or isinstance(one.node, cst.GeneratorExp):
            hint = "keep a list or a tuple of it"
            yield Found(one.node, f"`self.{name}` is used up by the first run", hint)
        elif made == _GROWS_WHEN_READ:
            yield Found(one.node, f"`self.{name}` grows whenever it is read", "keep a dict")


RULES = (
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
)
