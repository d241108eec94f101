"""Operations that do one thing: each is a function from named, typed fields to named, typed fields."""

import inspect
import re
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

from mkspy import names
from mkspy.errors import BadSpec, BadType, Place, clip
from mkspy.spec.fields import as_field, as_fields, contract, keep, named, no_defaults, place, worded
from mkspy.spec.walk import Leaf
from mkspy.types import REQUIRED, TEXT, Field, Json, List, Record, from_python, misfit
from mkspy.types import Literal as LiteralType
from mkspy.types.model import repeated

type Strategy = Literal["auto", "predict", "chain_of_thought", "react", "program_of_thought"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy.__value__)
MAX_ITERATIONS = 100

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


@dataclass(frozen=True)
class Step(Leaf):
    """One call of a language model: instructions, fields, and a strategy that says how to think.

    Attributes:
        strategy: auto thinks before it answers, and uses tools when there are any.
        tools: Names of the task's tools that the model may call.
        max_iters: How often it may call one, 1 to 100.
    """

    name: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    instructions: str = ""
    strategy: Strategy = "auto"
    tools: tuple[str, ...] = ()
    max_iters: int = 5

    def __post_init__(self) -> None:
        where = place(self)
        _model_call(self, where)
        keep(self, tools=tuple(self.tools))
        if self.strategy not in STRATEGIES:
            raise BadSpec(
                where, f" has the strategy {clip(self.strategy)}; there are {', '.join(STRATEGIES)}"
            )
        if isinstance(self.max_iters, bool) or not 1 <= self.max_iters <= MAX_ITERATIONS:
            raise BadSpec(where, f" has max_iters {clip(self.max_iters)}; it is from 1 to {MAX_ITERATIONS}")
        _check_tools(self, where)
        if self.strategy == "program_of_thought":
            _check_code_names(self, where)


def _model_call(operation: "Step | Free", where: Place) -> None:
    named(operation.name, where)
    worded(operation.instructions, where)
    keep(operation, instructions=operation.instructions.strip())
    keep(operation, inputs=as_fields(operation.inputs, where), outputs=as_fields(operation.outputs, where))
    contract(operation.inputs, operation.outputs, where)
    no_defaults((*operation.inputs, *operation.outputs), where)


def _check_tools(step: Step, where: Place) -> None:
    if twice := repeated(step.tools):
        raise BadSpec(where, f" names the tool {twice!r} twice")
    if step.tools and step.strategy not in ("auto", "react"):
        raise BadSpec(where, f" has tools, which {step.strategy} does not call; use react or auto")
    if step.strategy == "react" and not step.tools:
        raise BadSpec(where, " has the strategy react and no tools; name some, or use auto")


def _check_code_names(step: Step, where: Place) -> None:
    for each in (*step.inputs, *step.outputs):
        if each.name in names.RESERVED_CODE_FIELDS:
            raise BadSpec(
                where, f": program_of_thought has a field {each.name!r} of its own; choose another name"
            )


@dataclass(frozen=True)
class Classify(Leaf):
    """Sort what comes in under one of `labels`, or under several of them."""

    name: str
    inputs: tuple[Field, ...]
    labels: tuple[str, ...]
    into: str = "label"
    multiple: bool = False
    instructions: str = ""
    outputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        where = place(self)
        named(self.name, where)
        worded(self.instructions, where)
        keep(self, instructions=self.instructions.strip())
        keep(self, inputs=as_fields(self.inputs, where), labels=tuple(self.labels))
        if len(self.labels) < 2 or any(misfit(label, TEXT) or not label.strip() for label in self.labels):
            raise BadSpec(where, f" has the labels {clip(self.labels)}; it needs two or more, as text")
        if twice := repeated(self.labels):
            raise BadSpec(where, f" has the label {clip(twice)} twice")
        label = LiteralType(self.labels)
        keep(self, outputs=(as_field(self.into, List(label) if self.multiple else label, where),))
        contract(self.inputs, self.outputs, where)
        no_defaults(self.inputs, where)


@dataclass(frozen=True)
class Extract(Leaf):
    """Read a record out of what comes in, or a list of them."""

    name: str
    inputs: tuple[Field, ...]
    record: Record
    into: str = "record"
    many: bool = False
    instructions: str = ""
    outputs: tuple[Field, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        where = place(self)
        named(self.name, where)
        worded(self.instructions, where)
        keep(self, instructions=self.instructions.strip())
        keep(self, inputs=as_fields(self.inputs, where))
        given = {self.into: List(self.record) if self.many else self.record}
        keep(self, outputs=as_fields(given, where))
        contract(self.inputs, self.outputs, where)
        no_defaults(self.inputs, where)


@dataclass(frozen=True)
class Tool(Leaf):
    """A function of the host that the program may call: `from <module> import <name>`.

    In a process it is called at its place, with every input. A step that names it lets the model call it.
    """

    name: str
    inputs: tuple[Field, ...]
    output: Field
    description: str = ""
    module: str = "tools"

    def __post_init__(self) -> None:
        where = place(self)
        named(self.name, where, names.RESERVED_TOOLS)
        worded(self.description, where)
        keep(self, inputs=as_fields(self.inputs, where))
        contract(self.inputs, self.outputs, where, least=0)
        no_defaults(self.outputs, where)
        if reason := _bad_module(self.module):
            raise BadSpec(where, f" is in the module {clip(self.module)}: {reason}")

    @property
    def outputs(self) -> tuple[Field]:
        """What it gives: one field."""
        return (self.output,)

    @classmethod
    def of(cls, function: Callable[..., object], *, into: str = "result") -> Self:
        """Return the tool that a Python function is, from its annotations and its docstring.

        Args:
            function: At the top of a module that the program can import, every parameter annotated.
            into: What to call the result.

        Raises:
            BadSpec: It lacks an annotation, or takes `*args`; the message says which.
        """
        where = Place(ROOT_OF_TOOLS, f"Tool {function.__name__!r}")
        hints = typing.get_type_hints(function)
        if "return" not in hints:
            raise BadSpec(where, " does not say what it returns; annotate it")
        try:
            inputs = [
                _parameter(each, hints, where) for each in inspect.signature(function).parameters.values()
            ]
            output = Field(into, from_python(hints["return"]))
        except BadType as error:
            raise BadSpec(where, f": {error}") from None
        description = inspect.getdoc(function) or ""
        return cls(
            function.__name__, tuple(inputs), output, description.partition("\n\n")[0], function.__module__
        )


ROOT_OF_TOOLS = "tools"


def _parameter(parameter: inspect.Parameter, hints: Mapping[str, Any], where: Place) -> Field:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise BadSpec(where, f" takes {parameter}; a tool is called with keywords")
    if parameter.name not in hints:
        raise BadSpec(where, f" does not say of what type {parameter.name!r} is; annotate it")
    default: Json = parameter.default
    missing = parameter.default is parameter.empty
    return Field(parameter.name, from_python(hints[parameter.name]), default=REQUIRED if missing else default)


def _bad_module(module: str) -> str:
    if not _MODULE.fullmatch(module):
        return "a module is named like `tools` or `shop.tools`"
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names or root in ("__main__", "dspy", "mkspy"):
        return "a tool is a function of your own; put it into a module beside the program"
    return ""


@dataclass(frozen=True)
class Free(Leaf):
    """Only what comes in and what goes out; how is left to whoever writes or evolves the program."""

    name: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    instructions: str = ""

    def __post_init__(self) -> None:
        _model_call(self, place(self))
