"""A request in llama.cpp's terms, with the grammar that holds the reply to the format the adapter asked for.

JSONAdapter sends its schema. ChatAdapter names its output fields and their types in the prompt, and `_asked`
reads them back from there.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from dspy import lm15

MAX_TOKENS = 256

type Body = dict[str, object]
type _Schema = dict[str, object]


def body(request: lm15.Request, *, terse: bool) -> Body:
    """Return the request as llama.cpp takes it; a `terse` model's texts are kept short."""
    config = request.config
    sampling = {
        "max_tokens": config.max_tokens or MAX_TOKENS,
        "temperature": config.temperature or 0.0,
        "top_p": config.top_p,
        "top_k": config.top_k,
        "seed": config.seed,
        "stop": config.stop or None,
        "frequency_penalty": config.frequency_penalty,
        "presence_penalty": config.presence_penalty,
    }
    return {
        "messages": _messages(request),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,  # chunks to answer "stop" to while the prompt is read
        "cache_prompt": False,  # a reply must not depend on what was asked before it
        **{name: value for name, value in sampling.items() if value is not None},
        **_constraint(request, terse=terse),
        **(config.extensions or {}),
    }


def _messages(request: lm15.Request) -> list[dict[str, str]]:
    system = [{"role": "system", "content": _system(request)}] if request.system else []
    return system + [
        {"role": message.role.replace("developer", "system"), "content": _text(message.parts)}
        for message in request.messages
    ]


def _system(request: lm15.Request) -> str:
    return request.system if isinstance(request.system, str) else _text(request.system or ())


def _text(parts: Sequence[object]) -> str:
    for part in parts:
        if not isinstance(part, lm15.TextPart):
            raise lm15.UnsupportedFeatureError(
                f"The local model reads text only, not a {type(part).__name__}"
            )
    return "".join(part.text for part in parts if isinstance(part, lm15.TextPart))


# --- the format of the reply, as a grammar ------------------------------------------------------------------
# In the dialect of LLGuidance, which xllamacpp is built with: it takes regular expressions and JSON schemas,
# and can cap a rule in tokens. https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md

# How the last message of a request names its output fields, and how it ends.
_CHAT = (
    "Respond with the corresponding output fields, starting with the field ",
    ", and then ending with the marker for `[[ ## completed ## ]]`.",
)
_JSON = ("Respond with a JSON object in the following order of fields: ", ".")
_ASKED = re.compile(
    r"`(?:\[\[ ## )?(?P<name>\w+)(?: ## \]\])?`"
    r"(?: \(must be (?:formatted as a valid Python )?(?P<kind>.*?)\))?(?=, then `|$)",
    re.DOTALL,
)
# What the system message says of a field's value: on a line of its own, or in a JSON string.
_NOTE = r"^(?P<json> *\"{0}\": \")?\{{{0}\}} {{8}}# note: the value you produce (?P<note>.*?)(?(json)\",?)$"
_ONE_OF = re.compile(r"must (?:be|exactly match \(no extra characters\)) one of: (.*)")
_SCHEMA = "must adhere to the JSON schema: "

# A line of text does not begin like a header. A small model's text is one line, or it would
# not end, and does not begin with a placeholder of the prompt.
_BREAKS = r"\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029"
_START = r"(?:[^\s\[]|\[[^\s\[])"
_LINE = rf"[^\s\[{{][^{_BREAKS}]*"
_LINES = rf"{_START}(?:[^{_BREAKS}]|\n{{1,2}}[ \t]{{0,16}}{_START})*"
_TO_SENTENCE_END = rf"[^.!?{_BREAKS}]*[.!?]?"

_SCALARS = {  # as ChatAdapter wants them
    "int": r"/-?(0|[1-9][0-9]{0,14})/",
    "float": r"/-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,6})?/",
    "bool": '"True" | "False"',
}
_REST_TOKENS = 12  # what a text that used up its share may take to end its sentence
_LEAST_TOKENS = 8
_MARKER_TOKENS = 12  # of a header, besides the field's name
_CHARACTERS_PER_TOKEN = 3  # of English, less a margin
_LEAST_CHARACTERS = 16
_ITEMS = 5
_REPEATED = {"items", "additionalProperties"}
_NO_PLACEHOLDER = r"^[^\s{]"
_FLAT: Mapping[str, object] = {"anyOf": [{"type": kind} for kind in ("string", "number", "boolean")]}
_JSON_TYPES = {"int": "integer", "float": "number", "bool": "boolean"}
_BOUNDED_STRING = {"maxLength", "enum", "const", "format", "pattern"}


def _constraint(request: lm15.Request, *, terse: bool) -> Body:
    """Return what holds the reply to its format; nothing when the request does not say which that is."""
    max_tokens = request.config.max_tokens or MAX_TOKENS
    if form := request.config.response_format:
        schema = form.get("schema") or _schema(_asked(request, *_JSON))
        return {
            "grammar": f"%llguidance {{}}\nstart: {_json(cast('_Schema', schema), max_tokens, terse=terse)}"
        }
    if fields := _asked(request, *_CHAT):
        return {"grammar": _grammar(fields, max_tokens=max_tokens, terse=terse)}
    return {}


class _Asked(NamedTuple):
    """An output field, as the adapter describes it to the model."""

    name: str
    kind: str
    note: str

    @property
    def choices(self) -> list[str]:
        """The values of a Literal or an enum; none for any other type."""
        one_of = _ONE_OF.fullmatch(self.note)
        return _literals(self.kind) or (one_of[1].split("; ") if one_of else [])

    @property
    def schema(self) -> _Schema | None:
        return json.loads(self.note.removeprefix(_SCHEMA)) if self.note.startswith(_SCHEMA) else None

    @property
    def is_text(self) -> bool:
        # `str | None` has a schema too, but ChatAdapter takes its value as it stands, quotes included.
        optional = self.kind.startswith("Union[") and {"str", "NoneType"} <= set(
            re.findall(r"\w+", self.kind)
        )
        return optional or self.kind == "str"


def _asked(request: lm15.Request, ask: str, end: str) -> list[_Asked]:
    """Return the output fields an adapter asks for in these words; none if it did not write this request."""
    _, asks, fields = _text(request.messages[-1].parts).rstrip().rpartition(ask)
    if not asks or not fields.endswith(end):
        return []
    system = _system(request)
    return [
        _Asked(found["name"], found["kind"] or "str", _note(system, found["name"]))
        for found in _ASKED.finditer(fields.removesuffix(end))
    ]


def _note(system: str, name: str) -> str:
    found = re.search(_NOTE.format(name), system, re.MULTILINE)
    if not found:
        return ""
    return json.loads(f'"{found["note"]}"') if found["json"] else found["note"]


def _literals(kind: str) -> list[str]:
    if not kind.startswith("Literal["):
        return []
    try:
        return [str(value) for value in ast.literal_eval(kind.removeprefix("Literal"))]
    except (ValueError, SyntaxError):  # an enum's member cannot be read back
        return []


# --- ChatAdapter's reply


def _grammar(fields: Sequence[_Asked], *, max_tokens: int, terse: bool) -> str:
    """Return the grammar of a ChatAdapter reply that is complete within `max_tokens`."""
    closed = [_closed(field) for field in fields]
    markers = sum(
        _MARKER_TOKENS + len(name) // 2 for name in [*(field.name for field in fields), "completed"]
    )
    share = max(_LEAST_TOKENS, (max_tokens - markers) // max(1, closed.count(None)) - _REST_TOKENS)
    rules = [rule or _open(field, share, terse=terse) for rule, field in zip(closed, fields, strict=True)]
    headers = [_quoted(f"[[ ## {field.name} ## ]]\n") for field in fields]
    reply = [f'{header} field{index} "\\n\\n"' for index, header in enumerate(headers)]
    return "\n".join(
        [
            "%llguidance {}",
            f'start: {" ".join(reply)} "[[ ## completed ## ]]"',
            *(f"field{index}: {rule}" for index, rule in enumerate(rules)),
            f"text[max_tokens={share}]: /{_LINE if terse else _LINES}/",
            f"code[max_tokens={share}]: /{_LINES}/",
            f"rest[max_tokens={_REST_TOKENS}]: /{_TO_SENTENCE_END}/",
        ]
    )


def _closed(field: _Asked) -> str | None:
    """Return the rule of a type whose values are short, None for text and JSON."""
    return _SCALARS.get(field.kind) or " | ".join(map(_quoted, field.choices)) or None


def _open(field: _Asked, tokens: int, *, terse: bool) -> str:
    if field.is_text:
        return "text rest?"
    return _json(field.schema, tokens, terse=terse) if field.schema else "code"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# --- JSON


def _schema(fields: Sequence[_Asked]) -> _Schema:
    """Return the schema of a JSONAdapter reply, for which it asked for no more than some JSON object."""
    properties = {field.name: _json_type(field) for field in fields}
    shared = [cast("_Schema", one.pop("$defs", {})) for one in properties.values()]
    if not fields:
        return {"type": "object"}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "$defs": {name: one for definitions in shared for name, one in definitions.items()},
    }


def _json_type(field: _Asked) -> _Schema:
    if field.kind in _JSON_TYPES:
        return {"type": _JSON_TYPES[field.kind]}
    if field.choices:
        return {"enum": field.choices}
    return field.schema or {"type": "string"}


def _json(schema: _Schema, tokens: int, *, terse: bool) -> str:
    compact = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": True}
    wanted = cast("_Schema", _bounded(schema, tokens * _CHARACTERS_PER_TOKEN)) if terse else schema
    return f"%json {json.dumps(wanted | {'x-guidance': compact})}"


def _bounded(schema: object, characters: int) -> object:
    """Return `schema` with an end to everything that a small model would not end by itself."""
    if isinstance(schema, list):
        return [_bounded(one, characters) for one in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    limited = cast("_Schema", schema) | _limits(cast("_Schema", schema), characters)
    properties = cast("_Schema", limited.pop("properties", {}))
    each = characters // max(1, len(properties))
    bounded: _Schema = {"properties": {name: _bounded(one, each) for name, one in properties.items()}}
    for key, value in limited.items():
        bounded[key] = _bounded(value, characters // _ITEMS if key in _REPEATED else characters)
    return bounded


def _limits(node: _Schema, characters: int) -> _Schema:
    items = min(_ITEMS, max(1, characters // _LEAST_CHARACTERS))
    match node:
        case {"type": "string"} if not node.keys() & _BOUNDED_STRING:
            return {"maxLength": max(_LEAST_CHARACTERS, characters), "pattern": _NO_PLACEHOLDER}
        case {"type": "array"} if "maxItems" not in node:
            return {"maxItems": max(items, cast("int", node.get("minItems", 0)))}
        case {"type": "object", "properties": _}:
            return {"additionalProperties": False}
        case {"type": "object"}:
            values = node.get("additionalProperties")
            return {
                "maxProperties": items,
                "additionalProperties": values if isinstance(values, dict) else _FLAT,
            }
        case _:
            return {}
