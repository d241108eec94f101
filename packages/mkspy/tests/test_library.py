"""Eight specs that a newcomer can start from."""

from pathlib import Path

import pytest
from mkspy import library
from mkspy.errors import BadSpec
from mkspy.spec import (
    Branch,
    Chain,
    Classify,
    Extract,
    Filter,
    Map,
    Parallel,
    Reduce,
    Repeat,
    Step,
    Tool,
    dumps,
    load,
    walk,
)
from mkspy.types import CODE, HISTORY

NAMES = ("agent", "chat", "invoice", "rag", "report", "review", "summary", "triage")


def test_there_are_eight_specs() -> None:
    assert library.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_has_examples_a_metric_and_constraints(name: str) -> None:
    task = library.get(name)

    assert task.name == name
    assert len(task.examples) >= 2
    assert task.metric
    assert task.constraints
    assert task.description.endswith(".")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("format", ["toml", "json"])
def test_a_spec_is_printed_and_read_back(name: str, format: str) -> None:
    task = library.get(name)

    assert load(dumps(task, format), format) == task


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_can_be_read_without_scrolling_sideways(name: str) -> None:
    text = library.read(name)

    assert text.startswith("# ")
    assert max(map(len, text.splitlines())) <= 110


def test_the_specs_show_every_kind_of_operation() -> None:
    tasks = [library.get(name) for name in NAMES]
    kinds = {type(each) for task in tasks if task.process for _, each in walk(task.process)}
    types = {field.type for task in tasks for field in task.inputs}
    strategies = {
        each.strategy for task in tasks for _, each in walk(task.operation) if isinstance(each, Step)
    }

    assert kinds == {Branch, Chain, Classify, Extract, Filter, Map, Parallel, Reduce, Repeat, Step, Tool}
    assert {CODE, HISTORY} <= types
    assert {"auto", "predict", "react"} <= strategies
    assert any(task.process is None for task in tasks)


def test_a_spec_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(BadSpec, match="there are agent, chat"):
        library.read("triag")


def test_the_specs_are_at_the_top_of_the_project_too() -> None:
    shortcut = Path(__file__).parents[3] / "library"

    assert (shortcut / "triage.toml").read_text(encoding="utf-8") == library.read("triage")
