"""One walk over a LibCST tree: nodes by type, who holds whom, and what each scope binds.

LibCST's own scope and position providers cost several times its parser, so the names are looked up here and
positions are asked for only where there is a finding.
"""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, cached_property, lru_cache
from typing import Literal, NamedTuple, cast

import libcst as cst
from libcst.metadata import CodeRange, PositionProvider

type Node = cst.CSTNode
type Kind = Literal["import", "class", "function", "assign", "loop", "parameter", "other"]

_SKIPPED = (
    *("lpar", "rpar", "lbracket", "rbracket", "lbrace", "rbrace", "comma", "semicolon", "colon", "equal"),
    *(
        "dot",
        "leading_lines",
        "lines_after_decorators",
        "header",
        "footer",
        "trailing_whitespace",
        "operator",
    ),
    *("posonly_ind", "first_colon", "second_colon", "separator", "trailing_comma", "keyword", "indent"),
    *("asynchronous", "conversion"),
)
"""Fields that hold no meaning, or a meaning the node's type already tells."""

_CHILDREN: dict[str, tuple[str, ...]] = {
    "Attribute": ("value",),
    "Param": (),
    "FunctionDef": (),
    "Lambda": (),
    "ClassDef": (),
    "Import": (),
    "ImportFrom": (),
    "Global": (),
    "Nonlocal": (),
    "MatchKeywordElement": ("pattern",),
    "MatchAs": ("pattern",),
    "MatchStar": (),
    "MatchMapping": ("elements",),
    "TypeVar": ("bound",),
    "ParamSpec": (),
    "TypeVarTuple": (),
    "TypeAlias": ("type_parameters", "value"),
    "CompFor": (),
}
"""Where a name in a field is no expression, or needs the care `Tree._special` takes."""

_STORES = {
    ("AssignTarget", "target"),
    ("AnnAssign", "target"),
    ("AugAssign", "target"),
    ("For", "target"),
    ("NamedExpr", "target"),
    ("AsName", "name"),
}
_KEEPS_STORE = {"Tuple", "List", "Element", "StarredElement"}
_PLAIN = {str, bool, type(None), cst.MaybeSentinel}
_COMPREHENSIONS = (cst.ListComp, cst.SetComp, cst.DictComp, cst.GeneratorExp)


_STEPS = 20_000
_STEPS_A_NODE = 15
"""What a check may take, so that it is linear in the source. Ordinary programs take 2 to 8 steps a node."""


class Entangled(Exception):
    """The parts of a program hang together in so many ways that following them takes too long."""


class Binding(NamedTuple):
    """One place where a name gets a value; `value` is the expression, where there is exactly one."""

    kind: Kind
    node: Node
    value: cst.BaseExpression | None = None
    path: str = ""


@dataclass(eq=False, slots=True)
class Scope:
    """What the names of a module, class, function or comprehension stand for."""

    kind: Literal["module", "class", "function", "comprehension"]
    node: Node
    parent: "Scope | None" = None
    bindings: dict[str, list[Binding]] = field(default_factory=dict[str, list[Binding]])
    outer: dict[str, "Scope"] = field(default_factory=dict[str, "Scope"])

    def function(self) -> "Scope":
        """Return the function, class or module around a comprehension."""
        scope = self
        while scope.kind == "comprehension" and scope.parent:
            scope = scope.parent
        return scope

    def find(self, name: str) -> "tuple[Scope, list[Binding]] | None":
        """Return the scope that binds `name`, and how; a class's names are not seen from its methods."""
        scope: Scope | None = self
        while scope:
            if scope.kind != "class" or scope is self:
                if name in scope.bindings:
                    return scope, scope.bindings[name]
                scope_named = scope.outer.get(name)
                if scope_named and name in scope_named.bindings:
                    return scope_named, scope_named.bindings[name]
            scope = scope.parent
        return None


class _Positions(PositionProvider):
    """LibCST's provider without its wrapper, whose own visit of every node doubles the time."""

    def of(self, module: cst.Module) -> Mapping[Node, CodeRange]:
        self._gen_impl(module)
        return cast("Mapping[Node, CodeRange]", self._computed)


def _ranges(module: cst.Module) -> Mapping[Node, CodeRange]:
    return _Positions().of(module)


@cache
def _children(kind: type[Node]) -> tuple[tuple[str, bool], ...]:
    name = kind.__name__
    if name in _CHILDREN:
        names: Sequence[str] = _CHILDREN[name]
    elif is_dataclass(kind):
        names = [one.name for one in fields(kind) if not one.name.startswith("whitespace")]
        names = [one for one in names if one not in _SKIPPED]
    else:
        names = ()
    return tuple((one, (name, one) in _STORES) for one in names)


class Tree:
    """A parsed module with what one walk learns about it."""

    def __init__(self, module: cst.Module) -> None:
        self.module = module
        self.nodes: dict[type[Node], list[Node]] = {}
        self.parents: dict[Node, Node] = {}
        self.scopes: dict[Node, Scope] = {}
        self.own: dict[Node, Scope] = {}
        self.stored: set[Node] = set()
        self.top = Scope("module", module)
        self.stars: list[str] = []
        self._stack: list[tuple[Node, Scope, Node | None, bool]] = [(module, self.top, None, False)]
        self._walk()
        self.steps = 0
        self.most_steps = _STEPS + _STEPS_A_NODE * len(self.scopes)

    def step(self, steps: int = 1) -> None:
        """Count what following values takes. Raises `Entangled` when it is too much."""
        self.steps += steps
        if self.steps > self.most_steps:
            raise Entangled

    def of[N: Node](self, *kinds: type[N]) -> Iterator[N]:
        """Yield the nodes of these types, in the order of the source within a type."""
        for kind in kinds:
            yield from cast("list[N]", self.nodes.get(kind, []))

    def within(self, node: Node) -> Iterator[Node]:
        """Yield a node and all below it that mean something."""
        stack = [node]
        while stack:
            one = stack.pop()
            self.step()
            yield one
            stack += [child for child in self.below(one)][::-1]

    def below(self, node: Node) -> list[Node]:
        """Return what the walk saw directly below a node."""
        return self._below.get(node, [])

    def around(self, node: Node) -> Iterator[Node]:
        """Yield what holds a node, from the inside out."""
        if node not in self.parents and node in self._attributes:
            node = self._attributes[node]
            yield node
        while node in self.parents:
            node = self.parents[node]
            self.step()
            yield node

    @cached_property
    def _attributes(self) -> dict[Node, Node]:
        """The attributes by the names behind their dots, which the walk does not stop at."""
        return {node.attr: node for node in self.of(cst.Attribute)}

    def positions(self, nodes: Sequence[Node]) -> list[tuple[int, int]]:
        """Return line and column of nodes, both from 1."""
        ranges = _ranges(self.module)
        starts = [ranges[node].start if node in ranges else None for node in nodes]
        return [(start.line, start.column + 1) if start else (1, 1) for start in starts]

    def _walk(self) -> None:
        self._below: dict[Node, list[Node]] = {}
        stack, below = self._stack, self._below
        while stack:
            node, scope, parent, store = stack.pop()
            kind = type(node)
            self.nodes.setdefault(kind, []).append(node)
            self.scopes[node] = scope
            if parent is not None:
                self.parents[node] = parent
                below.setdefault(parent, []).append(node)
            if store:
                self.stored.add(node)
            special = _SPECIAL.get(kind)
            start = len(stack)
            if special:
                scope = special(self, node, scope, store)
            keep = store and kind.__name__ in _KEEPS_STORE
            for name, stores in _children(kind):
                self._push(getattr(node, name), scope, node, stores or keep)
            stack[start:] = stack[start:][::-1]

    def _push(self, value: object, scope: Scope, parent: Node, store: bool = False) -> None:
        kind = type(
            value
        )  # `isinstance` with the classes of LibCST, which are abstract, takes several times as long
        if kind is list or kind is tuple:
            for one in cast("Sequence[object]", value):
                self._push(one, scope, parent, store)
        elif kind not in _PLAIN:
            self._stack.append((cast("Node", value), scope, parent, store))

    def _bind(self, scope: Scope, name: str, binding: Binding) -> None:
        scope = scope.outer.get(name, scope)
        scope.bindings.setdefault(name, []).append(binding)

    # What binds a name, or opens a scope. Each returns the scope of the node's other children.

    def _name(self, node: Node, scope: Scope, store: bool) -> Scope:
        if store and isinstance(node, cst.Name):
            parent = self.parents[node]
            where = scope.function() if isinstance(parent, cst.NamedExpr) else scope
            self._bind(where, node.value, self._bound(node, parent))
        return scope

    def _bound(self, node: cst.Name, parent: Node) -> Binding:
        match parent:
            case cst.AssignTarget():
                assign = self.parents[parent]
                return Binding("assign", node, assign.value if isinstance(assign, cst.Assign) else None)
            case cst.AnnAssign(value=value) | cst.NamedExpr(value=value):
                return Binding("assign", node, value)
            case cst.For(iter=value) | cst.CompFor(iter=value):
                return Binding("loop", node, value)
            case _:
                return Binding("other", node)

    def _function(self, node: Node, scope: Scope, store: bool) -> Scope:
        assert isinstance(node, cst.FunctionDef | cst.Lambda)
        inner = self.own[node] = Scope("function", node, scope)
        if isinstance(node, cst.FunctionDef):
            self._bind(scope, node.name.value, Binding("function", node))
            self._push(node.decorators, scope, node)
            if node.type_parameters:
                self._push(node.type_parameters, inner, node)
            if node.returns:
                self._push(node.returns, inner if node.type_parameters else scope, node)
        typed = inner if isinstance(node, cst.FunctionDef) and node.type_parameters else scope
        for param in parameters(node.params):
            self._bind(inner, param.name.value, Binding("parameter", param))
            self._push(param, inner, node)
            self._push(param.annotation, typed, param)
            self._push(param.default, scope, param)
        self._push(node.body, inner, node)
        return scope

    def _class(self, node: Node, scope: Scope, store: bool) -> Scope:
        assert isinstance(node, cst.ClassDef)
        self._bind(scope, node.name.value, Binding("class", node))
        self._push(node.decorators, scope, node)
        if node.type_parameters:  # seen from the methods too, as names of a function around the class are
            scope = Scope("function", node, scope)
            self._push(node.type_parameters, scope, node)
        inner = self.own[node] = Scope("class", node, scope)
        self._push(node.bases, scope, node)
        self._push(node.keywords, scope, node)
        self._push(node.body, inner, node)
        return scope

    def _comprehension(self, node: Node, scope: Scope, store: bool) -> Scope:
        inner = self.own[node] = Scope("comprehension", node, scope)
        return inner

    def _comprehension_loop(self, node: Node, scope: Scope, store: bool) -> Scope:
        assert isinstance(node, cst.CompFor)
        is_first = isinstance(self.parents[node], _COMPREHENSIONS)  # what it walks is looked up outside
        self._push(node.target, scope, node, store=True)
        self._push(node.iter, scope.parent if is_first and scope.parent else scope, node)
        self._push(node.ifs, scope, node)
        self._push(node.inner_for_in, scope, node)
        return scope

    def _import(self, node: Node, scope: Scope, store: bool) -> Scope:
        assert isinstance(node, cst.Import | cst.ImportFrom)
        for name, path in imported(node):
            if name == "*":
                self.stars.append(path)
            self._bind(scope, name, Binding("import", node, path=path))
        return scope

    def _global(self, node: Node, scope: Scope, store: bool) -> Scope:
        assert isinstance(node, cst.Global | cst.Nonlocal)
        for item in node.names:
            name = item.name.value
            found = scope.parent.find(name) if isinstance(node, cst.Nonlocal) and scope.parent else None
            scope.outer[name] = found[0] if found else self.top
        return scope

    def _pattern(self, node: Node, scope: Scope, store: bool) -> Scope:
        assert isinstance(node, cst.MatchAs | cst.MatchStar | cst.MatchMapping)
        name = node.rest if isinstance(node, cst.MatchMapping) else node.name
        if name is not None:
            self._bind(scope, name.value, Binding("other", node))
        return scope

    def _type_name(self, node: Node, scope: Scope, store: bool) -> Scope:
        assert isinstance(node, cst.TypeVar | cst.TypeVarTuple | cst.ParamSpec | cst.TypeAlias)
        self._bind(scope, node.name.value, Binding("other", node))
        return scope


_SPECIAL: dict[type[Node], Callable[[Tree, Node, Scope, bool], Scope]] = {
    cst.Name: Tree._name,  # pyright: ignore[reportPrivateUsage]
    cst.FunctionDef: Tree._function,  # pyright: ignore[reportPrivateUsage]
    cst.Lambda: Tree._function,  # pyright: ignore[reportPrivateUsage]
    cst.ClassDef: Tree._class,  # pyright: ignore[reportPrivateUsage]
    cst.Import: Tree._import,  # pyright: ignore[reportPrivateUsage]
    cst.ImportFrom: Tree._import,  # pyright: ignore[reportPrivateUsage]
    cst.Global: Tree._global,  # pyright: ignore[reportPrivateUsage]
    cst.Nonlocal: Tree._global,  # pyright: ignore[reportPrivateUsage]
    cst.MatchAs: Tree._pattern,  # pyright: ignore[reportPrivateUsage]
    cst.MatchStar: Tree._pattern,  # pyright: ignore[reportPrivateUsage]
    cst.MatchMapping: Tree._pattern,  # pyright: ignore[reportPrivateUsage]
    cst.TypeVar: Tree._type_name,  # pyright: ignore[reportPrivateUsage]
    cst.TypeVarTuple: Tree._type_name,  # pyright: ignore[reportPrivateUsage]
    cst.ParamSpec: Tree._type_name,  # pyright: ignore[reportPrivateUsage]
    cst.TypeAlias: Tree._type_name,  # pyright: ignore[reportPrivateUsage]
    cst.CompFor: Tree._comprehension_loop,  # pyright: ignore[reportPrivateUsage]
    **dict.fromkeys(_COMPREHENSIONS, Tree._comprehension),  # pyright: ignore[reportPrivateUsage]
}


def parameters(params: cst.Parameters) -> list[cst.Param]:
    """Return all parameters of a function, in order, starred ones included."""
    star = [params.star_arg] if isinstance(params.star_arg, cst.Param) else []
    last = [params.star_kwarg] if params.star_kwarg else []
    return [*params.posonly_params, *params.params, *star, *params.kwonly_params, *last]


def dotted(node: Node | None) -> str:
    """Return `a.b.c` for a chain of names, "" for anything else."""
    parts: list[str] = []
    while type(node) is cst.Attribute:
        parts.append(node.attr.value)
        node = node.value
    if type(node) is not cst.Name:
        return ""
    return ".".join([node.value, *reversed(parts)]) if parts else node.value


def quoted(node: Node | None, otherwise: str) -> str:
    """Return how a message calls an expression: by its name in backquotes, or in other words."""
    text = dotted(node)
    return f"`{text}`" if text else otherwise


def imported(node: cst.Import | cst.ImportFrom) -> Iterator[tuple[str, str]]:
    """Yield what an import binds: the name in this module, and the path it stands for."""
    if isinstance(node, cst.Import):
        for alias in node.names:
            path = dotted(alias.name)
            name = dotted(alias.asname.name) if alias.asname else path.partition(".")[0]
            yield name, path if alias.asname else name
        return
    module = "." * len(node.relative) + dotted(node.module)
    if isinstance(node.names, cst.ImportStar):
        yield "*", module
        return
    for alias in node.names:
        path = dotted(alias.name)
        yield dotted(alias.asname.name) if alias.asname else path, f"{module}.{path}"


def literal(node: Node | None) -> str | None:
    """Return the text of a plain string, adjacent ones joined; `None` for anything else."""
    if type(node) is cst.SimpleString or type(node) is cst.ConcatenatedString:
        value = _string_value(node)
        return value if isinstance(value, str) else None
    return None


def _string_value(node: cst.SimpleString | cst.ConcatenatedString) -> object:
    if isinstance(node, cst.SimpleString):
        return _evaluated(node.value)
    try:
        return node.evaluated_value
    except (ValueError, SyntaxError, TypeError):
        return None


@lru_cache(2048)
def _evaluated(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return None


def number(node: Node | None) -> int | None:
    """Return the value of an integer that is written down: a literal, or a product or power of some."""
    match node:
        case cst.UnaryOperation(operator=cst.Minus(), expression=inner):
            value = number(inner)
            return None if value is None else -value
        case cst.BinaryOperation(left=left, operator=cst.Power() | cst.Multiply() as operator, right=right):
            return _combined(number(left), operator, number(right))
        case cst.Integer():
            return _HUGE if len(node.value) > 30 else node.evaluated_value
        case _:
            return None


_HUGE = 10**18


def _combined(left: int | None, operator: cst.BaseBinaryOp, right: int | None) -> int | None:
    if left is None or right is None:
        return None
    if isinstance(operator, cst.Multiply):
        return max(min(left * right, _HUGE), -_HUGE)
    return min(left**right, _HUGE) if 0 <= right <= 64 and abs(left) < 1_000 else _HUGE
