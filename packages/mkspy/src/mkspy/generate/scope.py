"""What a function being written knows: how each field is written, and which names are taken."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import libcst as cst

from mkspy.generate.layout import INDENT


class Names:
    """Names that are taken; `new` gives out others."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def new(self, wanted: str) -> str:
        """Return `wanted`, with a number when it is taken."""
        name = self.free(wanted)
        self._taken.add(name)
        return name

    def free(self, wanted: str) -> str:
        """Return what `new` would, and leave it free: for a name that ends with its expression."""
        numbered = (f"{wanted}_{number}" for number in range(2, len(self._taken) + 3))
        return next(one for one in (wanted, *numbered) if one not in self._taken)


@dataclass(frozen=True)
class Scope:
    """The place of one operation in a function.

    Attributes:
        names: Shared by the whole function.
        known: How each field that there is can be read: a variable, or an attribute of one.
        wanted: Fields that are read later; others are not kept.
        block: Columns that statements are indented by.
        targets: Variables that fields must go to, because every case of a branch puts them there.
    """

    names: Names
    known: Mapping[str, cst.BaseExpression]
    wanted: frozenset[str]
    block: int
    targets: Mapping[str, str] = field(default_factory=dict[str, str])

    def knowing(self, known: Mapping[str, cst.BaseExpression]) -> "Scope":
        return replace(self, known={**self.known, **known})

    def wanting(self, wanted: Iterable[str]) -> "Scope":
        return replace(self, wanted=frozenset(wanted))

    def deeper(self, levels: int = 1) -> "Scope":
        return replace(self, block=self.block + levels * INDENT)

    def inside(self, known: Mapping[str, cst.BaseExpression], wanted: Iterable[str]) -> "Scope":
        """Return the scope of the body of a loop."""
        return replace(self.knowing(known).wanting(wanted).deeper(), targets={})

    def target(self, output: str) -> str:
        """Return the variable to put an output into."""
        return self.targets.get(output) or self.names.new(output)
