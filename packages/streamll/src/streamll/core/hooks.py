"""Where DSPy's calls are seen: wrappers on the classes that DSPy itself wraps for its callbacks.

DSPy's callback machinery costs about 40 µs a call whatever the callback does, so a call is reported directly
while no other callback is in force. When one is, ours joins it, so that all of them see the same call ids.
Classes are wrapped, once, never instances; a wrapper does nothing until somebody listens.
"""

import functools
import inspect
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import Token
from importlib import import_module
from typing import Any, cast
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

import dspy
from dspy.utils import callback_context

from streamll.core import capture, context, seams
from streamll.core.capture import CALLBACK
from streamll.core.context import Frame, Instrument, Scope
from streamll.core.router import CONFIGURATION, route

logger = logging.getLogger("streamll")

# --- instruments: the configuration of a class --------------------------------------------------------------

_decorated: WeakKeyDictionary[type, Instrument] = WeakKeyDictionary()
_by_name: WeakValueDictionary[str, Instrument] = WeakValueDictionary()
_of_class: WeakKeyDictionary[type, tuple[Instrument, ...]] = WeakKeyDictionary()
_MARK = "_streamll_instrument"


def mark(cls: type, instrument: Instrument) -> None:
    """Instrument `cls`. The class carries only a name, so it pickles and is saved as before; the name is its
    own even where a function makes many classes, so that no class reports to another's sinks."""
    path = f"{cls.__module__}.{cls.__qualname__}"
    name = next(name for n in itertools.count() if (name := f"{path}#{n}") not in _by_name)
    _decorated[cls] = _by_name[name] = instrument
    setattr(cls, _MARK, name)
    _of_class.clear()


def instruments_of(cls: type) -> tuple[Instrument, ...]:
    """Return the instruments of a class and its bases, the base's first."""
    known = _of_class.get(cls)
    if known is None:
        marks = [vars(c)[_MARK] for c in reversed(cls.__mro__) if _MARK in vars(c)]
        known = _of_class[cls] = tuple(found for name in marks if (found := _by_name.get(name)))
    return known


def _with_frames(scope: Scope, module: object) -> Scope:
    asked = instruments_of(type(module))
    if not asked:
        return scope
    if type(module) not in _checked:
        _checked.add(type(module))
        _warn_of_unknown_fields(module, asked)
    frames = [frame for frame in scope.frames if frame.module is not module]
    return scope.but(frames=(*frames, *(Frame(instrument, module) for instrument in asked)))


_checked: WeakSet[type] = WeakSet()


def _warn_of_unknown_fields(module: Any, asked: Sequence[Instrument]) -> None:
    """Say once which fields to stream no predictor has: a misspelt one would just stay silent."""
    predictors = cast("list[Any]", module.predictors() if hasattr(module, "predictors") else [])
    known = {name for predictor in predictors for name in predictor.signature.output_fields}
    missing = {name for instrument in asked for name in instrument.fields or ()} - known
    if known and missing:
        told = "%s: no predictor has an output field %s to stream; there are %s"
        logger.warning(told, type(module).__name__, sorted(missing), sorted(known))


# --- one call -----------------------------------------------------------------------------------------------


def _callbacks() -> list[object]:
    return cast("list[object]", dspy.settings.callbacks)


class _Entered:
    """A call in progress: what to undo, and whether we report it or DSPy does."""

    __slots__ = ("_active", "_call_id", "_execution", "_kind", "_scope")

    def __init__(self, kind: str, instance: object, scope: Scope, inputs: dict[str, Any] | None) -> None:
        self._kind = kind
        self._scope: Token[Any] | None = None
        self._call_id: str | None = None
        if inputs is None:
            present = any(callback is CALLBACK for callback in _callbacks())
            self._scope = context.bind(
                scope, callbacks=_callbacks() if present else [*_callbacks(), CALLBACK]
            )
            return
        if scope is not context.current():
            self._scope = context.bind(scope)
        self._call_id = context.new_id()
        capture.started(kind, self._call_id, instance, inputs)
        self._execution = context.current().execution
        self._active = cast("Any", callback_context.ACTIVE_CALL_ID).set(self._call_id)

    def leave(self, outputs: object, raised: BaseException | None) -> None:
        if self._call_id is not None:
            context.restore(callback_context.ACTIVE_CALL_ID, self._active)
            capture.ended(self._kind, self._call_id, outputs, raised, self._execution)
        if self._scope is not None:
            context.unbind(self._scope)


def _enter(
    kind: str, instance: Any, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> _Entered | None:
    """Begin to report a call; None when nobody listens."""
    scope = context.current()
    if scope is context.EMPTY and CONFIGURATION.is_silent and not _decorated and kind != "compile":
        return None
    if scope.execution is not None and scope.execution.stopped:
        raise context.Abandoned
    if kind == "module":
        scope = _with_frames(scope, instance)
    if not route(scope).outlets and kind != "compile":
        return None
    if kind == "lm" and _is_inside(scope, instance):
        return None
    if _callbacks() or getattr(instance, "callbacks", None):
        return _Entered(kind, instance, scope, None)
    return _Entered(kind, instance, scope, _INPUTS.get(kind, _named_arguments)(original, args, kwargs))


def _is_inside(scope: Scope, lm: object) -> bool:
    """True for the `super().__call__` of an LM class with a `__call__` of its own, which reports the call."""
    calls = scope.execution.calls if scope.execution else {}
    active = calls.get(callback_context.ACTIVE_CALL_ID.get() or "")
    return active is not None and active.kind == "lm" and active.instance is lm


type Inputs = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], dict[str, Any]]


def _wrapped_arguments(
    _: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    return {"args": args, "kwargs": kwargs}


def _prompt_and_options(
    _: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    options = {name: value for name, value in kwargs.items() if name not in ("prompt", "messages")}
    prompt = args[0] if args else kwargs.get("prompt")
    return {"prompt": prompt, "messages": kwargs.get("messages"), "kwargs": options}


def _named_arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    return dict(zip(_parameters(function), args, strict=False)) | kwargs


@functools.cache
def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(inspect.unwrap(function)).parameters)[1:]


_INPUTS: Mapping[str, Inputs] = {
    "module": _wrapped_arguments,
    "tool": _wrapped_arguments,
    "lm": _prompt_and_options,
}
"""What a call was given, as DSPy's callbacks are told it, by kind; other kinds by name."""


def hooked(original: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """Return `original`, a method that DSPy reports as `kind`, reporting to us."""

    @functools.wraps(original)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        entered = _enter(kind, self, original, args, kwargs)
        if entered is None:
            return original(self, *args, **kwargs)
        try:
            outputs = original(self, *args, **kwargs)
        except BaseException as error:
            entered.leave(None, error)
            raise
        entered.leave(outputs, None)
        return outputs

    @functools.wraps(original)
    async def acall(self: Any, *args: Any, **kwargs: Any) -> Any:
        entered = _enter(kind, self, original, args, kwargs)
        if entered is None:
            return await original(self, *args, **kwargs)
        try:
            outputs = await original(self, *args, **kwargs)
        except BaseException as error:
            entered.leave(None, error)
            raise
        entered.leave(outputs, None)
        return outputs

    return acall if inspect.iscoroutinefunction(inspect.unwrap(original)) else __call__


# --- which methods ------------------------------------------------------------------------------------------

_LM = {"__call__": "lm", "acall": "lm"}
_INTERPRETER = {
    "start": "interpreter_startup",
    "execute": "interpreter_execute",
    "invoke_tool": "interpreter_tool_call",
    "shutdown": "interpreter_shutdown",
}

_METHODS: Mapping[str, Mapping[str, str]] = {
    "dspy:Module": {"__call__": "module", "acall": "module"},
    "dspy:Retrieve": {"__call__": "module"},
    "dspy:BaseLM": _LM,
    "dspy.clients.typesafe:TypeSafe": {"__call__": "lm", "acall": "lm"},
    "dspy:Tool": {"__call__": "tool", "acall": "tool"},
    "dspy:Evaluate": {"__call__": "evaluate"},
    "dspy:PythonInterpreter": _INTERPRETER,
    "dspy.primitives.local_interpreter:LocalInterpreter": _INTERPRETER,
}
"""Classes whose methods DSPy reports, and the kind it reports each as."""

_FAMILIES: Mapping[str, Mapping[str, str]] = {
    "dspy:Adapter": {"format": "adapter_format", "parse": "adapter_parse"},
    "dspy.teleprompt.teleprompt:Teleprompter": {"compile": "compile"},
    "dspy:BaseLM": _LM,  # other instrumentation puts a `__call__` on `dspy.LM`, and users on theirs
}
"""Classes whose every subclass, also one not written yet, has its own methods that DSPy reports."""


def _class(path: str) -> type | None:
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name, None)
    except ImportError:
        return None


def _hook(cls: type, methods: Mapping[str, str]) -> None:
    for name, kind in methods.items():
        if name in vars(cls):
            setattr(cls, name, hooked(vars(cls)[name], kind))


def _descendants(cls: type) -> Iterator[type]:
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)


def _hook_family(base: type, methods: Mapping[str, str]) -> None:
    for cls in dict.fromkeys(_descendants(base)):
        _hook(cls, methods)
    own = vars(base).get("__init_subclass__")  # DSPy 3.3's Teleprompter has none

    def __init_subclass__(cls: type, **kwargs: Any) -> None:
        (own.__get__(None, cls) if own else super(base, cls).__init_subclass__)(**kwargs)
        _hook(cls, methods)

    cast("Any", base).__init_subclass__ = classmethod(__init_subclass__)


_installing = threading.Lock()


def install() -> None:
    """Hook DSPy, once; nothing happens until somebody listens."""
    with _installing:
        _install()


@functools.cache
def _install() -> None:
    seams.install()
    for path, methods in _METHODS.items():
        if cls := _class(path):
            _hook(cls, methods)
    for path, methods in _FAMILIES.items():
        if cls := _class(path):
            _hook_family(cls, methods)
