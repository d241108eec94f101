"""Python annotations as pydantic models of what comes and goes over HTTP.

DSPy's own types get a form that JSON has: an image is a `data:` or https URL, code is text. No form names a
file of this machine.
"""

import dataclasses
import json
import types
import typing
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, cast, get_args, get_origin

import dspy
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, RootModel, TypeAdapter, create_model
from pydantic import WithJsonSchema as Schema
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

REQUIRED: object = PydanticUndefined

type Json = dict[str, Any]


class Slot(NamedTuple):
    """One input or output."""

    name: str
    annotation: Any = Any
    default: object = REQUIRED
    description: str = ""
    metadata: Sequence[object] = ()
    optional: bool = False
    """It may be left out; the program then has a default of its own."""


def slot(name: str, field: FieldInfo) -> Slot:
    """Return a field of a `dspy.Signature` without what DSPy puts into every field (`desc="${question}"`)."""
    extra = cast("Json", field.json_schema_extra or {})
    description = str(extra.get("desc") or field.description or "")
    return Slot(
        name,
        field.annotation,
        field.get_default(call_default_factory=True, validated_data={}),
        "" if description == f"${{{name}}}" else description,
        tuple(field.metadata),
    )


def request(title: str, slots: Sequence[Slot], *, description: str = "") -> type[BaseModel]:
    """Return the model of a request. Unknown keys are refused, and what may be None may be left out."""
    named = [each._replace(annotation=wire(each.annotation)) for each in map(_nullable, slots)]
    return _model(title, named, extra="forbid", description=description)


def response(title: str, slots: Sequence[Slot]) -> type[BaseModel]:
    """Return the model of a response. More may come than `slots`."""
    named = [each._replace(annotation=_shown(each.annotation)) for each in slots]
    return _model(title, named, extra="allow", description="")


def response_as(title: str, annotation: Any) -> type[BaseModel]:
    """Return the model of a response that is an `annotation`: a pydantic model, a dataclass, a TypedDict."""
    shown = _shown(annotation)
    if isinstance(shown, type) and issubclass(shown, BaseModel):
        return create_model(title, __base__=shown, __doc__=shown.__doc__)
    return create_model(title, __base__=RootModel[shown])


def has_fields(annotation: Any) -> bool:
    """Return whether a value of this type is a JSON object with known keys."""
    if not isinstance(annotation, type):
        return False
    kind = cast("type[Any]", annotation)
    if issubclass(kind, (dspy.Type, RootModel)):
        return False
    return issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind) or typing.is_typeddict(kind)


def fits_json(annotation: Any) -> bool:
    """Return whether JSON can carry a value of this type."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of a nested default that has no JSON
            TypeAdapter(wire(annotation)).json_schema()
    except Exception:  # noqa: BLE001 - an annotation may be anything, and its hooks may raise anything
        return False
    return True


def _model(
    title: str, slots: Sequence[Slot], *, extra: Literal["allow", "forbid"], description: str
) -> type[BaseModel]:
    config = ConfigDict(extra=extra, protected_namespaces=(), title=title, arbitrary_types_allowed=True)
    definitions: Any = {_attribute(each.name): _definition(each) for each in slots}
    return create_model(title, __config__=config, __doc__=description or None, **definitions)


def _definition(slot: Slot) -> tuple[Any, FieldInfo]:
    alias = None if _attribute(slot.name) == slot.name else slot.name
    title = slot.name.replace("_", " ").strip().capitalize()
    about: Any = {"title": title, "description": slot.description or None, "alias": alias}
    annotation: Any = Annotated[slot.annotation, *slot.metadata] if slot.metadata else slot.annotation
    if slot.optional or not _is_json(slot.default):
        return annotation, Field(default_factory=lambda: slot.default, **about)
    return annotation, Field(default=slot.default, **about)


def _attribute(name: str) -> str:
    """Return a name for a field that hides nothing of pydantic's, like `copy` or `model_config`."""
    return f"{name.strip('_')}_" if hasattr(BaseModel, name) or name.startswith("_") else name


def _nullable(slot: Slot) -> Slot:
    if slot.default is None and not _takes_none(slot.annotation):
        return slot._replace(annotation=slot.annotation | None)  # `k: int = None`
    nothing_said = slot.default is REQUIRED and slot.annotation is not Any and not slot.optional
    if nothing_said and _takes_none(slot.annotation):
        return slot._replace(default=None)
    return slot


def _takes_none(annotation: Any) -> bool:
    if isinstance(annotation, typing.TypeAliasType):
        return _takes_none(annotation.__value__)
    if get_origin(annotation) in (Annotated, Union, types.UnionType):
        return any(map(_takes_none, get_args(annotation)))
    return annotation is None or annotation is types.NoneType or annotation is Any


def _is_json(default: object) -> bool:
    """Return whether `default` can be told in a schema."""
    try:
        told = default is REQUIRED or json.dumps(to_jsonable_python(default), allow_nan=False)
    except Exception:  # noqa: BLE001 - a default may be any object
        return False
    return told is True or "<<CUSTOM-TYPE" not in told


# --- The forms of DSPy's types over HTTP --------------------------------------------------------------------


def wire(annotation: Any) -> Any:
    """Return `annotation` with DSPy's types in it replaced by ones that take their form in JSON."""
    return _walk(annotation, _INPUTS, ())


def _shown(annotation: Any) -> Any:
    """Return `annotation` for the schema of an output, Any if it has none."""
    return _walk(annotation, _OUTPUTS, ()) if fits_json(annotation) else Any


def _walk(annotation: Any, forms: Mapping[type, Any], inside: tuple[object, ...]) -> Any:
    if isinstance(annotation, typing.TypeAliasType):
        return _walk(annotation.__value__, forms, inside)
    if isinstance(annotation, type):
        return _class(annotation, forms, inside)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal or origin is None:
        return annotation
    if origin is Annotated:
        return Annotated[_walk(args[0], forms, inside), *args[1:]]
    walked = tuple(_walk(arg, forms, inside) for arg in args)
    if walked == args:
        return annotation
    return Union[walked] if origin in (Union, types.UnionType) else origin[walked]  # noqa: UP007


def _class(kind: type[Any], forms: Mapping[type, Any], inside: tuple[object, ...]) -> Any:
    for known, form in forms.items():
        if issubclass(kind, known):
            return Annotated[kind, *form]
    plain = issubclass(kind, BaseModel) and not issubclass(kind, dspy.Type)
    return _rebuilt(kind, forms, (*inside, kind)) if plain and kind not in inside else kind


def _rebuilt(kind: type[BaseModel], forms: Mapping[type, Any], inside: tuple[object, ...]) -> type[BaseModel]:
    """Return a subclass whose fields take these forms, or `kind` itself if none has one."""
    walked = {
        name: (_walk(field.annotation, forms, inside), field) for name, field in kind.model_fields.items()
    }
    changed: Any = {name: each for name, each in walked.items() if each[0] is not each[1].annotation}
    return create_model(kind.__name__, __base__=kind, __doc__=kind.__doc__, **changed) if changed else kind


def _either(text: Json, **properties: Json) -> Json:
    """Return the schema of a string, or of an object with `properties`."""
    return {
        **text,
        "type": ["string", "object"],
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _image(value: object) -> object:
    """Return what `dspy.Image` is made from, if it can come from anywhere but this machine's files."""
    if isinstance(value, dspy.Image):
        return value
    given = cast("dict[object, object]", value if isinstance(value, dict) else {"url": value})
    url = given["url"] if given.keys() == {"url"} else None
    if not isinstance(url, str) or not url.strip().startswith(("data:", "https://")):
        raise ValueError("expected a URL that begins with data: or https://; no file is read")
    return {"url": url.strip()}


def _data_uri(value: object) -> object:
    if isinstance(value, str) and not value.startswith("data:"):
        raise ValueError("expected a URL that begins with data:; no file is read")
    return value


_TEXT: Json = {"type": "string"}
_IMAGE: Json = {"type": "string", "format": "image", "pattern": "^\\s*(data:|https://)"}
_AUDIO: Json = {"type": "string", "format": "audio", "pattern": "^data:audio/"}
_FILE: Json = {"type": "string", "format": "file", "pattern": "^data:"}
_CODE: Json = {"type": "string", "format": "code"}
_HISTORY: Json = {
    "type": "object",
    "format": "history",
    "description": "Earlier turns, oldest first: each has the inputs and outputs of one call.",
    "properties": {"messages": {"type": "array", "items": {"type": "object"}}},
    "required": ["messages"],
    "additionalProperties": False,
}
_FILE_OBJECT: Json = {
    "type": "object",
    "properties": {name: _TEXT for name in ("file_data", "file_id", "filename")},
    "additionalProperties": False,
}

_INPUTS: Mapping[type, Sequence[object]] = {
    dspy.Image: (BeforeValidator(_image), Schema(_either(_IMAGE, url=_TEXT))),
    dspy.Audio: (BeforeValidator(_data_uri), Schema(_either(_AUDIO, data=_TEXT, audio_format=_TEXT))),
    dspy.File: (
        BeforeValidator(_data_uri),
        Schema({**_FILE_OBJECT, **_FILE, "type": ["string", "object"], "minProperties": 1}),
    ),
    dspy.Code: (Schema(_either(_CODE, code=_TEXT)),),
    dspy.Reasoning: (Schema(_either(_TEXT, content=_TEXT)),),
    dspy.History: (Schema(_HISTORY),),
}
_OUTPUTS: Mapping[type, Sequence[object]] = {
    dspy.Image: (Schema({"type": "string", "format": "image"}),),
    dspy.Audio: (Schema(_AUDIO),),
    dspy.File: (Schema({"type": "object", "format": "file"}),),
    dspy.Code: (Schema(_CODE),),
    dspy.Reasoning: (Schema(_TEXT),),
    dspy.History: (Schema(_HISTORY),),
    bytes: (Schema({"type": "string", "format": "uri", "pattern": "^data:"}),),
}
