"""Named values between operations: given, wanted, and what it takes for them to meet."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, cast

from mkspy import names
from mkspy.errors import BadSpec, BadType, Place, clip
from mkspy.types import REQUIRED, Field, Type, is_subtype, meet, parse, to_text, why_not
from mkspy.types.model import check_text, repeated

if TYPE_CHECKING:
    from mkspy.spec.composition import Operation

ROOT = "process"
"""Where an operation believes to stand, until someone puts it elsewhere."""

type Fields = Iterable[Field] | Mapping[str, str | Type]
"""How Python code may write fields: `{"message": "text"}` is short for `(Field("message", TEXT),)`."""


class Given(NamedTuple):
    """A field that has a value, and who gave it."""

    field: Field
    place: Place


def place(operation: "Operation", path: str = ROOT) -> Place:
    """Return where an operation stands, as messages say it."""
    name = getattr(operation, "name", "")
    kind = type(operation).__name__
    return Place(path, f"{kind} {name!r}" if name else kind)


def keep(operation: object, **values: object) -> None:
    """Set fields of a frozen dataclass while it is being made."""
    for name, value in values.items():
        object.__setattr__(operation, name, value)


def as_fields(fields: Fields, where: Place) -> tuple[Field, ...]:
    """Return fields however they were written, no name twice."""
    if isinstance(fields, Mapping):
        made = tuple(
            as_field(name, type, where) for name, type in cast("Mapping[str, str | Type]", fields).items()
        )
    else:
        made = tuple(fields)
    if twice := repeated(each.name for each in made):
        raise BadSpec(where, f" has two fields {twice!r}; a name is given once")
    return made


def as_field(name: str, type: str | Type, where: Place, description: str = "") -> Field:
    """Return the field of an operation; a name or a type that cannot be is told by its place."""
    try:
        return Field(name, parse(type) if isinstance(type, str) else type, description)
    except BadType as error:
        raise BadSpec(where, f": {error}") from None


def contract(inputs: Sequence[Field], outputs: Sequence[Field], where: Place, *, least: int = 1) -> None:
    """Refuse an operation that has no outputs, too few inputs, or gives a name that it takes."""
    for side, fields, number in (("inputs", inputs, least), ("outputs", outputs, 1)):
        if len(fields) < number:
            raise BadSpec(where, f" has no {side}; give it at least one")
    for each in (*inputs, *outputs):
        if reason := names.why_not(each.name):
            raise BadSpec(where, f" cannot have a field {clip(each.name)}: {reason}")
    taken = {each.name for each in inputs}
    for each in outputs:
        if each.name in taken:
            raise BadSpec(
                where, f" gives {each.name}, which it takes as well; call what it gives something else"
            )


def no_defaults(fields: Iterable[Field], where: Place) -> None:
    """Refuse defaults where every value comes from an earlier step, or goes to a later one."""
    for each in fields:
        if not each.required:
            raise BadSpec(
                where, f": {each.name!r} has a default; only inputs of tasks and tools can have one"
            )


def named(name: str, where: Place, reserved: frozenset[str] = names.RESERVED_STEPS) -> None:
    """Refuse a name that cannot be an attribute of the generated class."""
    if reason := names.why_not(name, reserved):
        raise BadSpec(where, f" cannot be called {clip(name)}: {reason}")


def worded(text: str, where: Place) -> None:
    """Refuse text that no file can hold."""
    try:
        check_text(text, "the text")
    except BadType as error:
        raise BadSpec(where, f": {error}") from None


def wanted(field: Field, given: Given, reader: Place) -> None:
    """Refuse a value of a type that its reader does not take, naming both sides."""
    if is_subtype(given.field.type, field.type):
        return
    has, needs = to_text(given.field.type), to_text(field.type)
    reason = why_not(given.field.type, field.type).partition(": ")[2]
    why = f" ({reason})" if reason else ""
    raise BadSpec(
        reader, f" wants {field.name}: {needs}; ", given.place, f" gives {given.field.name}: {has}{why}"
    )


def merged(readers: Iterable[tuple[Place, Sequence[Field]]]) -> tuple[Field, ...]:
    """Return what several operations take together: each name once, of the type that suits all."""
    found: dict[str, Given] = {}
    for reader, fields in readers:
        for field in fields:
            plain = replace(field, default=REQUIRED)
            found[field.name] = (
                _both(found[field.name], plain, reader) if field.name in found else Given(plain, reader)
            )
    return tuple(each.field for each in found.values())


def _both(one: Given, other: Field, reader: Place) -> Given:
    common = meet(one.field.type, other.type)
    if common is None:
        mine, its = to_text(other.type), to_text(one.field.type)
        raise BadSpec(
            reader,
            f" wants {other.name}: {mine}; ",
            one.place,
            f" wants {other.name}: {its}; no value is both",
        )
    return Given(
        replace(one.field, type=common, description=one.field.description or other.description), one.place
    )


def disjoint(givers: Iterable[tuple[Place, Sequence[Field]]]) -> tuple[Field, ...]:
    """Return what several operations give together; a name that two of them give is refused."""
    found: dict[str, Given] = {}
    for giver, fields in givers:
        for field in fields:
            if field.name in found:
                first = found[field.name].place
                raise BadSpec(giver, f" gives {field.name}, and so does ", first, "; a name is given once")
            found[field.name] = Given(field, giver)
    return tuple(each.field for each in found.values())


def field_of(fields: Iterable[Field], name: str) -> Field | None:
    """Return the field of that name, None if there is none."""
    return next((each for each in fields if each.name == name), None)


def listed(fields: Iterable[Field]) -> str:
    """Return the names of fields for a message."""
    return ", ".join(each.name for each in fields) or "nothing"
