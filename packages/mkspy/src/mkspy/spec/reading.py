"""A tree of plain values as a task: what `document` writes, and the short forms that people write."""

from collections.abc import Iterator
from typing import Any, cast

from mkspy.spec.declared import Fields, Records, decoded, texts
from mkspy.spec.operations import Tool
from mkspy.spec.processes import Processes, tool
from mkspy.spec.tables import Table, expect, is_text, json_value
from mkspy.spec.task import Example, Task
from mkspy.types import Json
from mkspy.types.values import is_list, is_mapping


def read(tree: object) -> Task:
    """Return the task that `tree` describes.

    Raises:
        BadSpec: It describes none; the message names the key.
    """
    table = Table(tree, "")
    name, description = table.need("name", is_text), table.need("description", is_text)
    fields = Fields(Records(table.get("records", is_mapping, {})).all())
    inputs = fields.read(table.any("inputs"), "inputs")
    outputs = fields.read(table.any("outputs"), "outputs")
    tools = [_tool(each, f"tools[{at}]", fields) for at, each in enumerate(table.get("tools", is_list, ()))]
    processes = Processes(fields, outputs, tools)
    scope = {each.name: each.type for each in inputs}
    process = processes.read(table.any("process"), "process", scope) if table.has("process") else None
    examples, metric = tuple(_examples(table)), tuple(_metric(table))
    constraints = texts(table, "constraints")
    table.done()
    return Task(
        name, description, inputs, outputs, process, tuple(tools), examples, cast("Any", metric), constraints
    )


def _tool(value: object, path: str, fields: Fields) -> Tool:
    table = Table(value, path)
    found = tool(table, table.need("name", is_text), fields)
    table.done()
    return found


def _metric(table: Table) -> Iterator[tuple[str, str]]:
    for name, measure in table.get("metric", is_mapping, {}).items():
        yield name, expect(measure, is_text, f"metric.{name}")


def _examples(table: Table) -> Iterator[Example]:
    for at, value in enumerate(table.get("examples", is_list, ())):
        example = Table(value, f"examples[{at}]")
        yield Example(_values(example, "inputs"), _values(example, "outputs"))
        example.done()


def _values(example: Table, side: str) -> dict[str, Json]:
    coded = example.has(f"{side}_json")
    value = decoded(example, f"{side}_json") if coded else json_value(example.any(side), example.at(side))
    return cast("dict[str, Json]", dict(expect(value, is_mapping, example.at(side))))
