"""A task as a tree of plain values: what TOML and JSON files hold."""

from collections.abc import Iterable

from mkspy.spec.composition import Branch, Chain, Operation, Parallel
from mkspy.spec.loops import Filter, Map, Reduce, Repeat
from mkspy.spec.operations import Classify, Extract, Free, Step, Tool
from mkspy.spec.task import Task
from mkspy.types import Field, Json, Record, Required, to_text

type Tree = dict[str, Json]


def document(task: Task) -> Tree:
    """Return the tree of `task`: everything that was said, nothing that goes without saying."""
    writer = _Writer(task.tools)
    return _said(
        name=task.name,
        description=task.description,
        constraints=list(task.constraints),
        inputs=_fields(task.inputs),
        outputs=_fields(task.outputs),
        records={name: _record(record) for name, record in task.records.items()},
        metric=dict(task.metric),
        tools=[{"name": tool.name, **_tool(tool)} for tool in task.tools],
        process=writer.operation(task.process) if task.process else None,
        examples=[{"inputs": dict(each.inputs), "outputs": dict(each.outputs)} for each in task.examples],
    )


def _said(**values: Json) -> Tree:
    """Leave out what is empty."""
    return {
        key: value for key, value in values.items() if value not in (None, "", [], {}) and value is not False
    }


def _fields(fields: Iterable[Field]) -> Tree:
    return {each.name: _field(each) for each in fields}


def _field(field: Field) -> Json:
    said: Tree = {"type": to_text(field.type)}
    if field.description:
        said["description"] = field.description
    if field.default is None:
        said["optional"] = True
    elif not isinstance(field.default, Required):
        said["default"] = field.default
    return said if len(said) > 1 else said["type"]


def _record(record: Record) -> Tree:
    return _said(description=record.description, fields=_fields(record.fields))


def _tool(tool: Tool) -> Tree:
    module = "" if tool.module == "tools" else tool.module
    inputs: Tree = {"inputs": _fields(tool.inputs)}
    return {**_said(description=tool.description, module=module), **inputs, "output": _fields([tool.output])}


class _Writer:
    def __init__(self, tools: Iterable[Tool]) -> None:
        self._known = {tool.name: tool for tool in tools}

    def operation(self, operation: Operation) -> Json:
        """Return the table of an operation; a chain is the list of its steps."""
        if isinstance(operation, Chain):
            return [self._table(step) for step in operation.steps]
        return self._table(operation)

    def _table(self, operation: Operation) -> Tree:
        match operation:
            case Chain():
                return {"chain": self.operation(operation)}
            case Parallel():
                return {"parallel": [self._table(each) for each in operation.branches]}
            case Branch():
                return self._branch(operation)
            case Map() | Filter() | Reduce() | Repeat():
                return {**_loop(operation), "body": self.operation(operation.body)}
            case Tool(name):
                return {"tool": name, **({} if self._known.get(name) == operation else _tool(operation))}
            case _:
                return _leaf(operation)

    def _branch(self, branch: Branch) -> Tree:
        cases: list[Json] = [{"when": value, "then": self.operation(case)} for value, case in branch.cases]
        otherwise = {"otherwise": self.operation(branch.otherwise)} if branch.otherwise else {}
        return {"branch": _fields([branch.on]), "cases": cases, **otherwise}


def _leaf(operation: Step | Classify | Extract | Free) -> Tree:
    inputs: Tree = {"inputs": _fields(operation.inputs)}
    instructions = _said(instructions=operation.instructions)
    match operation:
        case Step(name):
            outputs: Tree = {"outputs": _fields(operation.outputs)}
            return {"step": name, **inputs, **outputs, **instructions, **_strategy(operation)}
        case Classify(name):
            into = _said(
                into=operation.into if operation.into != "label" else "", multiple=operation.multiple
            )
            return {"classify": name, **inputs, "labels": list(operation.labels), **into, **instructions}
        case Extract(name):
            into = _said(into=operation.into if operation.into != "record" else "", many=operation.many)
            return {"extract": name, **inputs, "record": operation.record.name, **into, **instructions}
        case Free(name):
            return {"free": name, **inputs, "outputs": _fields(operation.outputs), **instructions}


def _strategy(step: Step) -> Tree:
    strategy = "" if step.strategy == "auto" else step.strategy
    rounds = None if step.max_iters == 5 else step.max_iters
    return _said(strategy=strategy, tools=list(step.tools), max_iters=rounds)


def _loop(loop: Map | Filter | Reduce | Repeat) -> Tree:
    match loop:
        case Map(name):
            return {"map": name, "each": dict([loop.each]), "into": dict(loop.into)}
        case Filter(name):
            return {"filter": name, "each": dict([loop.each]), "keep": loop.keep, "into": loop.into}
        case Reduce(name):
            each, carry = dict([loop.each]), dict([loop.carry])
            return {"reduce": name, "each": each, "carry": carry, "start": loop.start, "into": loop.into}
        case Repeat(name):
            until = _said(until=loop.until)
            return {"repeat": name, "times": loop.times, "carry": dict(loop.carry), **until}
