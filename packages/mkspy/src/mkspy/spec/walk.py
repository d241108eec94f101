"""The way through an operation and all that is inside it, and what holds for the whole."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mkspy.errors import BadSpec, Place
from mkspy.spec.fields import ROOT, place

if TYPE_CHECKING:
    from mkspy.spec.composition import Operation

MAX_DEPTH = 30


class Leaf:
    """An operation with none inside."""

    @property
    def children(self) -> "tuple[Operation, ...]":
        """The operations inside, one level down."""
        return ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Where each child stands."""
        return ()


class Loop:
    """An operation with one inside."""

    body: "Operation"

    @property
    def children(self) -> "tuple[Operation, ...]":
        """The body."""
        return (self.body,)

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the body stands."""
        return (".body",)


def walk(operation: "Operation", path: str = ROOT) -> "Iterator[tuple[str, Operation]]":
    """Yield an operation and all that is inside it, each with its path in the spec."""
    yield path, operation
    for step, child in zip(operation.paths, operation.children, strict=True):
        yield from walk(child, path + step)


def children_places(operation: "Operation") -> list[Place]:
    """Return where the operations inside stand, one level down."""
    pairs = zip(operation.paths, operation.children, strict=True)
    return [place(child, ROOT + step) for step, child in pairs]


def distinct(operation: "Operation") -> None:
    """Refuse two steps of one name: names become attributes. A tool is one function wherever it is called."""
    from mkspy.spec.operations import Tool

    seen: dict[str, tuple[Place, Operation]] = {}
    for path, each in walk(operation):
        name, at = getattr(each, "name", ""), place(each, path)
        if not name:
            continue
        first, other = seen.setdefault(name, (at, each))
        if first != at and not (isinstance(each, Tool) and each == other):
            raise BadSpec(at, " has the name of ", first, "; give every step a name of its own")


def shallow(operation: "Operation") -> None:
    """Refuse what is nested too deep to be read."""
    if _depth(operation) > MAX_DEPTH:
        raise BadSpec(place(operation), f" is more than {MAX_DEPTH} operations deep")


def _depth(operation: "Operation") -> int:
    return 1 + max(map(_depth, operation.children), default=0)


def bindings(operation: "Operation", path: str = ROOT) -> Iterator[tuple[str, Place]]:
    """Yield every name that gets a value in an operation, also inside; once for all cases of a branch."""
    from mkspy.spec.composition import Branch, Chain, Parallel
    from mkspy.spec.loops import Filter, Map, Reduce, Repeat

    children = zip(operation.paths, operation.children, strict=True)
    inside = (each for step, child in children for each in bindings(child, path + step))
    match operation:
        case Branch():
            yield from dict(inside).items()
            return
        case Map() | Filter():
            yield operation.each[0], place(operation, path)
        case Reduce():
            yield from ((name, place(operation, path)) for name in (operation.each[0], operation.carry[1]))
        case _:
            pass
    yield from inside
    if not isinstance(operation, Chain | Parallel | Repeat):
        yield from ((each.name, place(operation, path)) for each in operation.outputs)
