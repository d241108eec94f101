"""What an expression can stand for, as far as reading tells; `None` is what is not known."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import libcst as cst

from mkspy.check.signatures import Signature


@dataclass(frozen=True, slots=True)
class Dspy:
    """A name of DSPy, without the modules it lives in."""

    name: str


@dataclass(frozen=True, slots=True)
class External:
    """A name from another module, by its whole path."""

    path: str


@dataclass(eq=False, slots=True)
class Class:
    """A class of the file. `kind` is what it becomes; `open` when it has bases the file does not show."""

    name: str
    node: cst.ClassDef
    bases: "tuple[Class, ...]" = ()
    kind: str = "other"
    open: bool = False
    library: str = ""
    methods: dict[str, cst.FunctionDef] = field(default_factory=dict[str, cst.FunctionDef])
    line: "tuple[Class, ...]" = ()

    def lineage(self) -> "Sequence[Class]":
        """Return the class and its bases in the file, nearest first."""
        if self.line:
            return self.line
        seen: set[Class] = {self}
        found: list[Class] = [self]
        for one in found:
            new = [base for base in dict.fromkeys(one.bases) if base not in seen]
            seen.update(new)
            found += new
        return found

    def method(self, name: str) -> cst.FunctionDef | None:
        """Return the definition of a method, inherited ones included."""
        return next((one.methods[name] for one in self.lineage() if name in one.methods), None)


@dataclass(frozen=True, slots=True)
class ClassObject:
    value: Class


@dataclass(frozen=True, slots=True)
class Function:
    node: cst.FunctionDef | cst.Lambda
    owner: Class | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    value: Class


@dataclass(frozen=True, slots=True)
class Predictor:
    """A predictor of DSPy's own: its kind and its signature."""

    kind: str
    signature: Signature


@dataclass(frozen=True, slots=True)
class Bound:
    """A method that runs what it belongs to: `acall` makes something to await."""

    name: str
    value: "Predictor | Instance"


@dataclass(frozen=True, slots=True)
class Result:
    """A prediction and the fields it is known to have."""

    fields: frozenset[str]
    of: str = ""


@dataclass(frozen=True, slots=True)
class Runner:
    """A `dspy.Parallel`, which calls modules with the inputs in its pairs."""


@dataclass(frozen=True, slots=True)
class Awaitable:
    value: "Value"


@dataclass(frozen=True, slots=True)
class Listed:
    """A list of things that are all alike."""

    value: "Value"


type Value = (
    Dspy
    | External
    | ClassObject
    | Function
    | Instance
    | Predictor
    | Bound
    | Result
    | Runner
    | Awaitable
    | Listed
    | Signature
    | None
)
