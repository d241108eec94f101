"""DSPy's calls as events: one callback object for the whole library, and a hook on `dspy.Module`.

The callback hears of every call. The hook puts the callback where it is needed, with the instruments of the
module's class: so a program is seen whoever made it, copied it or loaded it, under any `dspy.configure`.
"""

import atexit
import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from time import perf_counter
from types import SimpleNamespace
from typing import Any, cast
from weakref import WeakKeyDictionary, WeakSet

import dspy
from dspy.utils import callback_context
from dspy.utils.callback import BaseCallback

from streamll.core import context, describe, seams
from streamll.core.context import Call, Execution, Frame, Instrument, Scope
from streamll.core.router import CONFIGURATION, LOG, Route, route
from streamll.core.tee import tee_for

logger = logging.getLogger("streamll")

_open_executions: WeakSet[Execution] = WeakSet()


# --- starting and ending calls ------------------------------------------------------------------------------


def begin(
    kind: str,
    call_id: str,
    instance: object,
    *,
    operation: str,
    about: Mapping[str, object],
    given: Mapping[str, object],
) -> Call | None:
    """Take down that a call starts; opens an execution when it is the outermost. None when nobody listens."""
    scope = context.current()
    if scope.execution is None or scope.execution.closed:
        if not route(scope).outlets:
            return None
        scope = scope.but(execution=_opened(scope))
    execution = cast("Execution", scope.execution)
    parent = execution.calls.get(callback_context.ACTIVE_CALL_ID.get() or "", execution.root)
    if call_id in execution.calls or (parent and parent.kind == kind and kind.startswith("adapter_")):
        return None  # registered twice, or DSPy's doubled `format` of an adapter that inherits it
    call = Call(kind, call_id, execution, scope=scope, parent=parent, instance=instance)
    call.operation = operation
    if kind == "module":
        call.owner = call
        call.module_name = _dotted_name(instance, parent)
    if execution.root is None:
        _start_execution(call)
    execution.calls[call_id] = call
    _put_start(call, about, given)
    return call


def _opened(scope: Scope) -> Execution:
    execution = Execution()
    execution.token = context.bind(scope.but(execution=execution))
    _open_executions.add(execution)
    return execution


def _start_execution(root: Call) -> None:
    root.execution.root = root
    root.module_name = root.module_name or root.operation
    to = route(root.scope)
    if to.wants("execution_start"):
        LOG.put("execution_start", root, {**root.scope.ids, "program": root.operation}, to)


def _put_start(call: Call, about: Mapping[str, object], given: Mapping[str, object]) -> None:
    to = route(call.scope)
    name = f"{_span(call.kind)}_start"
    if to.wants(name):
        LOG.put(name, call, {**call.scope.ids, **about, **(given if _tells_given(call, to) else {})}, to)


def _tells_given(call: Call, to: Route) -> bool:
    """False when what a call was given is private: inside a program whose outputs are, that is everything, as
    one step's output is the next one's input."""
    if call.kind == "adapter_parse":
        return to.include_outputs
    inside = call.parent is not None and not route(call.parent.scope).include_outputs
    return to.include_inputs and not inside


def _tells_result(call: Call, to: Route) -> bool:
    """False when what a call gave back is private. An adapter's prompt is made of inputs."""
    return to.include_outputs and (to.include_inputs or call.kind != "adapter_format")


def finish(call: Call, data: Mapping[str, object], raised: BaseException | None = None) -> None:
    """Take down how a call ended, and close its execution when it was the outermost."""
    execution = call.execution
    if execution.calls.pop(call.call_id, None) is None:
        return
    if call is execution.root:
        _abandon_children(execution)
    _put_end(call, data, raised)
    if call is execution.root:
        _end_execution(call, raised)


def _put_end(
    call: Call, data: Mapping[str, object], raised: BaseException | None, code: str | None = None
) -> None:
    to = route(call.scope)
    name = f"{_span(call.kind)}_{'end' if raised is None else 'error'}"
    if not to.wants(name):
        return
    took = {"duration_ms": round((perf_counter() - call.started) * 1e3, 3)}
    LOG.put(name, call, {**context.current().ids, **took, **data, **_failure(call, raised, to, code)}, to)


def _failure(call: Call, raised: BaseException | None, to: Route, code: str | None) -> Mapping[str, object]:
    if raised is None:
        return {}
    private = not (to.include_inputs and to.include_outputs)
    told = describe.error(
        raised, kind=call.kind, private=private, tracebacks=bool(to.layer.include_tracebacks)
    )
    if code:
        cast("dict[str, object]", told["error"]).update(code=code, hint=describe.HINTS[code])
    return told


def _abandon_children(execution: Execution) -> None:
    """Close what still runs in other threads or tasks: every start has an end."""
    for call in reversed(list(execution.calls.values())):
        if execution.calls.pop(call.call_id, None):
            _put_end(call, {}, RuntimeError(describe.HINTS["abandoned"]), "abandoned")


def _end_execution(root: Call, raised: BaseException | None, code: str | None = None) -> None:
    execution = root.execution
    execution.closed = True
    _open_executions.discard(execution)
    to = route(root.scope)
    name = "execution_end" if raised is None else "execution_error"
    if to.wants(name):
        took = {
            "program": root.operation,
            "duration_ms": round((perf_counter() - execution.started) * 1e3, 3),
        }
        ids = context.current().ids or root.scope.ids
        LOG.put(name, root, {**ids, **took, **execution.totals, **_failure(root, raised, to, code)}, to)
    if execution.token is not None:
        context.unbind(execution.token)


def _close_at_exit() -> None:
    """End the log of what the interpreter's exit cuts off."""
    for execution in list(_open_executions):
        root, cut = execution.root, RuntimeError(describe.HINTS["interrupted"])
        if root is not None and not execution.closed:
            _abandon_children(execution)
            execution.closed = True
            _end_execution(root, cut, "interrupted")


atexit.register(_close_at_exit)
os.register_at_fork(after_in_child=_open_executions.clear)


def _span(kind: str) -> str:
    return "interpreter" if kind.startswith("interpreter") else kind


def _put_status(call: Call, provider: Any, moment: str, to: Route, *args: object) -> None:
    """Ask DSPy's `StatusMessageProvider` for its words on this call."""
    hook = getattr(provider, f"{call.kind}_{moment}_status_message", None)
    if hook is None or not to.wants("status"):
        return
    try:
        message = hook(*args)
    except Exception as error:  # noqa: BLE001 - the user's provider
        logger.warning("%s failed: %s: %s", getattr(hook, "__qualname__", hook), type(error).__name__, error)
        return
    if message:
        LOG.put("status", call, {**call.scope.ids, "message": str(message)}, to)


# --- names --------------------------------------------------------------------------------------------------


def _dotted_name(instance: object, parent: Call | None) -> str:
    """Return the module's path in the program, as DSPy's `named_predictors` writes it."""
    holder = parent.owner if parent else None
    if holder is None:
        return type(instance).__name__
    name = _attribute_of(holder.instance, instance) or type(instance).__name__
    at_root = holder.parent is None or holder.parent.owner is None
    return name if at_root else f"{holder.module_name}.{name}"


def _attribute_of(holder: object, child: object) -> str | None:
    for name, value in list(getattr(holder, "__dict__", {}).items()):
        if value is child:
            return name
        items: Any = ()
        if isinstance(value, (list, tuple)):
            items = enumerate(cast("Sequence[object]", value))
        elif isinstance(value, dict):
            items = cast("dict[object, object]", value).items()
        for key, item in items:
            if item is child:
                return f"{name}[{key!r}]"
    return None


# --- the callback -------------------------------------------------------------------------------------------


class Callback(BaseCallback):
    """What DSPy calls. A table of kinds makes its handlers; `lm` and the adapters have a word to add."""

    def __deepcopy__(self, memo: object) -> "Callback":
        return self

    def __reduce__(self) -> str | tuple[Any, ...]:
        return (_the_callback, ())


def _the_callback() -> Callback:
    return CALLBACK


_silenced: dict[str, Token[Any]] = {}
"""Optimizer runs: tokens stay off inside, also where DSPy works in threads, also when nobody listens yet."""


def _started(kind: str, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
    call = begin(
        kind,
        call_id,
        instance,
        operation=describe.operation(instance, kind),
        about=describe.ABOUT.get(kind, _nothing)(instance, inputs) | _interpreter_step(kind),
        given=describe.INPUTS.get(kind, describe.plain_inputs)(instance, inputs),
    )
    if call is not None:
        _AT_START.get(kind, _nothing_more)(call, inputs)
        to = route(call.scope)
        for provider in to.status:
            _put_status(call, provider, "start", to, instance, inputs if _tells_given(call, to) else {})
    if kind == "compile" and call_id not in _silenced:
        _silenced[call_id] = context.bind(context.current().but(quiet=True))


def _nothing(_instance: Any, _inputs: Mapping[str, Any]) -> dict[str, object]:
    return {}


def _interpreter_step(kind: str) -> dict[str, object]:
    return {"step": kind.removeprefix("interpreter_")} if kind.startswith("interpreter_") else {}


def _lm_started(call: Call, inputs: dict[str, Any]) -> None:
    call.lm = tee_for(call, inputs)
    call.lm.messages = inputs.get("messages")
    call.execution.add(lm_calls=1)
    if call.owner is not None:
        call.owner.lm = call.lm


def _format_started(call: Call, inputs: dict[str, Any]) -> None:
    signature = describe.adapter_arguments(inputs).get("signature")
    if call.owner is not None and signature is not None:
        call.owner.adapter = (call.instance, signature)


def _tool_started(call: Call, _inputs: dict[str, Any]) -> None:
    call.execution.add(tool_calls=1)


def _nothing_more(_call: Call, _inputs: dict[str, Any]) -> None:
    return


_AT_START = {"lm": _lm_started, "adapter_format": _format_started, "tool": _tool_started}


def _ended(kind: str, call_id: str, outputs: Any, exception: BaseException | None) -> None:
    if kind == "compile" and (token := _silenced.pop(call_id, None)):
        context.unbind(token)
    execution = context.current().execution
    call = execution.calls.get(call_id) if execution else None
    if call is None:
        return
    told = _tells_result(call, route(call.scope))
    data: dict[str, object] = {}
    try:
        data |= _AT_END.get(kind, _nothing_known)(call, outputs, exception)
        if exception is None and told:
            data |= (describe.result if kind == "tool" else describe.outputs)(outputs)
    finally:
        finish(call, data, exception)
    if exception is None:
        for provider in route(call.scope).status:
            _put_status(call, provider, "end", route(call.scope), outputs if told else None)


def _lm_ended(call: Call, outputs: Any, exception: BaseException | None) -> dict[str, object]:
    data = describe.lm_result(call, call.lm.finished or _from_history(call))
    spent = {name: cast("Any", data[name]) for name in ("input_tokens", "output_tokens", "cost_usd")}
    unpriced = exception is None and data["cost_source"] == "unknown"
    call.execution.add(**spent, cached_calls=bool(data["cached"]), unpriced_calls=unpriced)
    if exception is None:
        call.lm.returned(outputs)
    return data


def _from_history(call: Call) -> Any:
    """Return what DSPy's history says of this call, on a DSPy without the `finalize` seam."""
    entries = cast("list[dict[str, Any]]", getattr(call.instance, "history", None) or [])
    found = next((entry for entry in reversed(entries) if entry.get("messages") is call.lm.messages), None)
    if found is None:
        return None
    return SimpleNamespace(**found, raw=found.get("response"), cache_hit=not found.get("usage"))


def _parse_ended(call: Call, outputs: Any, exception: BaseException | None) -> dict[str, object]:
    tee = call.owner.lm if call.owner else None
    if tee is not None and exception is not None:
        tee.unparsed()
    elif tee is not None and isinstance(outputs, dict):
        tee.parsed(cast("dict[str, object]", outputs))
    return {}


def _nothing_known(_call: Call, _outputs: Any, _exception: BaseException | None) -> dict[str, object]:
    return {}


_AT_END = {"lm": _lm_ended, "adapter_parse": _parse_ended}

KINDS = (
    *("module", "lm", "tool", "adapter_format", "adapter_parse", "evaluate", "compile"),
    *("interpreter_startup", "interpreter_execute", "interpreter_tool_call", "interpreter_shutdown"),
)
"""DSPy's callback kinds: `on_<kind>_start` and `on_<kind>_end`."""


def _handlers(kind: str) -> None:
    def start(self: Callback, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        _guarded(_started, kind, call_id, instance, inputs)

    def end(self: Callback, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        _guarded(_ended, kind, call_id, outputs, exception)

    setattr(Callback, f"on_{kind}_start", start)
    setattr(Callback, f"on_{kind}_end", end)


def _guarded(handle: Any, *args: Any) -> None:
    try:
        handle(*args)
    except Exception:
        logger.exception("streamll failed to take down a %s call; the program goes on", args[0])


for _kind in KINDS:
    _handlers(_kind)

CALLBACK = Callback()


# --- the hook on dspy.Module --------------------------------------------------------------------------------

_instruments: dict[str, Instrument] = {}
_of_class: WeakKeyDictionary[type, tuple[Instrument, ...]] = WeakKeyDictionary()
_MARK = "_streamll_instrument"


def mark(cls: type, instrument: Instrument) -> None:
    """Instrument `cls`. The class carries only a name, so it pickles and is saved as before."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    _instruments[name] = instrument
    setattr(cls, _MARK, name)
    _of_class.clear()


def instruments_of(cls: type) -> tuple[Instrument, ...]:
    """Return the instruments of a class and its bases, the base's first."""
    known = _of_class.get(cls)
    if known is None:
        marks = [vars(c)[_MARK] for c in reversed(cls.__mro__) if _MARK in vars(c)]
        known = _of_class[cls] = tuple(_instruments[name] for name in marks if name in _instruments)
    return known


def enter(module: object) -> Token[Any] | None:
    """Put the module's instruments, and the callback, in force for the call that follows."""
    scope = context.current()
    if scope.execution is not None and scope.execution.cancelled:
        raise context.Abandoned
    asked = instruments_of(type(module))
    callbacks = _callbacks()
    present = any(callback is CALLBACK for callback in callbacks)
    if present and not asked:
        return None
    if asked:
        frames = [f for f in scope.frames if f.module is not module]
        scope = scope.but(frames=(*frames, *(Frame(instrument, module) for instrument in asked)))
    if not route(scope).outlets:
        return None
    return context.bind(scope, callbacks=callbacks if present else [*callbacks, CALLBACK])


def _callbacks() -> list[object]:
    """Return DSPy's list of callbacks in force here: the list itself."""
    return cast("list[object]", dspy.settings.callbacks)


@functools.cache
def install() -> None:
    """Hook DSPy, once; nothing happens until somebody listens."""
    seams.install()
    call = cast("Callable[..., Any]", dspy.Module.__call__)
    acall = cast("Callable[..., Any]", dspy.Module.acall)

    @functools.wraps(call)
    def __call__(self: dspy.Module, *args: Any, **kwargs: Any) -> Any:
        token = enter(self)
        try:
            return call(self, *args, **kwargs)
        finally:
            if token is not None:
                context.unbind(token)

    @functools.wraps(acall)
    async def acall_(self: dspy.Module, *args: Any, **kwargs: Any) -> Any:
        token = enter(self)
        try:
            return await acall(self, *args, **kwargs)
        finally:
            if token is not None:
                context.unbind(token)

    dspy.Module.__call__ = __call__
    dspy.Module.acall = acall_


def listen() -> None:
    """Register the callback with DSPy while anybody listens, for calls outside of modules."""
    install()
    callbacks = cast("list[Any]", dspy.settings.callbacks)
    wanted = bool(CONFIGURATION.effective.outlets) or (
        bool(_instruments) and CONFIGURATION.effective.outlets is None
    )
    present = any(callback is CALLBACK for callback in callbacks)
    if wanted and not present:
        callbacks.append(CALLBACK)
    elif present and not wanted:
        callbacks[:] = [callback for callback in callbacks if callback is not CALLBACK]
