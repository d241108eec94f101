"""Reports as text, JSON, SARIF and annotations: one finding a line, and no source can break out."""

import json

import jsonschema
import pytest
from mkspy.check import Finding, Format, Report, check, render

_FINDING = Finding("name", "error", "the builtin `open` is not on the list", 3, 5, "use a tool")
_SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "properties": {
                    "tool": {
                        "type": "object",
                        "required": ["driver"],
                        "properties": {"driver": {"type": "object", "required": ["name", "rules"]}},
                    },
                    "results": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["ruleId", "level", "message", "locations"],
                            "properties": {"level": {"enum": ["none", "note", "warning", "error"]}},
                        },
                    },
                },
            },
        },
    },
}
"""The part of the schema of SARIF 2.1.0 that a code scanner needs."""


def test_text_is_a_line_that_editors_follow() -> None:
    assert render({"a.py": Report((_FINDING,))}) == (
        "a.py:3:5: error: the builtin `open` is not on the list; use a tool [name]\n"
    )


def test_nothing_is_said_of_what_is_right() -> None:
    assert render({"a.py": Report()}) == ""
    assert render({"a.py": Report()}, "github") == ""


def test_json_has_findings_and_facts_by_file() -> None:
    report = check("import os\n")

    read = json.loads(render({"-": report}, "json"))["<stdin>"]

    assert read["ok"] is False
    assert {one["rule"] for one in read["findings"]} == {one.rule for one in report.findings}
    assert read["facts"]["imports"] == ["os"]


def test_sarif_names_every_rule_and_places_every_finding() -> None:
    log = json.loads(render({"src/a.py": Report((_FINDING,)), "b.py": Report()}, "sarif"))

    jsonschema.validate(log, _SARIF)
    [run] = log["runs"]
    [result] = run["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place == {
        "artifactLocation": {"uri": "src/a.py"},
        "region": {"startLine": 3, "startColumn": 5},
    }
    assert result["ruleId"] in {rule["id"] for rule in run["tool"]["driver"]["rules"]}


def test_github_gets_one_annotation_a_finding() -> None:
    shown = render({"a,b:c.py": Report((_FINDING,))}, "github")

    assert shown.startswith("::error file=a%2Cb%3Ac.py,line=3,col=5,title=mkspy name::the builtin")
    assert shown.count("\n") == 1


@pytest.mark.parametrize("form", ["text", "github"])
def test_a_source_cannot_write_lines_or_move_the_cursor(form: Format) -> None:
    odd = Finding("import", "error", "`\x1b[2J\n::warning::x\r` may not\u202e be", 1, 1)

    shown = render({"a.py": Report((odd,))}, form)

    assert shown.count("\n") == 1
    assert shown.rstrip("\n").isprintable()
