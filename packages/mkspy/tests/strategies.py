"""Random types, values, operations and tasks, all of them well-typed."""

import datetime
import string
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

from hypothesis import strategies as st
from mkspy.spec import (
    Branch,
    Chain,
    Classify,
    Example,
    Extract,
    Filter,
    Free,
    Map,
    Operation,
    Parallel,
    Reduce,
    Repeat,
    Step,
    Task,
    Tool,
    default_measure,
)
from mkspy.types import (
    BOOLEAN,
    INTEGER,
    JSON,
    NUMBER,
    PRIMITIVES,
    TEXT,
    Field,
    List,
    Literal,
    Primitive,
    Record,
    Tuple,
    Type,
    Union,
    optional,
    to_text,
    union,
)

HOSTILE = (
    '"""',
    "'''",
    '"',
    "'",
    "\\",
    "\n",
    "\r\n",
    "{x}",
    "#",
    "\t",
    "\x00",
    "\x7f",
    "\u2028",
    "\u202e",
    "]]",
    "é",
    "😀",
)
"""Pieces that end a literal, a line or a file when someone pastes text into source."""


def texts(max_size: int = 20) -> st.SearchStrategy[str]:
    """Any text that a file can hold, rich in what breaks quoting."""
    letters = st.characters(exclude_categories=["Cs"])
    pieces = (
        st.sampled_from(HOSTILE)
        | st.text(letters, max_size=4)
        | st.sampled_from(["Say so.", "import os", " "])
    )
    return st.lists(pieces, max_size=6).map("".join).map(lambda text: text[:max_size])


def labels() -> st.SearchStrategy[list[str]]:
    """Labels: different from each other, none of them blank."""
    return st.lists(texts(12).filter(str.strip), min_size=2, max_size=4, unique=True)


def scalars() -> st.SearchStrategy[str | int | bool]:
    """Values of literal types."""
    return st.booleans() | st.integers(-(2**40), 2**40) | texts(8)


def primitives() -> st.SearchStrategy[Primitive]:
    """All but null, which is a type of interest only in a union."""
    return st.sampled_from([type for name, type in PRIMITIVES.items() if name != "null"])


def literals() -> st.SearchStrategy[Literal]:
    """One to four values."""
    return st.lists(scalars(), min_size=1, max_size=4).map(lambda values: Literal(tuple(values)))


def types(max_leaves: int = 5) -> st.SearchStrategy[Type]:
    """Any type, records with defaults and descriptions among them."""
    return st.recursive(primitives() | literals(), _compound, max_leaves=max_leaves)


def _compound(inner: st.SearchStrategy[Type]) -> st.SearchStrategy[Type]:
    several = st.lists(inner, min_size=1, max_size=3)
    return (
        inner.map(List)
        | inner.map(optional)
        | several.map(lambda items: Tuple(tuple(items)))
        | several.map(lambda options: union(*options))
        | records(inner)
    )


@st.composite
def records(draw: st.DrawFn, inner: st.SearchStrategy[Type] | None = None) -> Record:
    """A record whose name follows from what it is, so that no two have one name."""
    names = draw(st.lists(st.sampled_from(list(string.ascii_lowercase)), min_size=1, max_size=3, unique=True))
    fields = [draw(_record_field(f"{name}_field", types(3) if inner is None else inner)) for name in names]
    description = draw(texts())
    name = f"Record{crc32(repr((fields, description)).encode('utf-8', 'replace')):x}"
    return Record(name, tuple(fields), description)


@st.composite
def _record_field(draw: st.DrawFn, name: str, inner: st.SearchStrategy[Type]) -> Field:
    type = draw(inner)
    description = draw(texts())
    return (
        Field(name, type, description, draw(values(type)))
        if draw(_rarely())
        else Field(name, type, description)
    )


def _rarely() -> st.SearchStrategy[bool]:
    return st.integers(0, 4).map(lambda number: number == 4)


_VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("text", "code"), texts()),
    **dict.fromkeys(("image", "audio", "file"), st.just("https://example.com/picture.png")),
    "number": st.integers(-1000, 1000) | st.floats(allow_nan=False, allow_infinity=False),
    "integer": st.integers(-(2**40), 2**40),
    "boolean": st.booleans(),
    "date": st.dates().map(datetime.date.isoformat),
    "datetime": st.datetimes().map(datetime.datetime.isoformat),
    "json": st.recursive(
        st.none() | st.booleans() | st.integers(-99, 99) | texts(8),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts(6), inner, max_size=2),
        max_leaves=3,
    ),
    "history": st.lists(st.dictionaries(st.just("question"), texts(8)), max_size=2).map(
        lambda messages: {"messages": messages}
    ),
    "null": st.none(),
}


@st.composite
def values(draw: st.DrawFn, type: Type) -> Any:
    """A value of `type`, as JSON has it."""
    match type:
        case Primitive(name):
            return draw(_VALUES[name])
        case Literal(options):
            return draw(st.sampled_from(options))
        case List(item):
            return draw(st.lists(values(item), max_size=2))
        case Tuple(items):
            return [draw(values(item)) for item in items]
        case Union(options):
            return draw(values(draw(st.sampled_from(options))))
        case Record():
            return {each.name: draw(values(each.type)) for each in type.fields}


def wider(type: Type) -> st.SearchStrategy[Type]:
    """A type that takes every value of `type`."""
    always = st.sampled_from([type, type, optional(type), union(type, TEXT), union(type, INTEGER)])
    match type:
        case Literal(options) if all(isinstance(value, str) for value in options):
            return always | st.just(TEXT)
        case Primitive("integer"):
            return always | st.sampled_from([NUMBER, JSON])
        case List(item):
            return always | wider(item).map(List)
        case _:
            return always


class _Maker:
    """Draws operations whose inputs are among what there is, or new, and whose outputs are new."""

    def __init__(self, draw: st.DrawFn, inner: st.SearchStrategy[Type]) -> None:
        self._draw, self._types = draw, inner
        self._count = 0
        self.tools: list[Tool] = []

    def new(self, word: str) -> str:
        """A name that nothing has."""
        self._count += 1
        return f"{word}_{self._count}"

    def field(self, word: str, type: Type | None = None) -> Field:
        return Field(self.new(word), type or self._draw(self._types), self._draw(st.just("") | texts()))

    def takes(self, scope: Sequence[Field], must: Sequence[Field] = ()) -> tuple[Field, ...]:
        """Inputs: some of what there is, each as wide as it likes, and what has to be there."""
        chosen = self._draw(st.lists(st.sampled_from(scope), max_size=2, unique=True)) if scope else []
        found = [Field(each.name, self._draw(wider(each.type))) for each in chosen]
        named = {each.name for each in found}
        found += [each for each in must if each.name not in named]
        return tuple(found) or (self.field("given"),)

    def gives(self) -> tuple[Field, ...]:
        return tuple(self.field("made") for _ in range(self._draw(st.integers(1, 2))))

    def step(self, inputs: tuple[Field, ...], outputs: tuple[Field, ...]) -> Step:
        strategy = self._draw(st.sampled_from(["auto", "predict", "chain_of_thought"]))
        tools: tuple[str, ...] = ()
        if self._draw(_rarely()):
            strategy = self._draw(st.sampled_from(["auto", "react"]))
            self.tools.append(self.tool(self.takes(()), "tool"))
            tools = (self.tools[-1].name,)
        return Step(self.new("step"), inputs, outputs, self._draw(texts()), strategy, tools)

    def tool(self, inputs: tuple[Field, ...], word: str = "call") -> Tool:
        module = self._draw(st.sampled_from(["tools", "shop.search"]))
        return Tool(self.new(word), inputs, self.field("found"), self._draw(texts()), module)

    def leaf(self, scope: Sequence[Field], must: Sequence[Field] = ()) -> Operation:
        inputs, word = self.takes(scope, must), self._draw(st.sampled_from(_LEAVES))
        name, said = self.new(word), self._draw(texts())
        match word:
            case "classify":
                many = self._draw(st.booleans())
                return Classify(name, inputs, tuple(self._draw(labels())), self.new("label"), many, said)
            case "extract":
                record = self._draw(records())
                return Extract(name, inputs, record, self.new("record"), self._draw(st.booleans()), said)
            case "free":
                return Free(name, inputs, self.gives(), said)
            case "call":
                return self.tool(inputs)
            case _:
                return self.step(inputs, self.gives())

    def operation(self, scope: Sequence[Field], depth: int) -> Operation:
        kind = self._draw(st.sampled_from(_KINDS)) if depth > 0 else "leaf"
        return getattr(self, kind)(scope, depth - 1) if kind != "leaf" else self.leaf(scope)

    def chain(self, scope: Sequence[Field], depth: int) -> Chain:
        steps: list[Operation] = []
        for _ in range(self._draw(st.integers(1, 3))):
            steps.append(self.operation(scope, depth))
            scope = [*scope, *steps[-1].outputs]
        return Chain(*steps)

    def parallel(self, scope: Sequence[Field], depth: int) -> Parallel:
        return Parallel(*(self.operation(scope, depth) for _ in range(self._draw(st.integers(2, 3)))))

    def branch(self, scope: Sequence[Field], depth: int) -> Branch:
        kind = self._draw(st.sampled_from([BOOLEAN]) | labels().map(lambda several: Literal(tuple(several))))
        on, outputs = self.field("choice", kind), self.gives()
        options = (True, False) if kind == BOOLEAN else kind.values
        rest = self._draw(st.booleans())
        covered = options[:-1] if rest else options
        cases = tuple((value, self._case(scope, outputs, depth)) for value in covered)
        return Branch(on, cases, self._case(scope, outputs, depth) if rest else None)

    def _case(self, scope: Sequence[Field], outputs: tuple[Field, ...], depth: int) -> Operation:
        before = [self.operation(scope, depth - 1)] if self._draw(_rarely()) else []
        last = self.step(self.takes([*scope, *(each for one in before for each in one.outputs)]), outputs)
        return Chain(*before, last) if before else last

    def body(self, scope: Sequence[Field], must: Sequence[Field], outputs: Sequence[Field]) -> Operation:
        """An operation that takes all of `must` and gives all of `outputs`, in one step or in two."""
        if self._draw(st.booleans()):
            return self.step(self.takes(scope, must), tuple(outputs))
        first = self.leaf(scope, must)
        return Chain(first, self.step(self.takes([*scope, *first.outputs], must), tuple(outputs)))

    def map(self, scope: Sequence[Field], depth: int) -> Map:
        item, outputs = self.field("item"), self.gives()
        into = tuple((each.name, self.new("several")) for each in outputs)
        return Map(self.new("map"), self.body(scope, [item], outputs), (item.name, self.new("items")), into)

    def filter(self, scope: Sequence[Field], depth: int) -> Filter:
        item, keep = self.field("item"), self.field("keep", BOOLEAN)
        body = self.body(scope, [item], [keep])
        return Filter(self.new("filter"), body, (item.name, self.new("items")), keep.name, self.new("kept"))

    def reduce(self, scope: Sequence[Field], depth: int) -> Reduce:
        item, before = self.field("item"), self.field("before")
        after = self.field("after", before.type)
        body, start = self.body(scope, [item, before], [after]), self._draw(values(before.type))
        each, carry = (item.name, self.new("items")), (after.name, before.name)
        return Reduce(self.new("reduce"), body, each, carry, start, self.new("total"))

    def repeat(self, scope: Sequence[Field], depth: int) -> Repeat:
        before, done = self.field("draft"), self.field("done", BOOLEAN)
        after = self.field("better", before.type)
        until = done.name if self._draw(st.booleans()) else None
        body = self.body(scope, [before], [after, done])
        times = self._draw(st.integers(1, 3))
        return Repeat(self.new("repeat"), body, times, ((after.name, before.name),), until)


_LEAVES = ("step", "step", "classify", "extract", "free", "call")
_KINDS = ("leaf", "leaf", "chain", "parallel", "branch", "map", "filter", "reduce", "repeat")


@st.composite
def operations(draw: st.DrawFn, depth: int = 2, max_leaves: int = 3) -> Operation:
    """An operation of any kind that could be the process of a task, if no step uses tools."""
    return _Maker(draw, types(max_leaves)).operation((), depth)


@st.composite
def chains(draw: st.DrawFn) -> tuple[Operation, ...]:
    """Three operations that make a chain in this order."""
    maker = _Maker(draw, types(3))
    steps: list[Operation] = []
    for _ in range(3):
        scope = [each for step in steps for each in step.outputs]
        steps.append(maker.operation(scope, 1))
    return tuple(steps)


@st.composite
def tasks(draw: st.DrawFn, depth: int = 2, max_leaves: int = 3) -> Task:
    """A task with everything a task can have: tools, examples, defaults, a metric, constraints."""
    maker = _Maker(draw, types(max_leaves))
    process = maker.operation((), depth)
    inputs = [*process.inputs] or [maker.field("unused")]
    inputs = [_maybe_optional(draw, each) for each in inputs]
    outputs = draw(st.lists(st.sampled_from(process.outputs), min_size=1, unique=True))
    outputs = [Field(each.name, draw(wider(each.type)), draw(texts())) for each in outputs]
    is_free = isinstance(process, Free) and draw(st.booleans())
    return Task(
        "task_of_all",
        draw(texts().filter(str.strip)),
        tuple(inputs),
        tuple(outputs),
        None if is_free else process,
        tuple(maker.tools),
        tuple(draw(st.lists(_examples(inputs, outputs), max_size=2))),
        tuple((each.name, default_measure(each.type)) for each in outputs if draw(st.booleans())),
        tuple(draw(st.lists(texts(), max_size=2))),
    )


def _maybe_optional(draw: st.DrawFn, field: Field) -> Field:
    if not draw(_rarely()):
        return Field(field.name, field.type, draw(texts()))
    return Field(field.name, field.type, draw(texts()), draw(values(field.type)))


@st.composite
def _examples(draw: st.DrawFn, inputs: Sequence[Field], outputs: Sequence[Field]) -> Example:
    sides = [{each.name: draw(values(each.type)) for each in fields} for fields in (inputs, outputs)]
    return Example(*sides)


def described(operation: Operation) -> str:
    """What an operation takes and gives, for a message of a failing test."""
    sides = [", ".join(f"{each.name}: {to_text(each.type)}" for each in side) for side in _sides(operation)]
    return " -> ".join(sides)


def _sides(operation: Operation) -> tuple[tuple[Field, ...], tuple[Field, ...]]:
    return operation.inputs, operation.outputs
