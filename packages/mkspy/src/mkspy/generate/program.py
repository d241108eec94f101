"""A task as one file: what it imports, its models, its signatures, its modules, and `program`."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import libcst as cst
import libcst.matchers as m

from mkspy import names as reserved
from mkspy.generate import classes, plan
from mkspy.generate.annotations import Annotations, scalar
from mkspy.generate.flow import Flow, Unit
from mkspy.generate.layout import assigned, line
from mkspy.generate.scope import Names
from mkspy.generate.syntax import call, dotted, imported, name, sequence
from mkspy.generate.text import docstring
from mkspy.spec import Operation, Parallel, Repeat, Step, Task, Tool, walk
from mkspy.types import Field, Type, records_of

_STRATEGIES = {
    "predict": "dspy.Predict",
    "chain_of_thought": "dspy.ChainOfThought",
    "react": "dspy.ReAct",
    "program_of_thought": "dspy.ProgramOfThought",
}
_WORDS = frozenset(("Any", "BaseModel", "Field", "Literal", "range", "super", "str", "list", "program"))
_CHECKED = "# pyright: basic"
"""Predictions of dspy have no types: in a strict project each value read from one would be reported."""

_LINTED = "# ruff: noqa: RUF001, RUF002, RUF100"
"""In a file with more than ASCII: its texts are quoted as they are, with the characters they have."""


class File:
    """Collects the classes of a program.

    Args:
        task: What the program is for; its process is written.
        asynchronous: Whether modules get an `aforward` too.
    """

    def __init__(self, task: Task, process: Operation, *, asynchronous: bool) -> None:
        self._task, self._process, self._asynchronous = task, process, asynchronous
        self._asked = list(plan.asked(process))
        self._final = plan.final(process, [field.name for field in task.outputs])
        fields = {field.name for operation in _all(process) for field in _fields(operation)}
        self._tools = {tool.name: tool for tool in (*task.tools, *plan.tools(process))}
        self._records = records_of(_types(task, process))
        taken = _WORDS | fields | reserved.RESERVED_STEPS | self._records.keys()
        self._names = Names(taken)
        self._functions = {tool: self._names.new(tool) for tool in self._tools}
        self._annotations = Annotations({record: record for record in self._records})
        self._attributes = Names({operation.name for operation in self._asked} | reserved.RESERVED_STEPS)
        self._signatures = {each.name: self._names.new(pascal(each.name)) for each in self._asked}
        self._models = [classes.model(one, one.name, self._annotations) for one in self._records.values()]
        self._modules: list[cst.ClassDef] = []

    def source(self) -> str:
        """Return the text of the file."""
        program = self._names.new(f"{pascal(self._task.name)}Program")
        self._module(program, self._process, self._task.inputs, self._task.outputs, self._task.description)
        classes = [*self._models, *map(self._signature, self._asked), *self._modules]
        body: list[cst.SimpleStatementLine | cst.BaseCompoundStatement] = [
            *docstring(self._task.description or self._task.name, indent=0),
            *self._imports(classes),
            *classes,
            assigned(name("program"), call(name(program)), block=0).with_changes(leading_lines=_blanks(2)),
        ]
        text = cst.Module(body).code
        header = [_CHECKED] if text.isascii() else [_CHECKED, _LINTED]
        return "\n".join([*header, text])

    def _signature(self, operation: plan.Asked) -> cst.ClassDef:
        alone = len(self._asked) == 1
        said = plan.instructions(operation, self._task, alone=alone, final=self._final)
        inputs, outputs = map(self._described, (operation.inputs, operation.outputs))
        return classes.signature(self._signatures[operation.name], said, inputs, outputs, self._annotations)

    def _described(self, fields: Sequence[Field]) -> Sequence[Field]:
        """Return `fields`; where a step says nothing of one, the task's word: a name means one thing."""
        told = {field.name: field.description for field in (*self._task.inputs, *self._task.outputs)}
        return [
            field if field.description else replace(field, description=told.get(field.name, ""))
            for field in fields
        ]

    # --- modules ------------------------------------------------------------------------------------------

    def _module(
        self,
        class_name: str,
        process: Operation,
        inputs: Sequence[Field],
        outputs: Sequence[Field],
        documentation: str = "",
    ) -> None:
        attributes: dict[str, cst.BaseExpression] = {}
        units: dict[int, Unit] = {}
        self._plan(process, attributes, units)
        functions = {"forward": False, "aforward": True} if self._asynchronous else {"forward": False}
        methods = [
            classes.method(
                each, inputs, self._flow(units, awaits).body(process, inputs, outputs), self._annotations
            )
            for each, awaits in functions.items()
        ]
        self._modules.append(
            classes.module(
                class_name, [classes.initializer(attributes), *methods], documentation=documentation
            )
        )

    def _flow(self, units: Mapping[int, Unit], awaits: bool) -> Flow:
        taken = _WORDS | set(self._functions.values()) | self._records.keys()
        return Flow(units, self._annotations, awaits, frozenset(taken))

    def _plan(
        self, operation: Operation, attributes: dict[str, cst.BaseExpression], units: dict[int, Unit]
    ) -> None:
        """Make an attribute of each predictor, and of each module that a process calls as a whole."""
        match operation:
            case Tool(name=tool):
                function = self._functions[tool]
                units[id(operation)] = Unit(function, tool, operation.inputs, operation.outputs, bare=True)
            case Parallel(branches=branches):
                for branch in branches:
                    self._called(branch, f"{branch.outputs[-1].name}_branch", attributes, units)
            case Repeat(body=body):
                self._called(body, f"{operation.name}_round", attributes, units)
            case _ if isinstance(operation, plan.ASKED):
                attributes[operation.name] = self._predictor(operation)
                units[id(operation)] = Unit(
                    f"self.{operation.name}", operation.name, operation.inputs, operation.outputs
                )
            case _:
                for child in operation.children:
                    self._plan(child, attributes, units)

    def _called(
        self,
        operation: Operation,
        label: str,
        attributes: dict[str, cst.BaseExpression],
        units: dict[int, Unit],
    ) -> None:
        """Plan what is called as a whole: as a module of its own, when it is more than one call."""
        if isinstance(operation, (*plan.ASKED, Tool)):
            self._plan(operation, attributes, units)
            return
        attribute = self._attributes.new(label)
        class_name = self._names.new(pascal(attribute))
        self._module(class_name, operation, operation.inputs, operation.outputs)
        attributes[attribute] = call(name(class_name))
        units[id(operation)] = Unit(f"self.{attribute}", attribute, operation.inputs, operation.outputs)

    def _predictor(self, operation: plan.Asked) -> cst.BaseExpression:
        chosen, options = plan.strategy(operation), dict[str, cst.BaseExpression]()
        if chosen == "react":
            functions = operation.tools if isinstance(operation, Step) else ()
            options["tools"] = sequence(name(self._functions[tool]) for tool in functions)
        if chosen in ("react", "program_of_thought") and isinstance(operation, Step):
            options["max_iters"] = scalar(operation.max_iters)
        return call(dotted(_STRATEGIES[chosen]), name(self._signatures[operation.name]), **options)

    # --- imports ------------------------------------------------------------------------------------------

    def _imports(self, classes: Sequence[cst.CSTNode]) -> Iterator[cst.SimpleStatementLine]:
        """Yield the imports that `classes` need, in the order that isort gives them."""
        modules = [one for one in ("asyncio", "datetime") if _uses(classes, one, whole=False)]
        typing = [one for one in ("Any", "Literal") if _uses(classes, one, whole=True)]
        standard = [cst.Import([cst.ImportAlias(name(one))]) for one in modules]
        groups: list[list[cst.BaseSmallStatement]] = [
            [*standard, *([imported("typing", typing)] if typing else [])],
            [cst.Import([cst.ImportAlias(name("dspy"))]), *self._pydantic()],
        ]
        for group in filter(None, groups):
            first, *rest = map(line, group)
            yield first.with_changes(leading_lines=_blanks(1))
            yield from rest
        yield from self._hosted()

    def _pydantic(self) -> list[cst.ImportFrom]:
        described = any(m.findall(model, m.Call(m.Name("Field"))) for model in self._models)
        names = ["BaseModel", "Field"] if described else ["BaseModel"]
        return [imported("pydantic", names)] if self._models else []

    def _hosted(self) -> Iterator[cst.SimpleStatementLine]:
        """Yield the imports of tools, apart: a linter may take them for the user's own, or not."""
        split = [*_blanks(1), cst.EmptyLine(indent=False, comment=cst.Comment("# isort: split"))]
        used = {*plan.tools(self._process)} | {
            self._tools[tool] for one in self._asked if isinstance(one, Step) for tool in one.tools
        }
        for module in sorted({tool.module for tool in used}):
            names = sorted({tool.name for tool in used if tool.module == module}, key=_isort)
            named = [(one, self._functions[one]) for one in names]
            plain = [one for one, function in named if one == function]
            renamed = [(one, function) for one, function in named if one != function]
            for each in ([*plain] if plain else [], *([one] for one in renamed)):
                if each:
                    yield line(imported(module, each)).with_changes(leading_lines=split)


def _uses(classes: Sequence[cst.CSTNode], named: str, *, whole: bool) -> bool:
    """Tell whether a name is used in `classes`: as a whole, or as a module with something in it."""
    wanted = m.Name(named) if whole else m.Attribute(m.Name(named))
    return any(m.findall(one, wanted) for one in classes)


def pascal(text: str) -> str:
    """Return the name of a class: `find_facts` is `FindFacts`."""
    words = re.findall(r"[A-Za-z0-9]+", text)
    joined = "".join(word[0].upper() + word[1:] for word in words)
    return joined if joined[:1].isalpha() else f"Task{joined}"


def _isort(text: str) -> tuple[int, list[str | int]]:
    """Return what isort sorts a name by: constants, classes, the rest; numbers in it as numbers."""
    kind = 0 if len(text) > 1 and text.isupper() else 1 if text[0].isupper() else 2
    return kind, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text.lower())]


def _blanks(count: int) -> list[cst.EmptyLine]:
    return [cst.EmptyLine(indent=False)] * count


def _all(operation: Operation) -> Iterator[Operation]:
    return (each for _, each in walk(operation))


def _fields(operation: Operation) -> Iterable[Field]:
    return (*operation.inputs, *operation.outputs)


def _types(task: Task, process: Operation) -> Iterator[Type]:
    """Yield every type that the file writes."""
    for field in (*task.inputs, *task.outputs):
        yield field.type
    for operation in _all(process):
        for field in _fields(operation):
            yield field.type
