"""Fields and records as files declare them, in the long form and in the short ones."""

import json
from collections.abc import Callable, Iterator, Mapping

from mkspy.errors import BadSpec, BadType, Place, clip
from mkspy.spec.tables import Table, expect, is_text, is_truth, json_value
from mkspy.types import REQUIRED, Field, Json, Record, Required, Type, optional, parse
from mkspy.types.values import is_list, is_mapping

type Scope = Mapping[str, Type]
"""The types of names that have a value at some place."""

_LEGAL = 'write `name = "type"`, or a list of names such as ["question", "passages: list[text]"]'


def made[T](path: str, make: Callable[..., T], /, *args: object, **values: object) -> T:
    """Return what `make` makes; its errors are about `path`."""
    try:
        return make(*args, **values)
    except BadSpec as error:
        raise error.within(path) from None
    except BadType as error:
        raise BadSpec(Place(path), f": {error}") from None


def texts(table: Table, key: str, *, needed: bool = False) -> tuple[str, ...]:
    """Return a list of texts, empty if it is missing and not needed."""
    values = table.need(key, is_list) if needed else table.get(key, is_list, ())
    return tuple(expect(each, is_text, f"{table.at(key)}[{at}]") for at, each in enumerate(values))


class Fields:
    """Reads fields; `records` are the names that types may use."""

    def __init__(self, records: Mapping[str, Record]) -> None:
        self.records = records

    def read(self, value: object, path: str, scope: Scope | None = None) -> tuple[Field, ...]:
        """Return the fields at `path`. Names without a type have the one they have in `scope`."""
        if is_mapping(value):
            return tuple(self._field(name, each, f"{path}.{name}") for name, each in value.items())
        if isinstance(value, str) or is_list(value):
            several = [value] if isinstance(value, str) else value
            return tuple(self._named(each, f"{path}[{at}]", scope) for at, each in enumerate(several))
        raise BadSpec(Place(path), f" is {clip(value)}; {_LEGAL}")

    def one(self, value: object, path: str, scope: Scope | None = None) -> Field:
        """Return the only field at `path`."""
        found = self.read(value, path, scope)
        if len(found) != 1:
            raise BadSpec(Place(path), f" has {len(found)} fields; it has exactly one")
        return found[0]

    def _named(self, value: object, path: str, scope: Scope | None) -> Field:
        name, colon, type = expect(value, is_text, path).partition(":")
        name = name.strip()
        if colon:
            return self._field(name, type.strip(), path)
        if scope is None:
            raise BadSpec(Place(path), f" does not say of what type {clip(name)} is; {_LEGAL}")
        if name not in scope:
            has = ", ".join(scope) or "none"
            raise BadSpec(
                Place(path), f" wants {name}, but nothing before it gives that; the names there are {has}"
            )
        return made(path, Field, name, scope[name])

    def _field(self, name: str, value: object, path: str) -> Field:
        if isinstance(value, str):
            return made(path, Field, name, self.type(value, path))
        table = Table(value, path)
        type = self.type(table.need("type", is_text), table.at("type"))
        default = _default(table)
        if table.get("optional", is_truth, False):
            type, default = optional(type), None if isinstance(default, Required) else default
        field = made(path, Field, name, type, table.get("description", is_text, ""), default)
        table.done()
        return field

    def type(self, text: str, path: str) -> Type:
        """Return the type that `text` says."""
        return made(path, parse, text, self.records)


def _default(table: Table) -> Json | Required:
    if table.has("default_json"):
        return decoded(table, "default_json")
    return json_value(table.any("default"), table.at("default")) if table.has("default") else REQUIRED


def decoded(table: Table, key: str) -> Json:
    """Return a value that stands in a file as JSON text, because TOML has no null."""
    text = table.need(key, is_text)
    try:
        return json_value(json.loads(text), table.at(key))
    except (ValueError, RecursionError) as error:
        raise BadSpec(Place(table.at(key)), f" is {clip(text)}, which is no JSON: {error}") from None


class Records:
    """Reads records, which may be made of each other, in whatever order they stand."""

    def __init__(self, tables: Mapping[str, object]) -> None:
        self._tables = tables
        self._done: dict[str, Record] = {}
        self._begun: list[str] = []

    def all(self) -> dict[str, Record]:
        """Return every record by its name."""
        for name in self._tables:
            self._record(name)
        return self._done

    def _record(self, name: str) -> Record:
        if name in self._done:
            return self._done[name]
        if name in self._begun:
            circle = " -> ".join([*self._begun, name])
            raise BadSpec(
                Place(f"records.{name}"), f" contains itself: {circle}; use a list of text, or json"
            )
        self._begun.append(name)
        table = Table(self._tables[name], f"records.{name}")
        fields = Fields(_Lazy(self._record, self._tables)).read(table.any("fields"), table.at("fields"))
        record = made(table.path, Record, name, fields, table.get("description", is_text, ""))
        table.done()
        self._begun.pop()
        self._done[name] = record
        return record


class _Lazy(Mapping[str, Record]):
    """The records of a file, each read when another one asks for it."""

    def __init__(self, read: Callable[[str], Record], names: Mapping[str, object]) -> None:
        self._read, self._names = read, names

    def __getitem__(self, name: str) -> Record:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
