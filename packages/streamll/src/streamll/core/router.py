"""Which event goes to which sink: what `configure` and the instruments in force add up to."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, cast

from streamll.core.context import Frame, Layer, Outlet, Scope, distinct
from streamll.core.outlets import Sink, outlet_for

# --- configuration: layers, newest on top -------------------------------------------------------------------


class Configuration:
    """The process-wide layers, and what they add up to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._layers: tuple[Layer, ...] = ()
        self.effective = Layer()
        self.ambient: tuple[Outlet, ...] = ()
        self.is_silent = True  # no shared sink wants anything

    def push(self, layer: Layer) -> None:
        with self._lock:
            self._set((*self._layers, layer))

    def remove(self, layer: Layer) -> None:
        with self._lock:
            self._set(tuple(other for other in self._layers if other is not layer))

    def add_ambient(self, outlets: tuple[Outlet, ...]) -> None:
        """Add sinks that whoever runs the process wants, besides those the program configures."""
        with self._lock:
            self.ambient += outlets
            self._set(self._layers)

    def _set(self, layers: tuple[Layer, ...]) -> None:
        self._layers = layers
        self.effective = folded(Layer(), layers)
        outlets = self.effective.outlets or self.ambient
        self.is_silent = not (outlets and _passes_any(self.effective))


def folded(base: Layer, layers: Sequence[Layer]) -> Layer:
    for layer in layers:
        base = layer.over(base)
    return base


CONFIGURATION = Configuration()


# --- routes: who receives the events of a scope -------------------------------------------------------------


_default: list[Callable[[], Outlet]] = []


def set_default_sink(make: Callable[[], Sink]) -> None:
    """Say what an instrumented program streams to when nothing was configured."""
    _default[:] = [cache(lambda: outlet_for(make()))]


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """What the configuration and the instruments in force make of an event."""

    base: Layer
    outlets: tuple[Outlet, ...]
    include_inputs: bool
    include_outputs: bool
    status: tuple[Any, ...]
    layer: Layer
    memo: dict[str, bool] = field(default_factory=dict[str, bool])
    tokens: dict[Any, Mapping[str, "Route"]] = field(default_factory=dict[Any, Mapping[str, "Route"]])

    def wants(self, event_type: str) -> bool:
        """False when nobody would receive an event of this type: then it is not even taken down."""
        known = self.memo.get(event_type)
        if known is None:
            known = self.memo[event_type] = bool(self.outlets) and _passes(self.layer, event_type)
        return known

    def to(self, outlets: tuple[Outlet, ...]) -> "Route":
        return Route(self.base, outlets, self.include_inputs, self.include_outputs, self.status, self.layer)


def _passes(layer: Layer, event_type: str) -> bool:
    names = layer.event_filter
    return names is None or callable(names) or any(fnmatchcase(event_type, name) for name in names)


def _passes_any(layer: Layer) -> bool:
    return layer.event_filter is None or callable(layer.event_filter) or bool(layer.event_filter)


def route(scope: Scope) -> Route:
    """Return the route of `scope` under the configuration of this moment."""
    known = cast("Route | None", scope.routes.get("route"))
    if known is None or known.base is not CONFIGURATION.effective:
        known = scope.routes["route"] = _route(scope)
    return known


def _route(scope: Scope) -> Route:
    base = CONFIGURATION.effective
    layer = folded(base, scope.layers)
    instruments = [frame.instrument for frame in scope.frames]
    return Route(
        base=base,
        outlets=distinct([*_framed(scope.frames), *_shared(scope, layer)]) if _passes_any(layer) else (),
        include_inputs=layer.include_inputs is not False and all(i.include_inputs for i in instruments),
        include_outputs=layer.include_outputs is not False and all(i.include_outputs for i in instruments),
        status=tuple(s for s in (layer.status, *(i.status for i in instruments)) if s is not None),
        layer=layer,
    )


def _framed(frames: Sequence[Frame]) -> list[Outlet]:
    return [outlet for frame in frames for outlet in frame.instrument.outlets]


def _shared(scope: Scope, layer: Layer) -> tuple[Outlet, ...]:
    """The configured and ambient sinks; an instrumented program nobody gave any streams to the terminal."""
    if layer.outlets is not None:
        return (*layer.outlets, *CONFIGURATION.ambient)
    if not scope.frames or _framed(scope.frames):
        return CONFIGURATION.ambient
    return (*(make() for make in _default), *CONFIGURATION.ambient)


def token_route(scope: Scope, name: str | None) -> Route | None:
    """Return who receives the tokens of the output field `name`; None when nobody does.

    Sinks of an instrument get the fields it names. Shared sinks get the fields that any instrument in force
    names, or all fields where no decorator says anything. `name` None is the text of a direct LM call.
    """
    whole = route(scope)
    asked = [(frame, frame.fields()) for frame in scope.frames]
    hit = [frame for frame, names in asked if names is None or (name in names if name else bool(names))]
    decorated = [frame for frame in scope.frames if frame.module is not None]
    shared = _shared(scope, whole.layer) if not decorated or set(decorated) & set(hit) else ()
    outlets = distinct([*_framed(hit), *shared])
    return whole.to(outlets) if outlets and whole.include_outputs and _passes(whole.layer, "token") else None
