"""Tools of the host: the functions a spec lets a program import."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkspy.spec import Task


def host_tools(task: "Task | None") -> frozenset[str]:
    """Return the paths of a task's tools, `tools.search` for one named search."""
    return frozenset(_paths(task)) if task else frozenset()


def _paths(task: "Task") -> Iterator[str]:
    for tool in task.tools:
        yield f"{tool.module}.{tool.name}"
    stack: list[object] = [task.process]
    while stack:
        operation = stack.pop()
        module, name = getattr(operation, "module", None), getattr(operation, "name", None)
        if isinstance(module, str) and isinstance(name, str):
            yield f"{module}.{name}"
        stack += getattr(operation, "children", ())
