"""A program against its task: names and types of inputs and outputs, and the tools of the host."""

import pytest
from mkspy.check import Report, check
from mkspy.spec import Field, Step, Task, Tool
from mkspy.types import parse

_TEAMS = '"billing" | "shipping" | "other"'


def _task(process: Step | None = None, tools: tuple[Tool, ...] = ()) -> Task:
    return Task(
        "triage",
        "Sort a message.",
        (Field("message", parse("text")), Field("limit", parse("integer"), default=3)),
        (Field("team", parse(_TEAMS)), Field("urgent", parse("boolean"))),
        process=process,
        tools=tools,
    )


_SOURCE = '''from typing import Literal

import dspy


class Sort(dspy.Signature):
    """Sort a message."""

    message: str = dspy.InputField()
    team: Literal["billing", "shipping", "other"] = dspy.OutputField()
    urgent: bool = dspy.OutputField()


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sort = dspy.Predict(Sort)

    def forward(self, message: str, limit: int = 3) -> dspy.Prediction:
        result = self.sort(message=message)
        return dspy.Prediction(team=result.team, urgent=result.urgent)


program = Program()
'''


def _checked(*changes: tuple[str, str], task: Task | None = None) -> Report:
    source = _SOURCE
    for before, after in changes:
        assert before in source
        source = source.replace(before, after)
    return check(source, task or _task())


_LEFT_ALONE = {
    "as it is": (),
    "the whole result": (("dspy.Prediction(team=result.team, urgent=result.urgent)", "result"),),
    "a wider input": (("forward(self, message: str,", "forward(self, message: str | None,"),),
    "a narrower output": (('Literal["billing", "shipping", "other"]', 'Literal["billing"]'),),
    "an output more": (("urgent=result.urgent)", "urgent=result.urgent, why=message)"),),
    "a parameter more, with a default": (("limit: int = 3)", 'limit: int = 3, tone: str = "calm")'),),
}
_FOUND = {
    "no such parameter": ((("forward(self, message: str, limit: int = 3)", "forward(self, limit: int = 3)"),
                           ("message=message", 'message="x"')), "task-inputs", "`message`"),
    "another name": ((("forward(self, message: str,", "forward(self, text: str,"),
                      ("message=message", "message=text")), "task-inputs", "no input of the task"),
    "another type": ((("message: str, limit", "message: int, limit"),), "task-inputs", "`message`"),
    "no default": ((("limit: int = 3", "limit: int"),), "task-inputs", "`limit`"),
    "no output": (((", urgent=result.urgent)", ")"),), "task-outputs", "`urgent`"),
    "an output renamed": ((("team=result.team", "label=result.team"),), "task-outputs", "`team`"),
    "a wider output": ((('Literal["billing", "shipping", "other"]', "str"),), "task-outputs", "`team`"),
    "the whole result, wider": ((('Literal["billing", "shipping", "other"]', "str"),
                                 ("dspy.Prediction(team=result.team, urgent=result.urgent)", "result")),
                                "task-outputs", "`team`"),
}  # fmt: skip


@pytest.mark.parametrize("changes", _LEFT_ALONE.values(), ids=_LEFT_ALONE)
def test_a_program_for_its_task_is_left_alone(changes: tuple[tuple[str, str], ...]) -> None:
    assert _checked(*changes).findings == ()


@pytest.mark.parametrize(("changes", "rule", "said"), _FOUND.values(), ids=_FOUND)
def test_a_program_for_another_task_is_refused(
    changes: tuple[tuple[str, str], ...], rule: str, said: str
) -> None:
    report = _checked(*changes)

    assert any(one.rule == rule and said in one.message for one in report.findings), report.findings


_NO_PREDICTION = {
    "a field": "result.team",
    "a text": 'f"team: {result.team}"',
    "a dict": '{"team": result.team}',
    "a number": "1",
}


@pytest.mark.parametrize("value", _NO_PREDICTION.values(), ids=_NO_PREDICTION)
def test_what_is_visibly_no_prediction_is_told_once(value: str) -> None:
    source = _SOURCE.replace("dspy.Prediction(team=result.team, urgent=result.urgent)", value)

    in_project = [one.rule for one in check(source, _task(), profile="project").findings]
    as_candidate = [one.rule for one in check(source, _task()).findings]

    assert in_project == ["task-outputs"]
    assert as_candidate == ["returns-prediction"]


@pytest.mark.parametrize("value", ["1", '["billing"]', "len(message)", "len(message) > 3"])
def test_an_output_that_is_built_is_of_the_kind_of_the_task(value: str) -> None:
    [finding] = _checked(("team=result.team", f"team={value}")).findings

    assert (finding.rule, "`team`" in finding.message) == ("task-outputs", True)


_SEARCH = Tool(
    "search", (Field("query", parse("text")),), Field("found", parse("text")), "Search.", module="host.web"
)
_IMPORT = (("import dspy\n", "import dspy\nfrom host.web import search\n"),)
_AGENT = (("dspy.Predict(Sort)", "dspy.ReAct(Sort, tools=[search], max_iters=3)"),)


def test_a_tool_of_the_task_may_be_imported() -> None:
    assert _checked(*_IMPORT, *_AGENT, task=_task(tools=(_SEARCH,))).findings == ()


def test_no_other_tool_may_be_imported() -> None:
    rules = {one.rule for one in _checked(*_IMPORT, *_AGENT).findings}
    other = {one.rule for one in _checked(("import dspy\n", "import dspy\nfrom host.web import delete\n"),
                                          task=_task(tools=(_SEARCH,))).findings}  # fmt: skip

    assert {"import", "tool"} <= rules
    assert "import" in other


def test_a_tool_that_is_imported_is_used() -> None:
    assert {one.rule for one in _checked(*_IMPORT, task=_task(tools=(_SEARCH,))).findings} == {"task-tools"}
