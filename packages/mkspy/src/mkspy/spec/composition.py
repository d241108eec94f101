"""Operations one after the other, side by side, or one of several. Each is a function of fields again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from mkspy.errors import BadSpec, Place, clip
from mkspy.spec.fields import ROOT, Given, contract, disjoint, field_of, keep, listed, merged, wanted
from mkspy.spec.loops import Filter, Map, Reduce, Repeat
from mkspy.spec.operations import Classify, Extract, Free, Step, Tool
from mkspy.spec.walk import children_places, distinct, shallow
from mkspy.types import BOOLEAN, Field, Literal, Scalar, Type, misfit, to_text, union

type Operation = (
    Step | Classify | Extract | Tool | Map | Filter | Reduce | Chain | Parallel | Branch | Repeat | Free
)


@dataclass(frozen=True, init=False)
class Chain:
    """One operation after the other. Each sees what the chain takes, and all that came before it.

    A chain in a chain is part of it, so how steps are grouped makes no difference.
    """

    steps: "tuple[Operation, ...]"
    inputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)
    outputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)

    def __init__(self, *steps: "Operation") -> None:
        flat = tuple(one for step in steps for one in (step.steps if isinstance(step, Chain) else (step,)))
        if not flat:
            raise BadSpec(Place(ROOT, "Chain"), " has no steps; give it at least one")
        keep(self, steps=flat)
        places = children_places(self)
        keep(self, outputs=disjoint((at, step.outputs) for at, step in zip(places, flat, strict=True)))
        keep(self, inputs=merged(self._from_outside(places)))
        distinct(self)
        shallow(self)

    def _from_outside(self, places: Sequence[Place]) -> Iterator[tuple[Place, list[Field]]]:
        """Yield what each step takes that no earlier one gives; check what an earlier one does."""
        last = {each.name: at for at, step in enumerate(self.steps) for each in step.outputs}
        scope: dict[str, Given] = {}
        for at, step in zip(places, self.steps, strict=True):
            for each in step.inputs:
                if each.name in scope:
                    wanted(each, scope[each.name], at)
                elif each.name in last:
                    raise BadSpec(
                        at, f" wants {each.name}, which ", places[last[each.name]], " gives later; swap them"
                    )
            yield at, [each for each in step.inputs if each.name not in scope]
            scope |= {each.name: Given(each, at) for each in step.outputs}

    @property
    def children(self) -> "tuple[Operation, ...]":
        """The steps."""
        return self.steps

    @property
    def paths(self) -> tuple[str, ...]:
        """Where each child stands."""
        return tuple(f"[{at}]" for at in range(len(self.steps)))


@dataclass(frozen=True, init=False)
class Parallel:
    """Several operations side by side on the same inputs; each gives names of its own."""

    branches: "tuple[Operation, ...]"
    inputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)
    outputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)

    def __init__(self, *branches: "Operation") -> None:
        where = Place(ROOT, "Parallel")
        if len(branches) < 2:
            raise BadSpec(where, f" has {len(branches)} branches; give it at least two")
        keep(self, branches=branches)
        pairs = list(zip(children_places(self), branches, strict=True))
        keep(self, inputs=merged((at, each.inputs) for at, each in pairs))
        keep(self, outputs=disjoint((at, each.outputs) for at, each in pairs))
        contract(self.inputs, self.outputs, where, least=0)
        distinct(self)
        shallow(self)

    @property
    def children(self) -> "tuple[Operation, ...]":
        """The branches."""
        return self.branches

    @property
    def paths(self) -> tuple[str, ...]:
        """Where each child stands."""
        return tuple(f".parallel[{at}]" for at in range(len(self.branches)))


@dataclass(frozen=True)
class Branch:
    """One of several operations, chosen by the value of a field.

    It gives the names that every case gives, each of a type that has them all.
    """

    on: Field
    cases: "tuple[tuple[Scalar, Operation], ...]"
    otherwise: "Operation | None" = None
    inputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)
    outputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        where = self._where
        keep(self, cases=tuple((value, operation) for value, operation in self.cases))
        self._check_values(where)
        places = children_places(self)
        readers = ((at, each.inputs) for at, each in zip(places, self.children, strict=True))
        keep(self, inputs=merged([(where, [self.on]), *readers]), outputs=self._joined(places))
        contract(self.inputs, self.outputs, where)
        distinct(self)
        shallow(self)

    @property
    def _where(self) -> Place:
        return Place(ROOT, f"Branch on {self.on.name!r}")

    @property
    def children(self) -> "tuple[Operation, ...]":
        """The cases in order, then what else there is."""
        cases = tuple(case for _, case in self.cases)
        return (*cases, self.otherwise) if self.otherwise else cases

    @property
    def paths(self) -> tuple[str, ...]:
        """Where each child stands."""
        cases = tuple(f".cases[{at}]" for at in range(len(self.cases)))
        return (*cases, ".otherwise") if self.otherwise else cases

    def _check_values(self, where: Place) -> None:
        values = [value for value, _ in self.cases]
        if not values:
            raise BadSpec(where, " has no cases; give it at least one")
        for at, value in enumerate(values):
            if misfit(value, self.on.type):
                raise BadSpec(
                    where, f" has a case {clip(value)}, but {self.on.name} is {to_text(self.on.type)}"
                )
            if any(value == each and type(value) is type(each) for each in values[:at]):
                raise BadSpec(where, f" has two cases {clip(value)}")
        missing = _uncovered(self.on.type, values)
        if missing and self.otherwise is None:
            raise BadSpec(where, f" has no case for {missing}; add it, or an otherwise")
        if not missing and self.otherwise is not None:
            raise BadSpec(where, " has a case for every value; the otherwise is never used, take it away")

    def _joined(self, places: Sequence[Place]) -> tuple[Field, ...]:
        first, *others = self.children
        common = first.outputs
        for at, other in zip(places[1:], others, strict=True):
            common = tuple(each for each in common if field_of(other.outputs, each.name))
            if not common:
                gives, too = listed(other.outputs), listed(first.outputs)
                raise BadSpec(at, f" gives {gives}; ", places[0], f" gives {too}; cases give the same names")
        return tuple(replace(each, type=self._type(each.name)) for each in common)

    def _type(self, name: str) -> Type:
        return union(*(each.type for case in self.children for each in case.outputs if each.name == name))


def _uncovered(type: Type, values: Sequence[Scalar]) -> str:
    """Return the values that no case is for, "" when there are none."""
    closed = Literal((True, False)) if type == BOOLEAN else type
    if not isinstance(closed, Literal):
        return f"the rest of {to_text(type)}"
    left = [each for each in closed.values if each not in Literal(tuple(values)).values]
    return to_text(Literal(tuple(left))) if left else ""
