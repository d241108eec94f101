"""The functions a program uses: who is told, about what, with which ids. `live.py` has `stream`."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextvars import Token
from types import TracebackType
from typing import Any, Self, cast, overload

import dspy
from dspy.utils import callback_context

from streamll.core import capture, context, hooks
from streamll.core.context import Call, EventFilter, Instrument, Layer, Outlet, Redact
from streamll.core.events import SPANS, JsonValue
from streamll.core.log import LOG, flush, flush_on_sigterm
from streamll.core.outlets import Sink, SinkOutlet, outlet_for
from streamll.core.router import CONFIGURATION, route, set_default_sink
from streamll.core.values import freeze, jsonable
from streamll.errors import NotAProgram
from streamll.sinks.terminal import TerminalSink
from streamll.sinks.transport import TransportSink
from streamll.transports.base import DEFAULT_TARGET

set_default_sink(TerminalSink)

_EXIT_SECONDS = 2.0

# --- instrument ---------------------------------------------------------------------------------------------


@overload
def instrument[C: type](
    cls: C,
    *,
    stream_fields: Iterable[str] = (),
    sinks: Iterable[Sink] = (),
    include_inputs: bool = True,
    include_outputs: bool = True,
) -> C: ...


@overload
def instrument[C: type](
    cls: None = None,
    *,
    stream_fields: Iterable[str] = (),
    sinks: Iterable[Sink] = (),
    include_inputs: bool = True,
    include_outputs: bool = True,
) -> Callable[[C], C]: ...


def instrument(
    cls: type | None = None,
    *,
    stream_fields: Iterable[str] = (),
    sinks: Iterable[Sink] = (),
    include_inputs: bool = True,
    include_outputs: bool = True,
) -> Any:
    """Stream what a program class does, with or without parentheses.

    Every instance, copy, subclass and optimized version is instrumented; the class itself only gets a name,
    so it pickles, saves and loads as before. Events go to the configured sinks, without any to the terminal.

    Args:
        cls: A `dspy.Module` subclass.
        stream_fields: Output fields whose tokens to stream, in every predictor inside. A module may change
            them while it runs by setting `self._streamll_stream_fields`.
        sinks: More sinks, for everything called inside this module, in any thread.
        include_inputs: False keeps what the program is given (arguments, prompts, tool arguments) out of
            every event of it, and messages of errors, which may quote them.
        include_outputs: False does so for what it produces; there are no tokens then.

    Raises:
        NotAProgram: `cls` is no `dspy.Module` subclass.
        TypeError: A sink is neither a `BaseSink` nor callable.
    """

    def decorate(program: Any) -> type:
        if not (isinstance(program, type) and issubclass(program, dspy.Module)):
            instance = f"an instance of {type(program).__name__}" if isinstance(program, dspy.Module) else ""
            given = instance or f"{program!r:.80}"
            raise NotAProgram(f"@streamll.instrument was given {given}; it goes on a dspy.Module subclass.")
        hooks.mark(program, asked)
        hooks.install()
        return program

    asked = Instrument(
        outlets=_outlets(sinks),
        fields=frozenset([stream_fields] if isinstance(stream_fields, str) else stream_fields),
        include_inputs=include_inputs,
        include_outputs=include_outputs,
    )
    return decorate if cls is None else decorate(cls)


def _outlets(sinks: Iterable[Sink] | Sink) -> tuple[Outlet, ...]:
    """Accept one sink where several are expected."""
    several = isinstance(sinks, Iterable) and not isinstance(sinks, (str, bytes))
    flush_on_sigterm()
    return tuple(map(outlet_for, cast("Iterable[Sink]", sinks) if several else [cast("Sink", sinks)]))


def _from_environment() -> None:
    """Give every program of this process the sink that `$STREAMLL_SINK` names, besides its own."""
    if url := os.environ.get("STREAMLL_SINK"):
        sink = TransportSink(url, os.environ.get("STREAMLL_TARGET") or DEFAULT_TARGET)
        CONFIGURATION.add_ambient(_outlets(sink))
        hooks.install()


_from_environment()


# --- configure, set_context ---------------------------------------------------------------------------------


class configure:
    """Say where events go and what they may contain. Takes effect at once, for the whole process.

    What is not said stays as it was. Used as `with configure(...):`, it holds for what runs inside (and the
    threads and tasks that DSPy starts there) and for nobody else; its end waits up to 2 s for its own sinks.

    Args:
        sinks: Where all events go, `BaseSink`s or callables; replaces earlier ones, `[]` is nobody.
        event_filter: Event types to keep (`"lm_*"` matches), or a predicate on the event; `set()` keeps none.
        include_inputs: False keeps inputs out of every event.
        include_outputs: False keeps outputs, and thereby tokens, out of every event.
        redact: Called with each event on a worker thread; returns it, a changed copy, or None to withhold it.
            An event on which it raises is withheld.
        status_message_provider: A `dspy.streaming.StatusMessageProvider`; its words become `status` events.
        include_tracebacks: True adds tracebacks to errors.
        optimizer_tokens: True streams tokens inside optimizers too.

    Raises:
        TypeError: A sink is neither a `BaseSink` nor callable.
    """

    def __init__(
        self,
        sinks: Iterable[Sink] | Sink | None = None,
        *,
        event_filter: EventFilter | None = None,
        include_inputs: bool | None = None,
        include_outputs: bool | None = None,
        redact: Redact | None = None,
        status_message_provider: Any = None,
        include_tracebacks: bool | None = None,
        optimizer_tokens: bool | None = None,
    ) -> None:
        self._layer = Layer(
            outlets=None if sinks is None else _outlets(sinks),
            event_filter=(event_filter,) if isinstance(event_filter, str) else event_filter,
            include_inputs=include_inputs,
            include_outputs=include_outputs,
            redact=redact,
            status=status_message_provider,
            include_tracebacks=include_tracebacks,
            optimizer_tokens=optimizer_tokens,
        )
        self._token: Token[Any] | None = None
        CONFIGURATION.push(self._layer)
        hooks.install()

    def __enter__(self) -> Self:
        CONFIGURATION.remove(self._layer)
        scope = context.current()
        self._token = context.bind(scope.but(layers=(*scope.layers, self._layer)))
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            context.unbind(self._token)
        here = [outlet for outlet in self._layer.outlets or () if not getattr(outlet, "is_away", False)]
        LOG.flush(_EXIT_SECONDS, [cast("SinkOutlet", outlet) for outlet in here])


class set_context:
    """Attach ids to every event from here on in this thread or task, and in what DSPy starts from it.

    `data` of each event has them, tokens included. Used as `with set_context(...):`, they go at its end: do
    that in a thread that is used again, such as a pool's, where they would otherwise meet the next job.
    """

    def __init__(self, **ids: object) -> None:
        scope = context.current()
        told = cast("dict[str, JsonValue]", jsonable(ids))
        self._token: Token[Any] | None = context.bind(scope.but(ids={**scope.ids, **told}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            context.unbind(self._token)


def dspy_callback(
    *, include_inputs: bool | None = None, include_outputs: bool | None = None
) -> capture.Callback:
    """Return streamll's DSPy callback, registered: every DSPy call reports to the configured sinks.

    The callback is one object, so passing it to `dspy.configure(callbacks=[...])` as well changes nothing.
    (DSPy accepts a misspelt `callback=` silently and never calls it; this works there too.) Without any
    configured sink it reports to the terminal.
    """
    if CONFIGURATION.effective.outlets is None:
        configure(TerminalSink())
    if include_inputs is not None or include_outputs is not None:
        configure(include_inputs=include_inputs, include_outputs=include_outputs)
    hooks.install()
    callbacks = cast("list[object]", dspy.settings.callbacks)
    if not any(callback is capture.CALLBACK for callback in callbacks):
        callbacks.append(capture.CALLBACK)
    return capture.CALLBACK


# --- emit, trace --------------------------------------------------------------------------------------------


def emit(event_type: str, data: Mapping[str, object] | None = None, operation: str | None = None) -> None:
    """Emit an event of your own into the execution in progress, or as an execution of its own."""
    calls = context.current().execution
    parent = calls.calls.get(callback_context.ACTIVE_CALL_ID.get() or "", calls.root) if calls else None
    if parent is None or parent.execution.closed:
        with trace(operation or event_type) as only:
            only.emit(event_type, data)
    else:
        _emit(parent, event_type, data or {}, operation)


_RESERVED = frozenset(f"{span}_{end}" for span in SPANS for end in ("start", "end", "error")) | {
    *("token", "reasoning", "stream_reset", "gap")
}


def _emit(call: Call, event_type: str, data: Mapping[str, object], operation: str | None) -> None:
    if event_type in _RESERVED:
        raise ValueError(f"{event_type!r} is an event type of streamll's own; choose another name for yours.")
    to = route(context.current())
    if not to.wants(event_type):
        return
    named = call
    if operation is not None and operation != call.operation:
        named = Call(
            "emit", call.call_id, call.execution, scope=call.scope, parent=call.parent, instance=None
        )
        named.module_name, named.operation = call.module_name, operation
    LOG.put(event_type, named, {**context.current().ids, **cast("dict[str, object]", freeze(dict(data)))}, to)


class trace:
    """Mark a step of your own: `with trace("retrieval") as step:`, or `async with`.

    Emits `trace_start`, then `trace_end` with the duration or `trace_error`; calls inside are its children.
    Outside of a program it is an execution of its own.

    Args:
        operation: Name of the step.
        metadata: Put into the data of `trace_start`.
    """

    def __init__(self, operation: str, /, **metadata: object) -> None:
        self.operation = operation
        self._metadata = metadata
        self._call: Call | None = None
        self._active: Token[Any] | None = None

    def __enter__(self) -> Self:
        hooks.install()
        call = capture.begin("trace", context.new_id(), None, self.operation)
        if call is not None:
            to = route(call.scope)
            if to.wants("trace_start"):
                capture.tell(call, "trace_start", cast("dict[str, object]", freeze(self._metadata)), to)
            self._call = call
            self._active = cast("Any", callback_context.ACTIVE_CALL_ID).set(call.call_id)
        return self

    def __exit__(self, _kind: object, raised: BaseException | None, _where: TracebackType | None) -> None:
        if self._call is not None and self._active is not None:
            context.restore(callback_context.ACTIVE_CALL_ID, self._active)
            capture.finish(self._call, {}, raised)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: object, raised: BaseException | None, where: TracebackType | None
    ) -> None:
        self.__exit__(kind, raised, where)

    def emit(self, event_type: str, data: Mapping[str, object] | None = None, **values: object) -> None:
        """Emit an event of your own as part of this step."""
        if self._call is not None:
            _emit(self._call, event_type, {**(data or {}), **values}, None)


__all__ = ["configure", "dspy_callback", "emit", "flush", "instrument", "set_context", "trace"]
