"""Tokens: what an LM writes, seen while DSPy reads it.

DSPy asks an engine for a whole response. For a call whose tokens somebody wants, we hand DSPy an engine that
reads the provider's stream, shows us each event, and returns the same assembled response. Nothing else
changes: the call stays on its thread or task, and retries, cache, usage, cost and the adapter fallback work
as without us. `dspy.streamify` replaces that machinery instead, which is why it loses them.

"""

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, cast

import dspy

from streamll.core.context import Abandoned, Call
from streamll.core.describe import options_of
from streamll.core.fields import ChatParser, Delta, FieldParser, JsonParser, XmlParser
from streamll.core.log import LOG
from streamll.core.router import Route, route, token_route
from streamll.core.values import jsonable

# --- which parser, which fields -----------------------------------------------------------------------------

_PARSERS: Mapping[Any, Callable[[Mapping[str, bool]], FieldParser]] = {
    inspect.unwrap(dspy.ChatAdapter.parse): ChatParser,
    inspect.unwrap(dspy.JSONAdapter.parse): JsonParser,
    inspect.unwrap(dspy.XMLAdapter.parse): XmlParser,
}
"""By the `parse` an adapter really runs: a subclass that keeps it streams, one that replaces it does not."""


def _is_text(annotation: object) -> bool:
    return annotation is str or annotation is getattr(dspy, "Reasoning", str)


class _Plain:
    """The parser of a direct LM call: all of the text, as it comes."""

    def feed(self, chunk: str) -> list[Delta]:
        return [Delta("", chunk)]

    def close(self) -> list[Delta]:
        return []


def tee_for(call: Call, inputs: Mapping[str, Any]) -> "Tee":
    """Return the tee of an LM call that starts now."""
    predictor = call.owner
    several = (options_of(call.instance, inputs).get("n") or 1) > 1
    if predictor and predictor.adapter:
        adapter, signature = cast("tuple[Any, Any]", predictor.adapter)
        return Tee(call, *_layout(cast("type[dspy.Adapter]", type(adapter)), signature), several=several)
    direct = not (predictor and _is_predictor(predictor))
    return Tee(call, _Plain if direct else None, {"": True} if direct else {}, several=several)


@functools.lru_cache(maxsize=256)
def _layout(
    adapter: type[dspy.Adapter], signature: Any
) -> tuple[Callable[[], FieldParser] | None, Mapping[str, bool]]:
    """Return how to make a parser of what an adapter asks for, and the output fields (name -> is it text)."""
    fields = {str(name): _is_text(info.annotation) for name, info in signature.output_fields.items()}
    parser = _PARSERS.get(inspect.unwrap(adapter.parse))
    return functools.partial(parser, fields) if parser else None, fields


def _is_predictor(call: Call) -> bool:
    return isinstance(call.instance, dspy.Predict)


# --- one LM call --------------------------------------------------------------------------------------------


class Tee:
    """What one LM call writes: attempt after attempt, candidate after candidate, field by field.

    `fields` are the output fields (name -> is it text); "" is the text of a call without a signature.
    """

    def __init__(
        self,
        call: Call,
        make_parser: Callable[[], FieldParser] | None,
        fields: Mapping[str, bool],
        *,
        several: bool,
    ) -> None:
        self._call = call
        self._make_parser = make_parser
        self._fields = fields
        self._several = several
        self._routes = _routes(call, fields)
        self._parser: FieldParser | None = None
        self._open = False
        self._ended = 0
        self._parsed = 0
        self._attempts = 0
        self._written: dict[tuple[int, str], list[str]] = {}
        self._tools: dict[int, str] = {}
        self.first_token: float | None = None
        self.finish_reason: str | None = None
        self.model: str | None = None
        self.finished: Any = None
        self.messages: Any = None

    @property
    def streams(self) -> bool:
        """True when somebody wants the tokens of this call."""
        return bool(self._routes)

    @property
    def retries(self) -> int:
        return max(0, self._attempts - max(self._ended, 1))

    def check(self) -> None:
        """Stop here when the program is told to."""
        if self._call.execution.stopped:
            raise Abandoned

    def attempt(self) -> None:
        """Another request begins: what an unfinished one wrote is void."""
        self.check()
        self._attempts += 1
        if self._open:
            self._open = False
            self._void(self._ended, "retry")

    # What the model writes.

    def begin(self, model: str | None) -> None:
        self.model = model or self.model
        self._open = True
        self._parser = self._make_parser() if self._make_parser else None

    def text(self, chunk: str) -> None:
        if self.first_token is None:
            self.first_token = perf_counter()
        if self._parser is not None:
            self._write(self._parser.feed(chunk))

    def thinking(self, chunk: str) -> None:
        if self.first_token is None:
            self.first_token = perf_counter()
        if chunk and _THINKING in self._routes:
            self._emit(_THINKING, chunk, self._ended)

    def tool_call(self, part: int, fragment: str, name: str | None, identity: str | None) -> None:
        if self.first_token is None:
            self.first_token = perf_counter()
        if _TOOLS in self._routes:
            named = self._tools.setdefault(part, name or "")
            extra = {"raw": True, "tool_name": named, "tool_call_id": identity}
            self._emit(_TOOLS, fragment, self._ended, extra)

    def end(self, finish_reason: str | None) -> None:
        self.finish_reason = finish_reason or self.finish_reason
        if self._parser is not None:
            self._write(self._parser.close())
        self._open = False
        self._ended += 1

    # What DSPy made of it.

    def parsed(self, outputs: Mapping[str, object]) -> None:
        """Close every field of the next candidate, and put right what differs from what DSPy parsed."""
        candidate, self._parsed = self._parsed, self._parsed + 1
        for name in self._fields:
            if name in self._routes and name in outputs:
                self._close(candidate, name, outputs[name])

    def unparsed(self) -> None:
        """DSPy could not parse the next candidate: its tokens are void."""
        candidate, self._parsed = self._parsed, self._parsed + 1
        self._void(candidate, "parse_error")

    def returned(self, outputs: object) -> None:
        """The call is over. Without a signature its text is the field, and closes here."""
        if "" in self._routes and isinstance(outputs, list):
            for candidate, output in enumerate(cast("list[object]", outputs)):
                text = cast("dict[str, object]", output).get("text") if isinstance(output, dict) else output
                self._close(candidate, "", text if isinstance(text, str) else "")

    def _close(self, candidate: int, name: str, value: object) -> None:
        is_text = self._fields[name]
        chunks = self._written.get((candidate, name))
        extra: dict[str, object] = {"finish_reason": self.finish_reason or "stop"}
        if not is_text:
            extra |= {"raw": True, "value": jsonable(value)}
        if getattr(self.finished, "cache_hit", False):
            extra["cached"] = True
        rest = self._missing(candidate, name, _text_of(value, is_text), chunks, is_text=is_text)
        self._emit(name, rest, candidate, extra)

    def _missing(
        self, candidate: int, name: str, text: str, chunks: list[str] | None, *, is_text: bool
    ) -> str:
        """Return what of `text` was not streamed yet; voids what was when it is not how `text` begins."""
        if chunks is None:
            return text
        written = "".join(chunks)
        if not is_text or written == text:
            return ""
        self._call.execution.add(corrections=1)
        if text.startswith(written):
            return text[len(written) :]
        self._reset(candidate, name, "corrected")
        return text

    def _write(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            if delta.field in self._routes:
                if delta.reset:
                    self._reset(self._ended, delta.field, "corrected")
                if delta.text:
                    self._emit(delta.field, delta.text, self._ended, _RAW if delta.raw else None)

    def _void(self, candidate: int, reason: str) -> None:
        for position, name in list(self._written):
            if position == candidate:
                self._reset(candidate, name, reason)

    def _reset(self, candidate: int, name: str, reason: str) -> None:
        if self._written.pop((candidate, name), None) is None:
            return
        route = self._routes[name]
        if route.wants("stream_reset"):
            data: dict[str, object] = {
                **self._call.scope.ids,
                **(_LANES.get(name) or {"field": name or None}),
            }
            LOG.put("stream_reset", self._call, {**data, "reason": reason} | self._which(candidate), route)

    def _emit(self, name: str, text: str, candidate: int, extra: Mapping[str, object] | None = None) -> None:
        chunks = self._written.get((candidate, name))
        if chunks is None:
            chunks = self._written[candidate, name] = []
        data: dict[str, object] = {**self._call.scope.ids, "token": text, "token_index": len(chunks)}
        data |= _LANES.get(name) or {"field": name or None}
        chunks.append(text)
        if extra:
            data.update(extra)
        if self._several:
            data["candidate"] = candidate
        LOG.put("reasoning" if name is _THINKING else "token", self._call, data, self._routes[name])

    def _which(self, candidate: int) -> dict[str, object]:
        return {"candidate": candidate} if self._several else {}


_RAW: Mapping[str, object] = {"raw": True}
_THINKING = "<thinking>"
_TOOLS = "<tools>"
_LANES: Mapping[str, Mapping[str, object]] = {
    _THINKING: {"field": None, "of": "reasoning"},
    _TOOLS: {"field": "tool_calls"},
}
"""What is streamed besides output fields, and how its events name it."""


def _routes(call: Call, fields: Mapping[str, bool]) -> Mapping[str, Route]:
    """Return who receives what: by field, and for thinking and native tool calls whoever gets any field."""
    whole = route(call.scope)
    if call.scope.quiet and not whole.layer.optimizer_tokens:
        return {}
    key = (*fields, *(frame.fields() for frame in call.scope.frames))
    known = whole.tokens.get(key)
    if known is None:
        named = {name: token_route(call.scope, name or None) for name in fields}
        named |= dict.fromkeys(_LANES, token_route(call.scope, None))
        known = whole.tokens[key] = {name: found for name, found in named.items() if found}
    return known


def _text_of(value: object, is_text: bool) -> str:
    if isinstance(value, str):
        return value
    return (
        str(getattr(value, "content", value)) if is_text else json.dumps(jsonable(value), ensure_ascii=False)
    )
