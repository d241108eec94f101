"""Reports as text, JSON, SARIF 2.1.0, and annotations of a GitHub workflow."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from mkspy.check.report import Finding, Report, Rule

type Format = Literal["text", "json", "sarif", "github"]
type Reports = Mapping[str, Report]

_STDIN = "<stdin>"
_LINES = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A", ":": "%3A", ",": "%2C"})


def render(reports: Reports, form: Format = "text", rules: Sequence[Rule] = ()) -> str:
    """Return reports, by the path of their source, in a format; "" when there is nothing to say in text."""
    return _FORMATS[form](reports, rules)


def as_json(report: Report) -> dict[str, object]:
    """Return a report as JSON has it."""
    return {
        "ok": report.ok,
        "findings": [asdict(one) for one in report.findings],
        "facts": asdict(report.facts),
    }


def _path(path: str) -> str:
    return _STDIN if path == "-" else path


def _pairs(reports: Reports) -> Iterator[tuple[str, Finding]]:
    for path, report in reports.items():
        for one in report.findings:
            yield _path(path), one


def _said(one: Finding) -> str:
    return f"{one.message}; {one.hint}" if one.hint else one.message


def _shown(text: str) -> str:
    """Return a text in one line that cannot move a terminal's cursor: messages quote what was read."""
    return "".join(
        char if char.isprintable() else " " if char in "\n\t" else f"\\u{ord(char):04x}" for char in text
    )


def _text(reports: Reports, rules: Sequence[Rule]) -> str:
    lines = (
        f"{path}:{one.line}:{one.column}: {one.severity}: {_shown(_said(one))} [{one.rule}]\n"
        for path, one in _pairs(reports)
    )
    return "".join(lines)


def _json(reports: Reports, rules: Sequence[Rule]) -> str:
    return json.dumps({_path(path): as_json(report) for path, report in reports.items()}, indent=2) + "\n"


def _github(reports: Reports, rules: Sequence[Rule]) -> str:
    lines = (
        f"::{one.severity} file={path.translate(_PROPERTY)},line={one.line},col={one.column},"
        f"title=mkspy {one.rule}::{_shown(_said(one)).translate(_LINES)}\n"
        for path, one in _pairs(reports)
    )
    return "".join(lines)


def _sarif(reports: Reports, rules: Sequence[Rule]) -> str:
    driver = {
        "name": "mkspy",
        "version": _version(),
        "informationUri": "https://pypi.org/project/mkspy/",
        "rules": [_descriptor(rule) for rule in rules],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(path, one) for path, one in _pairs(reports)],
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _version() -> str:
    try:
        return version("mkspy")
    except PackageNotFoundError:
        return "0"


def _descriptor(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.name,
        "shortDescription": {"text": rule.summary},
        "defaultConfiguration": {"level": rule.severity},
        "properties": {"tags": [rule.family, *rule.profiles]},
    }


def _result(path: str, one: Finding) -> dict[str, object]:
    region = {"startLine": one.line, "startColumn": one.column}
    place = {"artifactLocation": {"uri": path.replace("\\", "/")}, "region": region}
    return {
        "ruleId": one.rule,
        "level": one.severity,
        "message": {"text": _shown(_said(one))},
        "locations": [{"physicalLocation": place}],
    }


_FORMATS: dict[Format, Callable[[Reports, Sequence[Rule]], str]] = {
    "text": _text,
    "json": _json,
    "sarif": _sarif,
    "github": _github,
}
