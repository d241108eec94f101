"""A DSPy module as something to be served: what it takes and gives, on which model it runs."""

import inspect
import keyword
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, cast, get_args, get_origin, get_type_hints

import dspy
from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from dspy_cli.errors import BadProgram
from dspy_cli.project import schema, values
from dspy_cli.project.schema import REQUIRED, Slot

if TYPE_CHECKING:
    from dspy_cli.gateways.base import Gateway

RESERVED = frozenset(
    {
        *("programs", "runs", "ui", "static", "mcp", "gateways", "favicon.ico", "robots.txt"),
        *("docs", "redoc", "openapi.json", "healthz", "readyz", "metrics", "health"),
        *("login", "logout", "session", "sessions", "keys", "auth", "index.html"),
    }
)
"""The first segments of the server's own paths."""

# What a strategy's prediction has besides the outputs of its signature.
_MORE: Mapping[str, Mapping[str, object]] = {
    "ReAct": {"trajectory": dict[str, Any]},
    "CodeAct": {"trajectory": dict[str, Any]},
    "ReActV2": {"history": dspy.History, "termination_reason": str},
    "RLM": {"trajectory": list[Any], "final_reasoning": str},
}
_DEFAULT_INSTRUCTIONS = "Given the fields `"


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A module under the name it has in URLs; its one instance is shared by all runs."""

    name: str
    module: dspy.Module
    description: str
    """Plain text; empty when there is no docstring."""
    kind: str
    """The DSPy strategy it is built on: "Predict", "ReAct", ..., or "Module" if there are several."""
    streams: bool
    """Whether watching it is worth while: everything but a plain Predict."""
    request: type[BaseModel]
    response: type[BaseModel]
    is_async: bool
    """It has an `aforward` of its own."""
    lm: dspy.BaseLM | None = None
    """None leaves it to `dspy.settings`."""
    model: str = ""
    gateway: "Gateway | None" = None
    source: Path | None = None

    def inputs(self, body: BaseModel) -> dict[str, object]:
        """Return the module's keyword arguments. What was left out and only the program knows is left out."""
        return {
            field.alias or name: cast("object", getattr(body, name))
            for name, field in type(body).model_fields.items()
            if name in body.model_fields_set or field.default_factory is None
        }

    def outputs(self, prediction: object) -> dict[str, JsonValue]:
        """Return what the program returned as JSON; without fields of its own it is under "output".

        Never raises, and never shows the markup DSPy's types have in a prompt.
        """
        return values.fields(prediction)

    def input_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a request's body."""
        return self._schemas[0]

    def output_schema(self) -> dict[str, Any]:
        """Return the JSON Schema of a response's body."""
        return self._schemas[1]

    @cached_property
    def _schemas(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.request.model_json_schema(), self.response.model_json_schema(mode="serialization")


def program(
    module: dspy.Module | type[dspy.Module],
    *,
    name: str | None = None,
    lm: dspy.BaseLM | None = None,
    model: str = "",
    source: Path | None = None,
) -> Program:
    """Return what serves `module`; of a class, an instance made without arguments.

    Raises:
        BadProgram: It has no `forward`, an input that JSON cannot carry, or a name no URL can have.
    """
    instance = module() if isinstance(module, type) else module
    kind = _kind(instance)
    title = _name(name or type(instance).__name__)
    description = _description(instance)
    return Program(
        name=title,
        module=instance,
        description=description,
        kind=kind,
        streams=kind != "Predict",
        request=schema.request(f"{title}Inputs", _servable(_inputs(instance)), description=description),
        response=_response(f"{title}Outputs", instance),
        is_async=_is_async(instance),
        lm=lm,
        model=model or (str(getattr(lm, "model", "")) if lm else ""),
        gateway=_gateway(instance),
        source=source,
    )


def _name(name: str) -> str:
    if name in RESERVED:
        raise BadProgram(f"the server needs /{name} for itself; rename the program")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise BadProgram(f"{name!r} is no name; expected a Python identifier")
    return name


def _gateway(module: dspy.Module) -> "Gateway | None":
    declared: object = getattr(type(module), "gateway", None)  # of an instance it may be anything
    if declared is None:
        return None
    from dspy_cli.gateways.base import Gateway

    gateway = cast("object", declared() if isinstance(declared, type) else declared)
    if not isinstance(gateway, Gateway):
        raise BadProgram(f"`gateway` is {gateway!r:.80}; expected a subclass of APIGateway or CronGateway")
    return gateway


def _description(module: dspy.Module) -> str:
    """Return the docstring, else what the only strategy in it is instructed to do."""
    if (doc := vars(type(module)).get("__doc__")) and not _of_dspy(type(module)):
        return inspect.cleandoc(cast("str", doc))
    strategies = list(_strategies(module))
    signature = _signature(strategies[0]) if len(strategies) == 1 else None
    text = signature.instructions if signature else ""
    return "" if text.startswith(_DEFAULT_INSTRUCTIONS) else inspect.cleandoc(text)


# --- What a module is built of ------------------------------------------------------------------------------


def _of_dspy(thing: object) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] == "dspy"


def _strategy(module: dspy.Module) -> str:
    """Return the DSPy strategy `module` is or extends; "" if it only derives from `dspy.Module`."""
    base = next(kind for kind in type(module).__mro__ if _of_dspy(kind))
    return "" if base is dspy.Module else base.__name__


def _strategies(module: dspy.Module, seen: frozenset[int] = frozenset()) -> Generator[dspy.Module]:
    """Yield what `module` calls, in the order in which it was made."""
    if _strategy(module):
        yield module
        return
    for child in _children(module):
        if id(child) not in seen:
            yield from _strategies(child, seen | {id(module)})


def _children(module: dspy.Module) -> Generator[dspy.Module]:
    for value in cast("dict[str, object]", vars(module)).values():
        yield from (each for each in _items(value) if isinstance(each, dspy.Module))


def _items(value: object) -> Iterable[object]:
    match value:
        case dict():
            return cast("dict[object, object]", value).values()
        case list() | tuple():
            return cast("list[object]", value)
        case _:
            return (value,)


def _kind(module: dspy.Module) -> str:
    kinds = [_strategy(each) for each in _strategies(module)]
    return kinds[0] if len(kinds) == 1 else "Module"


def _signature(strategy: dspy.Module) -> type[dspy.Signature] | None:
    found: object = getattr(strategy, "signature", None)
    if isinstance(found, type) and issubclass(found, dspy.Signature):
        return found
    children = [each for each in _children(strategy) if _strategy(each)]
    return _signature(children[0]) if len(children) == 1 else None  # of ChainOfThought, BestOfN


# --- What it takes ------------------------------------------------------------------------------------------


def _is_async(module: dspy.Module) -> bool:
    method = getattr(type(module), "aforward", None)
    return method is not None and not _of_dspy(inspect.unwrap(cast("Callable[..., object]", method)))


def _method(module: dspy.Module) -> Callable[..., object]:
    """Return the function a run calls: the class's, for DSPy warns of who reads an instance's `forward`."""
    name = "aforward" if _is_async(module) else "forward"
    method = cast("Callable[..., object] | None", getattr(type(module), name, None))
    if method is None:
        raise BadProgram(f"{type(module).__name__} has no `forward`; define what it does with its inputs")
    return inspect.unwrap(method)


def _resolved(annotation: object, scope: dict[str, object]) -> Any:
    """Return the type an annotation stands for; Any for a name that is only there for type checkers."""

    def holder() -> None: ...

    holder.__annotations__ = {"it": annotation}
    try:
        return get_type_hints(holder, scope, include_extras=True)["it"]
    except Exception:  # noqa: BLE001 - evaluates the user's text
        return Any


def _inputs(module: dspy.Module) -> Sequence[Slot]:
    method = _method(module)
    if _of_dspy(method):
        return _inputs_of_strategy(module)
    strategies = list(_strategies(module))
    known = {each.name: each for part in reversed(strategies) for each in _slots(part)}
    _, *parameters = inspect.signature(method).parameters.values()
    scope = cast("dict[str, object]", getattr(method, "__globals__", {}))
    named = [_parameter(each, known, scope) for each in parameters if each.kind not in _VARIADIC]
    if all(each.kind is not inspect.Parameter.VAR_KEYWORD for each in parameters):
        return named
    names = {each.name for each in named}
    rest = [each for part in strategies[:1] for each in _slots(part) if each.name not in names]
    return [*named, *(each._replace(optional=bool(named)) for each in rest)]


def _inputs_of_strategy(module: dspy.Module) -> Sequence[Slot]:
    _, *parameters = inspect.signature(_method(module)).parameters.values()
    if any(each.kind is each.POSITIONAL_OR_KEYWORD for each in parameters):
        kind = type(module).__name__  # MultiChainComparison: it takes the completions of others
        raise BadProgram(f"{kind} takes more than its signature; wrap it in a module with a `forward`")
    if _signature(module):
        return _slots(module)
    return [each for child in _children(module) for each in _inputs(child)]  # BestOfN has one child


def _slots(strategy: dspy.Module) -> Sequence[Slot]:
    signature = _signature(strategy)
    return [schema.slot(name, field) for name, field in signature.input_fields.items()] if signature else ()


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _parameter(parameter: inspect.Parameter, known: Mapping[str, Slot], scope: dict[str, object]) -> Slot:
    """Return an input, with what a signature says about a field of that name where the code says nothing."""
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise BadProgram(f"the input {parameter.name!r} is positional-only; remove the `/`")
    slot = known.get(parameter.name, Slot(parameter.name))._replace(default=REQUIRED, optional=False)
    if parameter.default is not parameter.empty:
        slot = slot._replace(default=parameter.default)
    if parameter.annotation is not parameter.empty:
        slot = slot._replace(annotation=_resolved(parameter.annotation, scope), metadata=())
    return slot


def _servable(slots: Sequence[Slot]) -> Sequence[Slot]:
    """Return the inputs a request can carry; others must have a default, which is then what they are.

    Raises:
        BadProgram: One has none.
    """
    fitting = [each for each in slots if schema.fits_json(each.annotation)]
    for each in slots:
        if each not in fitting and each.default is REQUIRED and not each.optional:
            given = inspect.formatannotation(each.annotation)
            raise BadProgram(
                f"the input {each.name!r} is a {given}, which JSON cannot carry; "
                "give it a default, or another type"
            )
    return fitting


# --- What it gives ------------------------------------------------------------------------------------------


def _response(title: str, module: dspy.Module) -> type[BaseModel]:
    method = _method(module)
    if _of_dspy(method):
        return schema.response(title, _outputs(module))
    scope = cast("dict[str, object]", getattr(method, "__globals__", {}))
    annotation = _resolved(inspect.get_annotations(method).get("return", Any), scope)
    if schema.has_fields(annotation):
        return schema.response_as(title, annotation)
    if _is_open(annotation):
        return schema.response(title, [each._replace(optional=True) for each in _outputs(module)])
    return schema.response(title, [Slot(values.OUTPUT, annotation)])


def _is_open(annotation: Any) -> bool:
    """Return whether values of this type may have any fields: a Prediction, a dict, a union with one."""
    kind = get_origin(annotation) or annotation
    if kind in (Union, UnionType):
        return any(_is_open(each) or schema.has_fields(each) for each in get_args(annotation))
    return kind is Any or (isinstance(kind, type) and issubclass(kind, (dspy.Example, Mapping)))


def _outputs(module: dspy.Module) -> Sequence[Slot]:
    """Return the outputs of the strategy `module` ends with."""
    if not _strategy(module):
        return [each for part in list(_strategies(module))[-1:] for each in _outputs(part)]
    more = [Slot(name, annotation) for name, annotation in _MORE.get(_strategy(module), {}).items()]
    fields = getattr(getattr(module, "signature", None), "output_fields", dict[str, FieldInfo]())
    own = [schema.slot(name, field) for name, field in fields.items()]
    last = [each for child in list(_children(module))[-1:] for each in _outputs(child)]
    extends = {each.name for each in own} <= {each.name for each in last}  # ReAct's, by its reasoning
    return [*more, *(last if extends else own)]
