"""DSPy's calls as facts: how one starts, how it ends, where it is in the tree.

`started` and `ended` are told of every call, by the hooks (`hooks.py`) or by DSPy through `CALLBACK`, the one
callback object of the library.
"""

import asyncio
import atexit
import functools
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from contextvars import Token
from time import perf_counter
from types import SimpleNamespace
from typing import Any, cast
from weakref import WeakSet

from dspy.utils import callback_context
from dspy.utils.callback import BaseCallback

from streamll.core import context, describe
from streamll.core.context import Call, Execution, Scope
from streamll.core.log import LOG
from streamll.core.router import Route, route
from streamll.core.tee import tee_for

logger = logging.getLogger("streamll")

_open_executions: WeakSet[Execution] = WeakSet()


KINDS = (
    *("module", "lm", "tool", "adapter_format", "adapter_parse", "evaluate", "compile"),
    *("interpreter_startup", "interpreter_execute", "interpreter_tool_call", "interpreter_shutdown"),
)
"""DSPy's callback kinds: `on_<kind>_start` and `on_<kind>_end`."""

_NAMES: Mapping[str, tuple[str, str, str]] = {
    kind: (f"{span}_start", f"{span}_end", f"{span}_error")
    for kind in (*KINDS, "trace")
    for span in [kind.partition("_")[0] if kind.startswith("interpreter") else kind]
}
"""What the events of a kind are called; the steps of an interpreter share one name."""

# --- starting and ending calls ------------------------------------------------------------------------------


def begin(kind: str, call_id: str, instance: object, operation: str) -> Call | None:
    """Enter a call into the tree; opens an execution when it is the outermost. None when nobody listens."""
    scope = context.current()
    if scope.execution is None or scope.execution.closed:
        if not route(scope).outlets:
            return None
        scope = scope.but(execution=_opened(scope))
    execution = cast("Execution", scope.execution)
    parent = execution.calls.get(callback_context.ACTIVE_CALL_ID.get() or "", execution.root)
    if call_id in execution.calls or (parent and parent.kind == kind and kind in _DOUBLED):
        return None  # registered twice, or an inherited method that DSPy reports a second time
    call = Call(kind, call_id, execution, scope=scope, parent=parent, instance=instance)
    call.operation = operation
    if kind == "module":
        call.owner = call
        call.module_name = _dotted_name(instance, parent)
    if execution.root is None:
        _start_execution(call)
    execution.calls[call_id] = call
    return call


_DOUBLED = frozenset({"adapter_format", "adapter_parse"})


def _opened(scope: Scope) -> Execution:
    execution = Execution()
    execution.token = context.bind(scope.but(execution=execution))
    return execution


def _start_execution(root: Call) -> None:
    root.execution.root = root
    _open_executions.add(root.execution)
    root.module_name = root.module_name or root.operation
    to = route(root.scope)
    if to.wants("execution_start"):
        tell(root, "execution_start", {"program": root.operation, **root.execution.about}, to)


def tell(call: Call, name: str, data: Mapping[str, object], to: Route) -> None:
    """Take down an event of `call`, with the ids in force here."""
    LOG.put(name, call, {**context.current().ids, **data}, to)


def _tells_given(call: Call, to: Route) -> bool:
    """False when what a call was given is private: inside a program whose outputs are, that is everything, as
    one step's output is the next one's input."""
    if call.kind == "adapter_parse":
        return to.include_outputs
    inside = call.parent is not None and not route(call.parent.scope).include_outputs
    return to.include_inputs and not inside


def _tells_result(call: Call, to: Route) -> bool:
    """False when what a call gave back is private. A prompt, or an evaluation's table, is made of inputs."""
    return to.include_outputs and (to.include_inputs or call.kind not in _MADE_OF_INPUTS)


_MADE_OF_INPUTS = frozenset({"adapter_format", "evaluate", "compile"})


def finish(call: Call, data: Mapping[str, object], raised: BaseException | None = None) -> None:
    """Take down how a call ended, and close its execution when it was the outermost."""
    execution = call.execution
    if execution.calls.pop(call.call_id, None) is None:
        return
    try:
        if call is execution.root:
            _abandon_children(execution)
        _put_end(call, data, raised)
    finally:
        if call is execution.root:
            _end_execution(call, raised)


def _put_end(
    call: Call, data: Mapping[str, object], raised: BaseException | None, code: str | None = None
) -> None:
    to = route(call.scope)
    name = _NAMES[call.kind][1 if raised is None else 2]
    if to.wants(name):
        took = round((perf_counter() - call.started) * 1e3, 3)
        tell(call, name, {"duration_ms": took, **data, **_failure(call, raised, to, code)}, to)


def _failure(call: Call, raised: BaseException | None, to: Route, code: str | None) -> Mapping[str, object]:
    if raised is None:
        return {}
    if isinstance(raised, _STOPS):
        code = code or call.execution.stopped
    private = not (to.include_inputs and to.include_outputs)
    told = describe.error(
        raised, kind=call.kind, private=private, tracebacks=bool(to.layer.include_tracebacks)
    )
    if code:
        cast("dict[str, object]", told["error"]).update(code=code, hint=describe.HINTS[code])
    return told


_STOPS = (context.Abandoned, asyncio.CancelledError)


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


def close(execution: Execution, code: str) -> None:
    """End the log of a program that is still running, saying why."""
    if execution.root is not None and not execution.closed:
        _abandon_children(execution)
        execution.closed = True
        _end_execution(execution.root, RuntimeError(describe.HINTS[code]), code)


def _close_at_exit() -> None:
    """End the log of what the interpreter's exit cuts off."""
    for execution in list(_open_executions):
        close(execution, "interrupted")


atexit.register(_close_at_exit)


def _leave_to_parent() -> None:
    """What was open when a process forked is its own: the child opens executions for itself."""
    for execution in list(_open_executions):
        execution.closed, execution.sequence = True, -1
    _open_executions.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


def _put_status(call: Call, provider: Any, moment: str, to: Route, *args: object) -> None:
    """Ask DSPy's `StatusMessageProvider` for its words on this call."""
    hook = getattr(provider, f"{call.kind}_{moment}_status_message", None)
    if hook is None or not to.wants("status") or (call.kind, call.operation) == ("tool", "finish"):
        return  # ReAct's `finish` is no tool to a person; DSPy leaves it out too
    try:
        message = hook(*args)
    except Exception as error:  # noqa: BLE001 - the user's provider
        logger.warning("%s failed: %s: %s", getattr(hook, "__qualname__", hook), type(error).__name__, error)
        return
    if message:
        tell(call, "status", {"message": str(message)}, to)


# --- names --------------------------------------------------------------------------------------------------


def _dotted_name(instance: object, parent: Call | None) -> str:
    """Return the module's path in the program, as DSPy's `named_predictors` writes it."""
    holder = parent.owner if parent else None
    if holder is None:
        return type(instance).__name__
    name = _attribute_of(holder.instance, instance) or type(instance).__name__
    at_root = holder.parent is None or holder.parent.owner is None
    return name if at_root else f"{holder.module_name}.{name}"


_MOST_MODULES = 1_000


def _attribute_of(holder: object, child: object) -> str | None:
    attributes = dict(getattr(holder, "__dict__", {}))
    for name, value in attributes.items():
        if value is child:
            return name
    for name, value in attributes.items():
        for key, item in _small_container(value):
            if item is child:
                return f"{name}[{key!r}]"
    return None


def _small_container(value: object) -> Iterable[tuple[object, object]]:
    """Return keys and items of a list, tuple or dict that may hold modules: not a corpus, not a cache."""
    if not isinstance(value, (list, tuple, dict)) or len(cast("Sized", value)) > _MOST_MODULES:
        return ()
    if isinstance(value, dict):
        return list(cast("dict[object, object]", value).items())
    return enumerate(cast("Sequence[object]", value))


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
    call = begin(kind, call_id, instance, describe.operation(instance, kind))
    if call is not None:
        if kind in _AT_START:
            _AT_START[kind](call, inputs)
        _tell_start(call, inputs)
    if kind == "compile" and call_id not in _silenced:
        _silenced[call_id] = context.bind(context.current().but(quiet=True))


def _tell_start(call: Call, inputs: dict[str, Any]) -> None:
    to, kind = route(call.scope), call.kind
    if to.wants(_NAMES[kind][0]):
        data = describe.ABOUT.get(kind, _nothing)(call.instance, inputs) | _interpreter_step(kind)
        if _tells_given(call, to):
            data |= describe.INPUTS.get(kind, describe.plain_inputs)(call.instance, inputs)
        tell(call, _NAMES[kind][0], data, to)
    for provider in to.status:
        given = inputs if _tells_given(call, to) else {}
        _put_status(call, provider, "start", to, call.instance, given)


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


_AT_START = {"lm": _lm_started, "adapter_format": _format_started, "tool": _tool_started}


def _ended(
    kind: str,
    call_id: str,
    outputs: Any,
    exception: BaseException | None,
    execution: Execution | None = None,
) -> None:
    if kind == "compile" and (token := _silenced.pop(call_id, None)):
        context.unbind(token)
    execution = execution or context.current().execution
    call = execution.calls.get(call_id) if execution else None
    if call is None:
        return
    to = route(call.scope)
    told = exception is None and _tells_result(call, to)
    data: dict[str, object] = {}
    try:
        if kind in _AT_END:
            data |= _AT_END[kind](call, outputs, exception)
        if told and to.wants(_NAMES[kind][1]):
            data |= (describe.result if kind == "tool" else describe.outputs)(outputs)
    finally:
        finish(call, data, exception)
    for provider in to.status if exception is None else ():
        _put_status(call, provider, "end", to, outputs if told else None)


def _lm_ended(call: Call, outputs: Any, exception: BaseException | None) -> dict[str, object]:
    call.lm.finished = call.lm.finished or _from_history(call)
    data = describe.lm_result(call, call.lm.finished)
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
    response = found.get("response")
    # DSPy keeps the price of what it cached, and says that nothing was used.
    unused = not found.get("usage") and found.get("cost") is not None
    return SimpleNamespace(**found, raw=response, cache_hit=getattr(response, "cache_hit", False) or unused)


def _parse_ended(call: Call, outputs: Any, exception: BaseException | None) -> dict[str, object]:
    tee = call.owner.lm if call.owner else None
    if tee is not None and exception is not None:
        tee.unparsed()
    elif tee is not None and isinstance(outputs, dict):
        tee.parsed(cast("dict[str, object]", outputs))
    return {}


_AT_END = {"lm": _lm_ended, "adapter_parse": _parse_ended}


def _guarded[**P](handle: Callable[P, None]) -> Callable[P, None]:
    """Return `handle`, logging what it raises: a fault of ours must not fail the program."""

    @functools.wraps(handle)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            handle(*args, **kwargs)
        except Exception:  # a fault of ours, whatever it is
            logger.exception("streamll failed to take down a %s call; the program goes on", args[0])

    return guarded


started = _guarded(_started)
ended = _guarded(_ended)


def _handlers(kind: str) -> None:
    def start(self: Callback, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        started(kind, call_id, instance, inputs)

    def end(self: Callback, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        ended(kind, call_id, outputs, exception)

    setattr(Callback, f"on_{kind}_start", start)
    setattr(Callback, f"on_{kind}_end", end)


for _kind in KINDS:
    _handlers(_kind)

CALLBACK = Callback()
