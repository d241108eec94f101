"""What tests of generated programs share: a model that answers any task, host functions, a place to run."""

import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dspy
import pydantic
from mkspy.spec import Task, Tool, walk
from mkspy.types import List, Literal, Primitive, Record, Tuple, Type, Union, to_python
from scripted import lm

_VALUES: dict[str, Any] = {
    "text": "some text",
    "number": 1.5,
    "integer": 2,
    "boolean": True,
    "date": "2026-03-31",
    "datetime": "2026-03-31T12:00:00",
    "json": {"key": [1, None]},
    "image": {"url": "https://example.com/a.png"},
    "audio": {"data": "UklGRg==", "audio_format": "wav"},
    "file": {"file_data": "data:application/pdf;base64,YQ=="},
    "code": "print(1)",
    "history": {"messages": []},
    "null": None,
}
_REACT = {"next_thought": "Enough.", "next_tool_name": "finish", "next_tool_args": {}}
_WANTED = re.compile(r"`(\w+)`")


def value(type: Type) -> Any:
    """Return a value of `type`, as JSON has it."""
    match type:
        case Primitive(name):
            return _VALUES[name]
        case Literal(values):
            return values[0]
        case List(item):
            return [value(item), value(item)]
        case Tuple(items):
            return [value(item) for item in items]
        case Union(options):
            return value(options[0])
        case Record(fields=fields):
            return {field.name: value(field.type) for field in fields}


def python_value(type: Type) -> Any:
    """Return a value of `type`, as a caller of a program has it."""
    return pydantic.TypeAdapter(to_python(type)).validate_python(value(type))


def inputs_of(task: Task) -> dict[str, Any]:
    return {field.name: python_value(field.type) for field in task.inputs}


def answering(task: Task, **own: Any) -> dspy.LM:
    """Return a model that fills in whatever output fields a prompt asks for, each with a value of its type.

    It speaks JSON, which can say every text there is: use it under `dspy.JSONAdapter()`.
    """
    fields = {field.name: field.type for _, each in walk(task.operation) for field in each.outputs}
    known = {name: value(type) for name, type in fields.items()} | _REACT | own

    def reply(prompt: str) -> str:
        wanted = _WANTED.findall(prompt[prompt.rfind("Respond with a JSON object") :])
        return json.dumps({name: known.get(name, "Because.") for name in wanted})

    return lm(reply)


def tools_of(task: Task) -> dict[str, Tool]:
    called = [each for _, each in walk(task.operation) if isinstance(each, Tool)]
    return {tool.name: tool for tool in (*task.tools, *called)}


def function_of(tool: Tool) -> Callable[..., Any]:
    """Return the function that a task calls a tool: typed, documented, and always of one opinion."""

    def function(**_: Any) -> Any:
        return python_value(tool.output.type)

    kind = inspect.Parameter.KEYWORD_ONLY
    function.__name__ = function.__qualname__ = tool.name
    function.__doc__ = tool.description or "A tool."
    function.__annotations__ = {field.name: to_python(field.type) for field in tool.inputs}
    parameters = [inspect.Parameter(n, kind, annotation=a) for n, a in function.__annotations__.items()]
    function.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    return function


@contextmanager
def hosted(task: Task) -> Generator[None]:
    """Make the host functions of a task importable."""
    modules: dict[str, types.ModuleType] = {}
    for tool in tools_of(task).values():
        path = tool.module.split(".")
        for end in range(1, len(path) + 1):
            name = ".".join(path[:end])
            modules.setdefault(name, types.ModuleType(name))
        setattr(modules[tool.module], tool.name, function_of(tool))
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


@contextmanager
def loaded(source: str, task: Task, **own: Any) -> Generator[dspy.Module]:
    """Run a file, and hand out its program, with a model that answers."""
    module = types.ModuleType("generated_program")
    sys.modules[module.__name__] = module
    try:
        with hosted(task), dspy.context(lm=answering(task, **own), adapter=dspy.JSONAdapter()):
            exec(compile(source, "program.py", "exec"), module.__dict__)
            yield module.__dict__["program"]
    finally:
        del sys.modules[module.__name__]


def asks(task: Task) -> set[str]:
    """Return the names of the operations that a model carries out."""
    leaves = [each for _, each in walk(task.operation) if not each.children and not isinstance(each, Tool)]
    return {each.name for each in leaves}


def named(program: dspy.Module) -> set[str]:
    """Return every attribute on the way to a predictor of a program."""
    return {part for path, _ in program.named_predictors() for part in path.split(".")}


def write_tools(directory: Path, *tasks: Task) -> None:
    """Write the modules of the tasks' host functions, for tools that read source."""
    texts: dict[Path, dict[str, str]] = {}
    for tool in (tool for task in tasks for tool in tools_of(task).values()):
        path = directory.joinpath(*tool.module.split(".")).with_suffix(".py")
        inputs = ", ".join(f"{field.name}: Any" for field in tool.inputs)
        texts.setdefault(path, {})[tool.name] = f"def {tool.name}({inputs}) -> Any: ..."
    for path, functions in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(["from typing import Any", *functions.values(), ""]))
