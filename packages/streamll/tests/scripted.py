"""The one fake: a language model that says what the test wrote, in the chunks the test wants."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import dspy
import openai_server
import pytest

try:
    from dspy.lm15 import (
        Message,
        Response,
        StreamDeltaEvent,
        StreamEndEvent,
        StreamStartEvent,
        TextDelta,
        TextPart,
        ThinkingDelta,
        ThinkingPart,
        Usage,
    )
except ImportError:  # before DSPy 3.4 an LM has no engine: `lm` then answers over HTTP, through LiteLLM
    import litellm

    HAS_ENGINES = False
    litellm.suppress_debug_info = True
else:
    HAS_ENGINES = True

needs_engines = pytest.mark.skipif(not HAS_ENGINES, reason="this DSPy has no engines, which came with 3.4")

type Reply = str | BaseException | Callable[[str], str]


def chat(**fields: str) -> str:
    """Return a completion in ChatAdapter's format."""
    body = "".join(f"[[ ## {name} ## ]]\n{value}\n\n" for name, value in fields.items())
    return f"{body}[[ ## completed ## ]]\n"


class Script:
    """What to answer: each reply once, the last one for ever; a function gets the prompt's text."""

    supports_function_calling = False
    supports_reasoning = False
    supports_response_schema = False
    supported_params = ()

    def __init__(
        self,
        *replies: Reply,
        size: int = 4,
        thinking: str = "",
        cut: int | None = None,
        seconds_a_chunk: float = 0.0,
    ) -> None:
        self.replies = replies
        self.size = size
        self.thinking = thinking
        self.cut = cut
        self.seconds = seconds_a_chunk
        self.calls = 0
        self.chunks = 0
        self._next = itertools.count()
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: object) -> "Script":
        return self

    def text(self, request: Any) -> str:
        with self._lock:
            self.calls += 1
            reply = self.replies[min(next(self._next), len(self.replies) - 1)]
        if isinstance(reply, BaseException):
            raise reply
        return reply if isinstance(reply, str) else reply(prompt_of(request))

    def usage(self, text: str) -> Any:
        return Usage(input_tokens=7, output_tokens=len(pieces(text, self.size)))

    def respond(self, request: Any, text: str) -> Any:
        thought = [ThinkingPart(self.thinking)] if self.thinking else []
        return Response(
            id="r",
            model=request.model,
            message=Message.assistant([*thought, TextPart(text)]),
            finish_reason="stop",
            usage=self.usage(text),
        )

    def events(self, request: Any) -> Iterator[Any]:
        text = self.text(request)
        yield StreamStartEvent(id="r", model=request.model)
        for piece in pieces(self.thinking, self.size):
            yield StreamDeltaEvent(ThinkingDelta(piece, part_index=0))
        for number, piece in enumerate(pieces(text, self.size)):
            if number == self.cut and self.calls == 1:
                raise dspy.lm15.TransportError("connection lost")
            self.chunks += 1
            yield StreamDeltaEvent(TextDelta(piece, part_index=1 if self.thinking else 0))
        yield StreamEndEvent(finish_reason="stop", usage=self.usage(text))


class Engine(Script):
    """The synchronous engine of a script."""

    def complete(self, request: Any) -> Any:
        return self.respond(request, self.text(request))

    def stream(self, request: Any) -> Iterator[Any]:
        for event in self.events(request):
            if self.seconds:
                time.sleep(self.seconds)
            yield event


class AsyncEngine:
    """The asynchronous engine of a script."""

    supports_function_calling = False
    supports_reasoning = False
    supports_response_schema = False
    supported_params = ()

    def __init__(self, script: Script) -> None:
        self.script = script

    def __deepcopy__(self, memo: object) -> "AsyncEngine":
        return self

    async def complete(self, request: Any) -> Any:
        return self.script.respond(request, self.script.text(request))

    async def stream(self, request: Any) -> AsyncIterator[Any]:
        for event in self.script.events(request):
            await asyncio.sleep(self.script.seconds)
            yield event


class WithoutStream:
    """An engine that can only complete."""

    supports_function_calling = False
    supports_reasoning = False
    supports_response_schema = False
    supported_params = ()

    def __init__(self, reply: str) -> None:
        self._script = Script(reply)

    def complete(self, request: Any) -> Any:
        return self._script.respond(request, self._script.text(request))


def lm(*replies: Reply, model: str = "scripted/model", cache: bool = False, **options: Any) -> dspy.LM:
    """Return a `dspy.LM` that answers `replies`, in order; the last one for ever."""
    how = {
        name: options.pop(name) for name in ("size", "thinking", "cut", "seconds_a_chunk") if name in options
    }
    if not HAS_ENGINES:
        return _served_lm(openai_server.scripted(*replies, **how), model, cache=cache, **options)
    engine = Engine(*replies, **how)
    return dspy.LM(model, engine=engine, async_engine=AsyncEngine(engine), cache=cache, **options)


def _served_lm(script: openai_server.Script, model: str, **options: Any) -> Any:
    made: Any = dspy.LM(model, custom_llm_provider="openai", api_key="x", api_base=script.url, **options)
    made.engine = script
    return made


def prompt_of(request: Any) -> str:
    """Return the text of all messages of a request."""
    parts = [part for message in request.messages for part in message.parts if hasattr(part, "text")]
    return "\n".join([*([request.system] if request.system else []), *(part.text for part in parts)])


def pieces(text: str, size: int) -> Sequence[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]
