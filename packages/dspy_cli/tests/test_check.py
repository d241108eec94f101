"""`dspy-cli check`: what would fail, and why."""

import enum
import json
import math
import os
import re
import sys
from collections.abc import Generator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import dspy
import pytest
from click.testing import CliRunner, Result
from dspy_cli.cli import cli
from dspy_cli.errors import BadConfig, NothingToServe
from dspy_cli.project import report
from dspy_cli.project.programs import program
from pydantic import BaseModel
from rich.console import Console

GOOD = """
from typing import Literal
import dspy
from dspy_cli.gateways.api import APIGateway

class Hook(APIGateway):
    path = "/hook"

class Ask(dspy.Module):
    gateway = Hook

    def __init__(self):
        super().__init__()
        self.answer = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str, k: int = 3, kind: "Kind | None" = None) -> dspy.Prediction: ...

Kind = Literal["a", "b"]
"""
CONFIG = """\
app_id: demo
models:
  default: small
  registry:
    small: {model: openai/small}
    big: {model: openai/big, env: CHECK_KEY}
"""


@pytest.fixture(autouse=True)
def process() -> Generator[None]:
    path, environ = list(sys.path), dict(os.environ)
    yield
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(environ)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    modules = tmp_path / "src/demo/modules"
    modules.mkdir(parents=True)
    (modules / "ask.py").write_text(GOOD)
    (tmp_path / "dspy.config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHECK_KEY", raising=False)
    return tmp_path


def check(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["check", *arguments])


def rows(result: Result) -> list[dict[str, Any]]:
    return json.loads(result.stdout)["checks"]


def failing(result: Result) -> list[tuple[str, str]]:
    return [(row["kind"], row["subject"]) for row in rows(result) if row["status"] == "fail"]


def test_a_project_that_can_be_served_exits_0(project: Path) -> None:
    (project / ".env").write_text("CHECK_KEY=sk-1")

    result = check()

    assert result.exit_code == 0, result.output
    assert "Nothing would fail; 1 program can be served." in result.stdout
    assert "question: str, k: int = 3, kind: 'a' | 'b' | None = None -> reasoning: str, answer: str" in (
        result.stdout
    )
    assert "ChainOfThought on openai/small, through Hook" in result.stdout
    assert "sk-1" not in result.output


def test_output_that_is_no_terminal_is_aligned_text(project: Path) -> None:
    lines = check().stdout.splitlines()

    assert not any("\x1b" in line for line in lines)
    columns = {re.search(r"(2 models|openai/small, no key|Ask$)", line) for line in lines} - {None}
    assert len({match.start() for match in columns if match}) == 1


def test_a_terminal_gets_a_table(project: Path) -> None:
    (project / "src/demo/modules/bad.py").write_text("raise ValueError('[red]markup[/red]')")
    out = StringIO()

    report.show(report.examine(project), Console(file=out, force_terminal=True, width=120))

    assert "\x1b[1;31mFAIL" in out.getvalue()
    assert "[red]markup[/red]" in out.getvalue()


def test_every_failure_is_told_at_once(project: Path) -> None:
    (project / "src/demo/modules/bad.py").write_text("import nowhere")
    (project / "src/demo/modules/empty.py").write_text("")
    (project / "dspy.config.yaml").write_text(f"{CONFIG}program_models: {{Ask: big, Gone: small}}\n")

    result = check("--json")

    assert result.exit_code == 1
    assert failing(result) == [
        ("model", "big"),
        ("file", "src/demo/modules/bad.py:1"),
        ("program", "Ask"),
    ]
    warned = {row["subject"]: row["detail"] for row in rows(result) if row["status"] == "warn"}
    assert warned == {
        "src/demo/modules/empty.py": "no dspy.Module is defined in it",
        "dspy.config.yaml:7:28": "program_models.Gone: there is no such program to serve",
    }


def test_gateways_that_want_the_same_path_are_told(project: Path) -> None:
    (project / "src/demo/modules/two.py").write_text(GOOD.replace("class Ask", "class Two"))

    assert ("gateway", "path") in failing(check("--json"))


def test_settings_the_server_would_refuse_are_told_with_their_place(project: Path) -> None:
    server = 'server: {events: "nonsense:", allowed_hosts: [a b], allowed_origins: ["*"]}'
    (project / "dspy.config.yaml").write_text(f"{CONFIG}{server}\n")

    result = check("--json")

    told = {row["subject"]: row["detail"] for row in rows(result) if row["status"] == "fail"}
    assert list(told) == [f"dspy.config.yaml:7:{column}" for column in (10, 31, 53)]
    assert ["nonsense:" in text or "'a b'" in text or "'*'" in text for text in told.values()] == [True] * 3


def test_an_environment_that_is_no_text_is_told_in_a_line(project: Path) -> None:
    (project / ".env").write_bytes(b"KEY=\xff\n")

    result = check()

    assert isinstance(result.exception, BadConfig)
    assert str(result.exception).startswith(".env: cannot be read")


def test_a_public_gateway_is_pointed_out(project: Path) -> None:
    file = project / "src/demo/modules/ask.py"
    file.write_text(GOOD.replace('path = "/hook"', 'path = "/hook"; requires_auth = False'))

    assert re.search(r"ok    gateway  POST /hook +public", check().stdout)


def test_a_key_is_only_missed_where_it_is_needed(project: Path) -> None:
    result = check("--json")

    assert result.exit_code == 0
    (row,) = (row for row in rows(result) if row["subject"] == "big")
    assert (row["status"], row["hint"]) == ("warn", "dspy.config.yaml:6:30")
    assert "CHECK_KEY is not set; put it in .env, or export it" in row["detail"]


def test_a_wrong_config_does_not_hide_the_files(project: Path) -> None:
    (project / "dspy.config.yaml").write_text("app: demo\nserver: {port: x}\n")

    result = check("--json")

    assert result.exit_code == 1
    assert failing(result) == [("config", "dspy.config.yaml:1:1"), ("config", "dspy.config.yaml:2:10")]
    assert ("program", "Ask") in [(row["kind"], row["subject"]) for row in rows(result)]


def test_a_file_can_be_checked(project: Path) -> None:
    file = project / "one.py"
    file.write_text(GOOD)

    assert check(str(file)).exit_code == 0
    assert check("demo.modules.ask:Ask").exit_code == 0
    file.write_text("def f(:")
    assert re.search(r"FAIL  file    one\.py:1 +SyntaxError: invalid syntax\n", check(str(file)).stdout)


def test_a_traceback_is_only_shown_when_asked_for(project: Path) -> None:
    (project / "src/demo/modules/bad.py").write_text("def f():\n    1 / 0\nf()\n")

    assert "Traceback" not in check().output
    shown = check("--traceback").stderr
    assert 'bad.py", line 3, in <module>' in shown
    assert "discover.py" not in shown


def test_what_the_users_code_prints_does_not_end_up_in_the_json(project: Path) -> None:
    (project / "src/demo/modules/noisy.py").write_text("print('hello')")

    result = check("--json")

    assert json.loads(result.stdout)["ok"] is True
    assert "hello" in result.stderr


def test_what_is_no_project_is_an_error(tmp_path: Path) -> None:
    assert isinstance(check(str(tmp_path)).exception, NothingToServe)


def test_help_has_examples() -> None:
    result = check("--help")

    assert result.exit_code == 0
    assert "dspy-cli check demo --traceback" in result.stdout


def test_a_project_without_a_config_has_the_defaults(project: Path) -> None:
    (project / "dspy.config.yaml").unlink()

    result = check()

    assert "there is none: defaults" in result.stdout
    assert "ChainOfThought on the model the code configures" in result.stdout


class Point(BaseModel):
    x: int


class Mood(enum.Enum):
    GOOD = "good"


def test_a_program_is_shown_in_one_line() -> None:
    class Map(dspy.Module):
        def forward(
            self,
            start: Point,
            mood: Mood,
            only: Literal["x"],
            tags: list[str],
            rows: list[Any],
            photo: dspy.Image | None = None,
            weight: float = math.nan,
            more: dict[str, int] | None = None,
            **kwargs: object,
        ) -> Point: ...

    assert report.signature(program(Map)) == (
        "start: Point, mood: Mood, only: 'x', tags: list[str], rows: list, photo: image | None = None, "
        "weight: float = ..., more: dict | None = None -> x: int"
    )


def test_a_program_that_takes_and_promises_nothing_is_shown_so() -> None:
    class Bare(dspy.Module):
        def forward(self): ...

    assert report.signature(program(Bare)) == "() -> ..."


def test_the_fields_of_a_dataclass_are_shown() -> None:
    @dataclass
    class Place:
        name: str

    class Find(dspy.Module):
        def forward(self, anything): ...

    Find.forward.__annotations__["return"] = Place

    assert report.signature(program(Find)) == "anything: any -> name: str"
