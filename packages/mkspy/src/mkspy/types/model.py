"""The types of specs: frozen, compared by structure, and kept nowhere."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from mkspy import names
from mkspy.errors import BadType, clip

type Json = bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None
"""A value as it stands in a file: what examples and defaults are made of."""

type Scalar = str | int | bool


class Required(Enum):
    """The default of a field that has none."""

    REQUIRED = "required"


REQUIRED = Required.REQUIRED


@dataclass(frozen=True, slots=True)
class Primitive:
    """A type that has no parts; there is one of each name."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in _PRIMITIVE_NAMES:
            raise BadType(f"{clip(self.name)} is no primitive; there are {', '.join(_PRIMITIVE_NAMES)}")


_PRIMITIVE_NAMES = (
    *("text", "number", "integer", "boolean", "date", "datetime", "json"),
    *("image", "audio", "file", "code", "history", "null"),
)
TEXT, NUMBER, INTEGER, BOOLEAN, DATE, DATETIME, JSON, IMAGE, AUDIO, FILE, CODE, HISTORY, NULL = map(
    Primitive, _PRIMITIVE_NAMES
)
PRIMITIVES: Mapping[str, Primitive] = MappingProxyType({name: Primitive(name) for name in _PRIMITIVE_NAMES})


@dataclass(frozen=True, slots=True, eq=False)
class Literal:
    """One of these values. Their order is kept for readers, and makes no difference to what the type is."""

    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise BadType("a literal type has at least one value")
        for value in self.values:
            _check_scalar(value)
        distinct = {(type(value), value): value for value in self.values}  # 1 and True are two values
        object.__setattr__(self, "values", tuple(distinct.values()))

    def _key(self) -> frozenset[tuple[type, Scalar]]:
        return frozenset((type(value), value) for value in self.values)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Literal) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())


@dataclass(frozen=True, slots=True)
class List:
    """Any number of values of one type."""

    item: "Type"


@dataclass(frozen=True, slots=True)
class Tuple:
    """So many values, each of its own type."""

    items: "tuple[Type, ...]"

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple(self.items))
        if not self.items:
            raise BadType("a tuple type has at least one item")


@dataclass(frozen=True, slots=True, eq=False)
class Union:
    """A value of one of these types. Made by `union`, which puts it into the one form it has."""

    options: "tuple[Type, ...]"

    def __post_init__(self) -> None:
        if len(self.options) < 2 or _normal(self.options) != list(self.options):
            raise BadType("a union has options of which none contains another; make it with union(...)")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Union):
            return NotImplemented
        return frozenset(self.options) == frozenset(other.options)

    def __hash__(self) -> int:
        return hash(frozenset(self.options))


@dataclass(frozen=True, slots=True)
class Field:
    """A named value: of a record, of an operation, of a task.

    A task's inputs, a tool's inputs and a record's fields can have a default; it is a value as JSON has it.
    """

    name: str
    type: "Type"
    description: str = ""
    default: Json | Required = field(default=REQUIRED, hash=False)

    def __post_init__(self) -> None:
        from mkspy.types.values import misfit

        if reason := names.why_not(self.name, names.RESERVED_RECORD_FIELDS):
            raise BadType(f"{clip(self.name)} cannot be a field: {reason}")
        check_text(self.description, f"the description of {self.name!r}")
        if self.default is not REQUIRED and (reason := misfit(self.default, self.type)):
            raise BadType(f"the default of {self.name!r} does not fit: {reason}")

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is REQUIRED


@dataclass(frozen=True, slots=True)
class Record:
    """Named values under one name; a pydantic model in generated programs."""

    name: str
    fields: tuple[Field, ...]
    description: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        check_text(self.description, f"the description of {self.name!r}")
        if reason := names.why_not(self.name, names.RESERVED_RECORDS):
            raise BadType(f"{clip(self.name)} cannot be a record: {reason}")
        if not self.fields:
            raise BadType(f"the record {self.name!r} has no field; give it one, or use json")
        if twice := repeated(each.name for each in self.fields):
            raise BadType(f"the record {self.name!r} has two fields {twice!r}")

    def field(self, name: str) -> Field | None:
        """Return the field of that name, None if there is none."""
        return next((each for each in self.fields if each.name == name), None)


type Type = Primitive | Literal | List | Tuple | Union | Record


def union(*types: Type) -> Type:
    """Return what has the values of all `types`: flat, without repetition, whatever the order."""
    if not types:
        raise BadType("a union has at least one option")
    options = _normal(types)
    return options[0] if len(options) == 1 else Union(tuple(options))


def optional(type: Type) -> Type:
    """Return `type`, or nothing."""
    return union(type, NULL)


def parts(type: Type) -> tuple[Type, ...]:
    """Return the types that `type` is made of, one level down."""
    match type:
        case List(item):
            return (item,)
        case Tuple(items):
            return items
        case Union(options):
            return options
        case Record():
            return tuple(each.type for each in type.fields)
        case Primitive() | Literal():
            return ()


def records_of(types: Iterable[Type]) -> dict[str, Record]:
    """Return every record in `types` by its name, those that others need first.

    Raises:
        BadType: Two different records have one name.
    """
    found: dict[str, Record] = {}
    for type in types:
        _collect(type, found)
    return found


def _collect(type: Type, found: dict[str, Record]) -> None:
    for part in parts(type):
        _collect(part, found)
    if isinstance(type, Record) and found.setdefault(type.name, type) != type:
        raise BadType(f"two different records are named {type.name!r}; rename one of them")


def repeated(items: Iterable[str]) -> str:
    """Return the first name that comes twice, or ""."""
    seen: set[str] = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return ""


def check_text(text: str, what: str) -> None:
    """Raise `BadType` for text that no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadType(f"{what} has half of a surrogate pair in it, {clip(text)}; no UTF-8 file can") from None


def _check_scalar(value: object) -> None:
    if not isinstance(value, str | int):
        raise BadType(f"a literal is text, an integer or a boolean, not {clip(value)}")
    if isinstance(value, str):
        check_text(value, "a literal")
    elif abs(value) >= 2**63:
        raise BadType("a literal integer has more than 64 bits")


def _normal(types: Iterable[Type]) -> list[Type]:
    from mkspy.types.relations import is_subtype

    flat = list(dict.fromkeys(option for each in types for option in _options(each)))
    others: list[Type] = [each for each in flat if not isinstance(each, Literal)]
    values = [value for each in flat if isinstance(each, Literal) for value in each.values]
    free = tuple(value for value in values if not any(is_subtype(Literal((value,)), each) for each in others))
    if free:
        first = next(at for at, each in enumerate(flat) if isinstance(each, Literal))
        others.insert(sum(not isinstance(each, Literal) for each in flat[:first]), Literal(free))
    return [each for each in others if not any(_contains(other, each) for other in others)]


def _options(type: Type) -> tuple[Type, ...]:
    return type.options if isinstance(type, Union) else (type,)


def _contains(larger: Type, smaller: Type) -> bool:
    """Return whether `larger` has more values; of two records that differ in name alone, neither has."""
    from mkspy.types.relations import is_subtype

    return is_subtype(smaller, larger) and not is_subtype(larger, smaller)
