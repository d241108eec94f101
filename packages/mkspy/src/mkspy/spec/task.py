"""A task: what comes in, what goes out, how, and what good answers look like."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from mkspy.errors import BadSpec, BadType, Place, clip
from mkspy.spec.composition import Operation
from mkspy.spec.fields import (
    Given,
    as_fields,
    contract,
    field_of,
    listed,
    named,
    no_defaults,
    place,
    wanted,
    worded,
)
from mkspy.spec.operations import Free, Step, Tool
from mkspy.spec.walk import bindings, walk
from mkspy.types import (
    CODE,
    DATE,
    DATETIME,
    NULL,
    NUMBER,
    TEXT,
    Field,
    Json,
    List,
    Record,
    Type,
    can_be_missing,
    is_subtype,
    misfit,
    optional,
    records_of,
    to_text,
)

type Measure = Literal["exact", "contains", "f1", "close", "items"]
MEASURES: tuple[Measure, ...] = get_args(Measure.__value__)
_MEASURED: dict[str, Type] = {
    "contains": optional(TEXT),
    "f1": optional(TEXT),
    "close": optional(NUMBER),
}


@dataclass(frozen=True)
class Example:
    """What comes in and what should go out, as JSON has them. A value that may be null can be left out."""

    inputs: Mapping[str, Json] = field(hash=False)
    outputs: Mapping[str, Json] = field(hash=False)


@dataclass(frozen=True)
class Task:
    """Everything there is to say about a program before there is one.

    Attributes:
        process: How it is done; None leaves it open.
        tools: Functions of the host that steps may call.
        metric: (output, measure) for those that count; empty for all outputs, each by its type.
        constraints: Sentences that hold for every answer.
    """

    name: str
    description: str
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    process: Operation | None = None
    tools: tuple[Tool, ...] = ()
    examples: tuple[Example, ...] = ()
    metric: tuple[tuple[str, Measure], ...] = ()
    constraints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = Place("task", repr(self.name))
        named(self.name, where)
        worded(self.description, where)
        if not self.description.strip():
            raise BadSpec(where, " has no description; say in a sentence what it is for")
        _normalise(self)
        contract(self.inputs, self.outputs, where)
        no_defaults(self.outputs, where)
        _check_tools(self)
        if self.process is not None:
            _check_process(self, self.process)
        _check_records(self, where)
        for at, example in enumerate(self.examples):
            _check_example(self, example, f"examples[{at}]")
        _check_metric(self)
        for constraint in self.constraints:
            worded(constraint, Place("constraints"))

    @property
    def operation(self) -> Operation:
        """The process; the bare contract when there is none."""
        if self.process is not None:
            return self.process
        inputs = tuple(Field(each.name, each.type, each.description) for each in self.inputs)
        return Free(self.name, inputs, self.outputs, self.description)

    @property
    def records(self) -> dict[str, Record]:
        """Every record in it by its name, those that others need first."""
        return records_of(each.type for _, fields in _all_fields(self) for each in fields)

    @property
    def measures(self) -> tuple[tuple[str, Measure], ...]:
        """How each output that counts is measured."""
        return self.metric or tuple((each.name, default_measure(each.type)) for each in self.outputs)


def default_measure(type: Type) -> Measure:
    """Return how an output of this type is compared when the task does not say."""
    if is_subtype(type, NULL) or is_subtype(type, optional(DATE)) or is_subtype(type, optional(DATETIME)):
        return "exact"
    if type in (TEXT, optional(TEXT)):
        return "f1"
    if is_subtype(type, optional(NUMBER)):
        return "close"
    return "items" if isinstance(type, List) else "exact"


def _normalise(task: Task) -> None:
    values: dict[str, object] = {
        "description": task.description.strip(),
        "inputs": as_fields(task.inputs, Place("inputs")),
        "outputs": as_fields(task.outputs, Place("outputs")),
        "tools": tuple(task.tools),
        "examples": tuple(task.examples),
        "metric": tuple((name, measure) for name, measure in task.metric),
        "constraints": tuple(task.constraints),
    }
    for name, value in values.items():
        object.__setattr__(task, name, value)


def _check_process(task: Task, process: Operation) -> None:
    _check_inputs(task, process)
    for each in task.outputs:
        given = field_of(process.outputs, each.name)
        if given is None:
            place_of = Place("outputs")
            raise BadSpec(
                place_of, f" has {each.name}, but ", place(process), f" gives {listed(process.outputs)}"
            )
        wanted(each, Given(given, _giver(process, each.name)), Place("outputs"))
    _check_names(task, process)


def _check_inputs(task: Task, process: Operation) -> None:
    for each in process.inputs:
        given = field_of(task.inputs, each.name)
        if given is None:
            reader = _reader(process, each.name)
            raise BadSpec(
                reader,
                f" wants {each.name}: {to_text(each.type)}, but nothing before it gives that; ",
                Place("inputs"),
                f" has {listed(task.inputs)}",
            )
        for path, reader in walk(process):
            own = field_of(reader.inputs, each.name)
            if own is not None and not reader.children:
                wanted(own, Given(given, Place("inputs")), place(reader, path))
        wanted(each, Given(given, Place("inputs")), _reader(process, each.name))


def _reader(process: Operation, name: str) -> Place:
    """Return the innermost operation that takes `name`."""
    found = [(path, each) for path, each in walk(process) if field_of(each.inputs, name)]
    path, reader = next(((path, each) for path, each in found if not each.children), found[-1])
    return place(reader, path)


def _giver(process: Operation, name: str) -> Place:
    found = [(path, each) for path, each in walk(process) if field_of(each.outputs, name)]
    path, giver = next(((path, each) for path, each in found if not each.children), found[0])
    return place(giver, path)


def _check_names(task: Task, process: Operation) -> None:
    """Hold that a name means one thing in a task: programs call their variables by these names."""
    seen = {each.name: Place("inputs") for each in task.inputs}
    for name, at in bindings(process):
        if name in seen:
            raise BadSpec(at, f" gives {name}, and so does ", seen[name], "; a name is given once in a task")
        seen[name] = at


def _check_tools(task: Task) -> None:
    known: dict[str, tuple[Place, Tool]] = {}
    for at, tool in _all_tools(task):
        first, other = known.setdefault(tool.name, (at, tool))
        if other != tool:
            raise BadSpec(at, " is another tool than ", first, "; give them two names")
    if len({tool.name for tool in task.tools}) < len(task.tools):
        raise BadSpec(Place("tools"), " has one tool twice")
    fields = {each.name: at for at, several in _all_fields(task) for each in several if at.path != "tools"}
    for name, (at, _) in known.items():
        if name in fields:
            raise BadSpec(at, " has the name of a field of ", fields[name], "; rename one of them")
    offered = {tool.name for tool in task.tools}
    for path, step in walk(task.operation):
        for name in step.tools if isinstance(step, Step) else ():
            if name not in offered:
                has = ", ".join(sorted(offered)) or "none"
                raise BadSpec(place(step, path), f" names the tool {name!r}; ", Place("tools"), f" has {has}")


def _all_tools(task: Task) -> Iterator[tuple[Place, Tool]]:
    yield from ((place(tool, f"tools[{at}]"), tool) for at, tool in enumerate(task.tools))
    yield from ((place(each, path), each) for path, each in walk(task.operation) if isinstance(each, Tool))


def _all_fields(task: Task) -> Iterator[tuple[Place, tuple[Field, ...]]]:
    """Yield all fields in a task, those that only a model sees when it calls a tool under `tools`."""
    yield Place("inputs"), task.inputs
    yield Place("outputs"), task.outputs
    for path, each in walk(task.operation):
        yield place(each, path), (*each.inputs, *each.outputs)
    for tool in task.tools:
        yield Place("tools"), (*tool.inputs, tool.output)


def _check_records(task: Task, where: Place) -> None:
    try:
        records = task.records
    except BadType as error:
        raise BadSpec(where, f": {error}") from None
    inside = [(Place(f"records.{name}"), record.fields) for name, record in records.items()]
    for at, fields in (*_all_fields(task), *inside):
        for each in fields:
            if each.name in records:
                raise BadSpec(
                    at, f" has a field with the name of the record {each.name!r}; rename one of them"
                )


def _check_example(task: Task, example: Example, path: str) -> None:
    sides = (("inputs", task.inputs, example.inputs), ("outputs", task.outputs, example.outputs))
    for side, fields, values in sides:
        where = Place(f"{path}.{side}")
        for name in values:
            if field_of(fields, name) is None:
                raise BadSpec(where, f" has {clip(name)}; the {side} are {listed(fields)}")
        for each in fields:
            if each.name in values:
                if reason := misfit(values[each.name], each.type):
                    raise BadSpec(Place(f"{path}.{side}.{each.name}"), f": {reason}")
            elif each.required and not can_be_missing(each.type):
                raise BadSpec(where, f" lacks {each.name}: {to_text(each.type)}")


def _check_metric(task: Task) -> None:
    where = Place("metric")
    for name, measure in task.metric:
        output = field_of(task.outputs, name)
        if output is None:
            raise BadSpec(
                where, f" measures {clip(name)}, which is not among the outputs: {listed(task.outputs)}"
            )
        if measure not in MEASURES:
            raise BadSpec(where, f" measures {name} by {clip(measure)}; there are {', '.join(MEASURES)}")
        if measure == "items" and not isinstance(output.type, List):
            raise BadSpec(where, f" measures {name} by items, but it is {to_text(output.type)} and no list")
        wide = _MEASURED.get(measure)
        if (
            wide is not None
            and not is_subtype(output.type, wide)
            and output.type not in (CODE, optional(CODE))
        ):
            raise BadSpec(where, f" measures {name} by {measure}, which {to_text(output.type)} cannot be")
    if len({name for name, _ in task.metric}) < len(task.metric):
        raise BadSpec(where, " measures one output twice")
