"""Make the source of a DSPy program from a task, without a language model."""

from mkspy.generate.program import File
from mkspy.spec import Free, Operation, Step, Task

__all__ = ["generate"]


def generate(task: Task, *, asynchronous: bool = False) -> str:
    """Return one readable Python file whose `program` does `task`; the same text every time.

    It is built of syntax nodes. Texts of the task become string literals and docstrings, whatever is in them;
    names become identifiers, and are checked to be some.

    Args:
        task: Its process says which predictors there are and how they work together. A task without one is a
            single predictor: a ReAct when the task has tools, else a ChainOfThought.
        asynchronous: Give modules an `aforward` beside `forward`, so that `await program.acall(...)` works.

    Raises:
        BadSpec: Something that has to be an identifier is none.
    """
    return File(task, _process(task), asynchronous=asynchronous).source()


def _process(task: Task) -> Operation:
    """Return the process; of a bare contract, one step that may call all tools there are."""
    operation = task.operation
    if not (isinstance(operation, Free) and task.process is None and task.tools):
        return operation
    tools = tuple(tool.name for tool in task.tools)
    return Step(operation.name, operation.inputs, operation.outputs, operation.instructions, tools=tools)
