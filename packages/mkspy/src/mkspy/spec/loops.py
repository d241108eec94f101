"""Operations that run another one several times: on each item of a list, or on its own result."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mkspy.errors import BadSpec, Place, clip
from mkspy.spec.fields import (
    ROOT,
    Given,
    as_field,
    contract,
    disjoint,
    field_of,
    keep,
    listed,
    merged,
    named,
    place,
    wanted,
)
from mkspy.spec.walk import Loop, shallow
from mkspy.types import BOOLEAN, REQUIRED, Field, Json, List, is_subtype, misfit, to_text

if TYPE_CHECKING:
    from mkspy.spec.composition import Operation

type Pairs = tuple[tuple[str, str], ...]

MAX_TIMES = 100


@dataclass(frozen=True)
class Map(Loop):
    """Run `body` on each item of a list, and gather what it gives.

    Attributes:
        each: (what the body calls an item, the list).
        into: (what the body gives, the list of them), one or more.
    """

    name: str
    body: "Operation"
    each: tuple[str, str]
    into: Pairs
    inputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)
    outputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        where = place(self)
        named(self.name, where)
        keep(self, each=_pair(self.each, where), into=tuple(_pair(pair, where) for pair in self.into))
        inputs, _ = _loop(self, where)
        given = [(gathered, _output(self, name, where)) for name, gathered in self.into]
        outputs = [as_field(gathered, List(each.type), where, each.description) for gathered, each in given]
        keep(self, inputs=inputs, outputs=disjoint((where, [each]) for each in outputs))
        contract(self.inputs, self.outputs, where)
        shallow(self)


@dataclass(frozen=True)
class Filter(Loop):
    """Keep the items of a list of which `body` says so.

    Attributes:
        each: (what the body calls an item, the list).
        keep: The boolean that the body gives.
        into: The list of what is kept.
    """

    name: str
    body: "Operation"
    each: tuple[str, str]
    keep: str
    into: str
    inputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)
    outputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        where = place(self)
        named(self.name, where)
        keep(self, each=_pair(self.each, where))
        inputs, item = _loop(self, where)
        _decides(_output(self, self.keep, where), where)
        keep(self, inputs=inputs, outputs=(as_field(self.into, List(item.type), where, item.description),))
        contract(self.inputs, self.outputs, where)
        shallow(self)


@dataclass(frozen=True)
class Reduce(Loop):
    """Go through a list with a value that `body` renews at each item.

    Attributes:
        each: (what the body calls an item, the list).
        carry: (what the body gives, what it is called when the body takes it at the next item).
        start: What the value is before the first item.
        into: What it is called after the last.
    """

    name: str
    body: "Operation"
    each: tuple[str, str]
    carry: tuple[str, str]
    start: Json = field(hash=False)
    into: str
    inputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)
    outputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        where = place(self)
        named(self.name, where)
        keep(self, each=_pair(self.each, where), carry=_pair(self.carry, where))
        inputs, _ = _loop(self, where)
        value = _carried(self, self.carry, where)
        if reason := misfit(self.start, value.type):
            raise BadSpec(where, f" starts with what {value.name} cannot be: {reason}")
        keep(self, inputs=tuple(each for each in inputs if each.name != value.name))
        keep(self, outputs=(as_field(self.into, value.type, where, value.description),))
        contract(self.inputs, self.outputs, where)
        shallow(self)


@dataclass(frozen=True)
class Repeat(Loop):
    """Run `body` several times, each time on what it gave before; what it gives last is the result.

    Attributes:
        times: How often at most, 1 to 100.
        carry: (what the body gives, what it is called when the body takes it the next time).
        until: A boolean that the body gives; true ends it early.
    """

    name: str
    body: "Operation"
    times: int
    carry: Pairs
    until: str | None = None
    inputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)
    outputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        where = place(self)
        named(self.name, where)
        if isinstance(self.times, bool) or not 1 <= self.times <= MAX_TIMES:
            raise BadSpec(where, f" repeats {clip(self.times)} times; it is from 1 to {MAX_TIMES}")
        keep(self, carry=tuple(_pair(pair, where) for pair in self.carry))
        if not self.carry:
            raise BadSpec(
                where, " carries nothing, so that each time would be the same; name what it improves"
            )
        taken = [_carried(self, pair, where).name for pair in self.carry]
        if len(set(taken)) < len(taken):
            raise BadSpec(where, " carries two values into one name")
        if self.until is not None:
            _decides(_output(self, self.until, where), where)
        keep(self, inputs=self.body.inputs, outputs=self.body.outputs)
        shallow(self)


def _pair(pair: Sequence[str], where: Place) -> tuple[str, str]:
    if isinstance(pair, str) or len(pair) != 2:
        raise BadSpec(where, f" has {clip(pair)} where a pair of names is expected")
    return pair[0], pair[1]


def _loop(operation: Map | Filter | Reduce, where: Place) -> tuple[tuple[Field, ...], Field]:
    """Return what a loop over a list takes, and the item that its body takes."""
    name, many = operation.each
    item = _input(operation, name, where)
    others = [each for each in operation.body.inputs if each.name != name]
    items = as_field(many, List(item.type), where, item.description)
    if many == name:
        raise BadSpec(where, f" calls an item what the list is called, {many!r}; choose another name")
    return merged([(where, [items]), (place(operation.body, f"{ROOT}.body"), others)]), item


def _input(operation: Map | Filter | Reduce | Repeat, name: str, where: Place) -> Field:
    found = field_of(operation.body.inputs, name)
    if found is None:
        body = place(operation.body, f"{ROOT}.body")
        raise BadSpec(where, f" hands {name} to ", body, f", which takes {listed(operation.body.inputs)}")
    return replace(found, default=REQUIRED)


def _output(operation: Map | Filter | Reduce | Repeat, name: str, where: Place) -> Field:
    found = field_of(operation.body.outputs, name)
    if found is None:
        body = place(operation.body, f"{ROOT}.body")
        raise BadSpec(where, f" wants {name} of ", body, f", which gives {listed(operation.body.outputs)}")
    return found


def _carried(operation: Reduce | Repeat, pair: tuple[str, str], where: Place) -> Field:
    given, taken = _output(operation, pair[0], where), _input(operation, pair[1], where)
    wanted(taken, Given(given, place(operation.body, f"{ROOT}.body")), where)
    return taken


def _decides(output: Field, where: Place) -> None:
    if not is_subtype(output.type, BOOLEAN):
        raise BadSpec(where, f" decides by {output.name}, which is {to_text(output.type)} and not boolean")
