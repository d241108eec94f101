"""Types as JSON Schema (2020-12), and back without loss."""

from collections.abc import Mapping, Sequence
from typing import cast

from mkspy.errors import BadType, clip
from mkspy.types.model import (
    JSON,
    NULL,
    PRIMITIVES,
    REQUIRED,
    Field,
    Json,
    List,
    Literal,
    Primitive,
    Record,
    Required,
    Scalar,
    Tuple,
    Type,
    Union,
    records_of,
    union,
)

MAX_DEPTH = 60
_KIND = "x-mkspy"
"""The keyword that tells an image from other text; validators ignore what they do not know."""

_MESSAGES: Json = {"messages": {"type": "array", "items": {"type": "object"}}}
_PRIMITIVES: dict[str, dict[str, Json]] = {
    "text": {"type": "string"},
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "json": {},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    **{name: {"type": "string", _KIND: name} for name in ("image", "audio", "file", "code")},
    "history": {"type": "object", "properties": _MESSAGES, "required": ["messages"], _KIND: "history"},
}


def to_json_schema(type: Type) -> dict[str, Json]:
    """Return the JSON Schema of the values of `type`; records stand under `$defs`.

    Raises:
        BadType: Two different records in it have one name.
    """
    records = records_of([type])
    definitions: dict[str, Json] = {name: _record(record) for name, record in records.items()}
    return {**_schema(type), **({"$defs": definitions} if definitions else {})}


def _schema(type: Type) -> dict[str, Json]:
    match type:
        case Primitive(name):
            return dict(_PRIMITIVES[name])
        case Literal(values):
            return {"enum": list(values)}
        case List(item):
            return {"type": "array", "items": _schema(item)}
        case Tuple(items):
            several = [_schema(item) for item in items]
            return {"type": "array", "prefixItems": several, "items": False, "minItems": len(items)}
        case Union(options):
            return {"anyOf": [_schema(option) for option in options]}
        case Record(name):
            return {"$ref": f"#/$defs/{name}"}


def _record(record: Record) -> dict[str, Json]:
    return {
        "title": record.name,
        "type": "object",
        "properties": {each.name: _property(each) for each in record.fields},
        "required": [each.name for each in record.fields if each.required],
        **({"description": record.description} if record.description else {}),
    }


def _property(field: Field) -> dict[str, Json]:
    said: dict[str, Json] = _schema(field.type)
    if field.description:
        said["description"] = field.description
    if not isinstance(field.default, Required):
        said["default"] = field.default
    return said


def from_json_schema(schema: Mapping[str, Json]) -> Type:
    """Return the type that a JSON Schema describes: ours, pydantic's, or one written by hand.

    Raises:
        BadType: It describes something specs have no type for; the message names the place.
    """
    definitions = schema.get("$defs", {})
    return _Reader(definitions if isinstance(definitions, Mapping) else {}).read(schema, "#", 0)


class _Reader:
    def __init__(self, definitions: Mapping[str, Json]) -> None:
        self._definitions = definitions

    def read(self, schema: Json, where: str, depth: int) -> Type:
        if schema is True:
            return JSON
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
            raise BadType(f"{where} is no schema of a type: {clip(schema)}; or it contains itself")
        match schema:
            case {"$ref": str(reference)}:
                return self._referred(reference, where, depth + 1)
            case {"x-mkspy": str(name)} if name in PRIMITIVES:
                return PRIMITIVES[name]
            case {"enum": [_, *_] as values}:
                return _literal(cast("Sequence[Scalar | None]", values), where)
            case {"const": str() | int() as value}:
                return Literal((value,))
            case {"anyOf": [_, *_] as options} | {"oneOf": [_, *_] as options}:
                return union(*self._several(options, f"{where}/anyOf", depth))
            case {"allOf": [single]}:
                return self.read(single, f"{where}/allOf/0", depth + 1)
            case {"type": [_, *_] as kinds}:
                return union(*self._several([{**schema, "type": kind} for kind in kinds], where, depth))
            case _:
                return self._plain(schema, where, depth + 1)

    def _several(self, schemas: Sequence[Json], where: str, depth: int) -> list[Type]:
        return [self.read(each, f"{where}/{at}", depth + 1) for at, each in enumerate(schemas)]

    def _referred(self, reference: str, where: str, depth: int) -> Type:
        name = reference.removeprefix("#/$defs/")
        if name not in self._definitions:
            raise BadType(f"{where} refers to {clip(reference)}, which is not among the $defs")
        definition = self._definitions[name]
        if isinstance(definition, Mapping) and "properties" in definition:
            definition = {"title": name, **definition}
        return self.read(definition, reference, depth)

    def _plain(self, schema: Mapping[str, Json], where: str, depth: int) -> Type:
        match schema:
            case {"type": "object", "properties": Mapping() as properties}:
                return self._object(schema, properties, where, depth)
            case {"type": "array", "prefixItems": [_, *_] as items}:
                return Tuple(tuple(self._several(items, f"{where}/prefixItems", depth)))
            case {"type": "array"}:
                return List(self.read(schema.get("items", True), f"{where}/items", depth))
            case {"type": "string", "format": "date"}:
                return PRIMITIVES["date"]
            case {"type": "string", "format": "date-time"}:
                return PRIMITIVES["datetime"]
            case {"type": str(kind)} if kind in _KINDS:
                return _KINDS[kind]
            case _ if not _SAYS_WHAT & set(schema):
                return JSON
            case _:
                raise BadType(f"{where} describes what specs have no type for: {clip(dict(schema))}")

    def _object(
        self, schema: Mapping[str, Json], properties: Mapping[str, Json], where: str, depth: int
    ) -> Type:
        title = schema.get("title")
        if not isinstance(title, str):
            raise BadType(f'{where} describes an object without a name; give it a "title"')
        needed = schema.get("required", [])
        required: Sequence[Json] = needed if isinstance(needed, list | tuple) else []
        fields = [
            self._field(name, each, name in required, f"{where}/properties/{name}", depth)
            for name, each in properties.items()
        ]
        return Record(title, tuple(fields), _text(schema))

    def _field(self, name: str, schema: Json, required: bool, where: str, depth: int) -> Field:
        type = self.read(schema, where, depth)
        said: Mapping[str, Json] = schema if isinstance(schema, Mapping) else {}
        if required or "default" in said:
            return Field(name, type, _text(said), said.get("default", REQUIRED) if not required else REQUIRED)
        return Field(name, union(type, NULL), _text(said), None)


_KINDS: dict[str, Type] = {
    "string": PRIMITIVES["text"],
    "object": JSON,
    **{name: PRIMITIVES[name] for name in ("number", "integer", "boolean", "null")},
}
_SAYS_WHAT = frozenset(("type", "properties", "items", "prefixItems", "allOf", "not", "if", "$dynamicRef"))


def _literal(values: Sequence[Scalar | None], where: str) -> Type:
    try:
        options: list[Type] = [NULL if value is None else Literal((value,)) for value in values]
    except BadType as error:
        raise BadType(f"{where}/enum: {error}") from None
    return union(*options)


def _text(schema: Mapping[str, Json]) -> str:
    return str(schema.get("description", ""))
