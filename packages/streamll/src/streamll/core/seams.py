"""Where DSPy is hooked: a table of four functions, found at run time and replaced once.

The hooks do nothing until somebody listens. What is missing is done without: no tokens when neither engine
seam exists, cost from the LM's history when the last one does not. `missing()` says so, and a test pins them.
"""

import functools
import importlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import dspy
from dspy.utils import callback_context

from streamll.core import context
from streamll.core.context import Call
from streamll.core.tee import Tee

logger = logging.getLogger("streamll")

type Hook = Callable[[Callable[..., Any]], Callable[..., Any]]


def active_call() -> Call | None:
    """Return the call we are inside of."""
    execution = context.current().execution
    return execution.calls.get(callback_context.ACTIVE_CALL_ID.get() or "") if execution else None


def active_tee() -> Tee | None:
    """Return the tee of the LM call we are inside of."""
    call = active_call()
    return cast("Tee | None", call.lm) if call else None


# --- native and custom engines ------------------------------------------------------------------------------


def hook_engine(original: Callable[..., Any]) -> Callable[..., Any]:
    """`dspy.clients.execution._engine(lm, call, asynchronous)`: chooses the engine of one LM call."""

    @functools.wraps(original)
    def _engine(lm: Any, call: Any, asynchronous: bool) -> Any:
        backend, request, provider = original(lm, call, asynchronous)
        tee = active_tee()
        if tee is None:
            return backend, request, provider
        tee.check()
        return (_AsyncEngine if asynchronous else _Engine)(backend, tee), request, provider

    return _engine


def _may_refuse_streaming(error: Exception) -> bool:
    """True for an error that `stream=True` itself may have caused: some models refuse it to some accounts."""
    definite = (dspy.lm15.ContextLengthError, dspy.lm15.UnsupportedModelError)
    vague = (dspy.lm15.InvalidRequestError, dspy.lm15.UnsupportedFeatureError)
    return isinstance(error, vague) and not isinstance(error, definite)


def _show(tee: Tee, event: Any) -> None:
    """Tell the tee of one stream event. A fault of ours must not fail the LM call."""
    tee.check()
    try:
        match event.type:
            case "delta":
                _show_delta(tee, event.delta)
            case "start":
                tee.begin(event.model)
            case "end":
                tee.end(event.finish_reason)
            case _:
                pass
    except Exception:  # a fault of ours, whatever it is
        logger.exception("streamll failed on a %s; the program goes on", type(event).__name__)


def _show_delta(tee: Tee, delta: Any) -> None:
    if delta.type == "text":
        tee.text(delta.text)
    elif delta.type == "thinking":
        tee.thinking(delta.text)
    elif delta.type == "tool_call":
        tee.tool_call(delta.part_index, delta.input, delta.name, delta.id)


class _Engine:
    """An engine that behaves as `inner`, and shows `tee` what it streams."""

    def __init__(self, inner: Any, tee: Tee) -> None:
        self._inner = inner
        self._tee = tee

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def complete_legacy(self, *args: Any, **kwargs: Any) -> Any:
        self._tee.attempt()
        return self._inner.complete_legacy(*args, **kwargs)

    def complete(self, request: Any) -> Any:
        self._tee.attempt()
        if not (self._tee.streams and callable(getattr(self._inner, "stream", None))):
            return self._inner.complete(request)
        begun = False
        try:
            with dspy.lm15.ResponseStream(self._inner.stream(request), request) as stream:
                for event in stream.events():
                    begun = True
                    _show(self._tee, event)
                return _named(stream.response)
        except dspy.lm15.StreamAssemblyError as error:
            raise _as_transport_error(error) from error
        except dspy.lm15.LM15Error as error:
            if begun or not _may_refuse_streaming(error):
                raise
            return self._inner.complete(request)

    def stream(self, request: Any) -> Iterator[Any]:
        self._tee.attempt()
        for event in self._inner.stream(request):
            _show(self._tee, event)
            yield event


class _AsyncEngine(_Engine):
    async def complete_legacy(self, *args: Any, **kwargs: Any) -> Any:
        self._tee.attempt()
        return await self._inner.complete_legacy(*args, **kwargs)

    async def complete(self, request: Any) -> Any:
        self._tee.attempt()
        if not (self._tee.streams and callable(getattr(self._inner, "stream", None))):
            return await self._inner.complete(request)
        begun = False
        try:
            async with dspy.lm15.AsyncResponseStream(self._inner.stream(request), request) as stream:
                async for event in stream.events():
                    begun = True
                    _show(self._tee, event)
                return _named(await stream.response())
        except dspy.lm15.StreamAssemblyError as error:
            raise _as_transport_error(error) from error
        except dspy.lm15.LM15Error as error:
            if begun or not _may_refuse_streaming(error):
                raise
            return await self._inner.complete(request)

    async def stream(self, request: Any) -> AsyncIterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._tee.attempt()
        async for event in self._inner.stream(request):
            _show(self._tee, event)
            yield event


def _named(response: Any) -> Any:
    """Return `response` with the model that answered, as `complete` has it; a stream begins without."""
    answered = cast("dict[str, Any]", response.provider_data or {}).get("model")
    return replace(response, model=answered) if answered else response


def _as_transport_error(error: Exception) -> Exception:
    """A stream that stops early is what a dropped connection is to `complete`: DSPy retries that."""
    return dspy.lm15.TransportError(f"The stream ended before the response was complete: {error}")


# --- LiteLLM ------------------------------------------------------------------------------------------------


def hook_litellm(original: Callable[..., Any]) -> Callable[..., Any]:
    """`dspy.clients.lm._get_stream_completion_fn(request, cache_kwargs, sync, headers)`: None is "do not"."""

    @functools.wraps(original)
    def _get_stream_completion_fn(
        request: dict[str, Any], cache_kwargs: dict[str, Any], sync: bool = True, **rest: Any
    ) -> Any:
        tee = active_tee()
        stream = cast("Any", dspy.settings.send_stream)
        if tee is None or not tee.streams or request.get("n", 1) not in (None, 1):
            return original(request, cache_kwargs, sync, **rest)
        if stream is not None:
            with dspy.context(send_stream=_Both(stream, tee)):
                return original(request, cache_kwargs, sync, **rest)
        asked = {**request, **rest, "cache": cache_kwargs}
        retries = _litellm_retries()
        if retries:
            tee.attempt()
        return functools.partial(_litellm_stream if sync else _litellm_astream, tee, asked, retries)

    return _get_stream_completion_fn


class _Both:
    """`streamify`'s stream, which also shows the tee what passes."""

    def __init__(self, inner: Any, tee: Tee) -> None:
        self._inner = inner
        self._chunks = _Chunks(tee)

    async def send(self, chunk: Any) -> None:
        self._chunks.show(chunk)
        await self._inner.send(chunk)


class _Chunks:
    """LiteLLM's chunks of one response, told to a tee."""

    def __init__(self, tee: Tee) -> None:
        self._tee = tee
        self._begun = False
        self.seen: list[Any] = []

    def show(self, chunk: Any) -> None:
        self._tee.check()
        self.seen.append(chunk)
        try:
            self._show(chunk)
        except Exception:  # a fault of ours, whatever it is
            logger.exception("streamll failed on a LiteLLM chunk; the program goes on")

    def _show(self, chunk: Any) -> None:
        if not self._begun:
            self._begun = True
            self._tee.begin(getattr(chunk, "model", None))
        for choice in getattr(chunk, "choices", None) or ():
            delta = choice.delta
            if thought := getattr(delta, "reasoning_content", None):
                self._tee.thinking(thought)
            if delta.content:
                self._tee.text(delta.content)
            for tool in getattr(delta, "tool_calls", None) or ():
                self._tee.tool_call(
                    tool.index or 0, tool.function.arguments or "", tool.function.name, tool.id
                )
            if choice.finish_reason:
                self._tee.end(choice.finish_reason)


def _litellm() -> Any:
    """LiteLLM, which takes a second to import: only when DSPy has done so."""
    return importlib.import_module("litellm")


_STREAMED: dict[str, Any] = {"num_retries": 0, "stream": True, "stream_options": {"include_usage": True}}


def _litellm_stream(tee: Tee, asked: dict[str, Any], retries: int) -> Any:
    from openai import APIError

    chunks = _Chunks(tee)
    try:
        for chunk in _litellm().completion(**asked | _STREAMED):
            chunks.show(chunk)
    except APIError as error:  # every error of LiteLLM's is one
        return _litellm().completion(**asked | _plainly(error, tee, retries, begun=bool(chunks.seen)))
    return _assembled(chunks.seen, asked)


async def _litellm_astream(tee: Tee, asked: dict[str, Any], retries: int) -> Any:
    from openai import APIError

    chunks = _Chunks(tee)
    try:
        async with aclosing(await _litellm().acompletion(**asked | _STREAMED)) as stream:
            async for chunk in stream:
                chunks.show(chunk)
    except APIError as error:
        return await _litellm().acompletion(**asked | _plainly(error, tee, retries, begun=bool(chunks.seen)))
    return _assembled(chunks.seen, asked)


def _plainly(error: Exception, tee: Tee, retries: int, *, begun: bool) -> dict[str, Any]:
    """Return how to ask again without a stream; raises `error` when that is not for us to do."""
    if begun or not _refuses_streaming(error):
        if not retries:
            raise error
        tee.attempt()
    return {"num_retries": retries, "retry_strategy": "exponential_backoff_retry"}


def _refuses_streaming(error: Exception) -> bool:
    """Some models refuse stream=True to some accounts: a bad request, of no kind that is bad either way."""
    litellm = _litellm()
    either_way = (litellm.ContextWindowExceededError, litellm.ContentPolicyViolationError)
    return isinstance(error, litellm.BadRequestError) and not isinstance(error, either_way)


def _litellm_retries() -> int:
    """How often LiteLLM asks again by itself. Before DSPy 3.4, which has engines, retries were left to it."""
    call = active_call()
    return 0 if _has_engines() or call is None else cast("Any", call.instance).num_retries


@functools.cache
def _has_engines() -> bool:
    return find(ENGINE) is not None


def _assembled(chunks: list[Any], asked: Mapping[str, Any]) -> Any:
    """Return what LiteLLM returns when not streaming: that names the model which answered, not the one asked,
    and its usage is the provider's, without a price that DSPy would add up, or details nobody told."""
    response = _litellm().stream_chunk_builder(chunks, messages=asked.get("messages"))
    answered = getattr(response, "_hidden_params", {}).get("provider_response_model")
    response.model = answered or response.model
    usage = response.usage
    if hasattr(usage, "cost"):
        del usage.cost
    details = dict(usage.completion_tokens_details or {})
    told = {name: count for name, count in details.items() if count is not None}
    if told == {"reasoning_tokens": 0, "text_tokens": usage.completion_tokens}:
        usage.completion_tokens_details = None
    return response


# --- what a call came to ------------------------------------------------------------------------------------


def hook_finalize(original: Callable[..., Any]) -> Callable[..., Any]:
    """`dspy.clients.execution.finalize(lm, call, result)`: the result has usage and cost."""

    @functools.wraps(original)
    def finalize(lm: Any, call: Any, result: Any) -> Any:
        tee = active_tee()
        if tee is not None:
            tee.finished = result
        return original(lm, call, result)

    return finalize


# --- the table ----------------------------------------------------------------------------------------------

ENGINE = "dspy.clients.execution:_engine"
LITELLM = "dspy.clients.lm:_get_stream_completion_fn"
FINALIZE = "dspy.clients.execution:finalize"

SEAMS: Mapping[str, tuple[Hook, Sequence[str]]] = {
    ENGINE: (hook_engine, ("lm", "call", "asynchronous")),
    LITELLM: (hook_litellm, ("request", "cache_kwargs", "sync", "headers")),
    FINALIZE: (hook_finalize, ("lm", "call", "result")),
}
"""Private functions of DSPy, the hook of each, and the parameters it had when the hook was written."""


def find(seam: str) -> tuple[Any, str] | None:
    """Return the module and the attribute name of a seam, None when this DSPy has none."""
    module_name, _, attribute = seam.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        return None
    return (module, attribute) if callable(getattr(module, attribute, None)) else None


def missing() -> list[str]:
    """Return the seams this DSPy does not have."""
    return [seam for seam in SEAMS if find(seam) is None]


@functools.cache
def install() -> None:
    """Put the hooks in place, once."""
    for seam, (hook, _) in SEAMS.items():
        if found := find(seam):
            module, attribute = found
            setattr(module, attribute, hook(getattr(module, attribute)))
    if {ENGINE, LITELLM} <= set(missing()):
        logger.warning(
            "DSPy %s has none of the seams streamll reads tokens at; events carry on", dspy.__version__
        )
