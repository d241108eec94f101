"""The commands: results on stdout, all else on stderr, 0 fine, 1 findings, 2 unusable; never a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dspy
import pytest
from click.testing import CliRunner, Result
from mkspy import library
from mkspy.check import RULES
from mkspy.cli import cli
from mkspy.generate import generate
from mkspy.spec import load
from scripted import Engine, Reply, chat

TRIAGE = library.read("triage")
PROGRAM = generate(library.get("triage"))
BAD = "import os\n"
SPEC = """\
name = "shout"
description = "Say it louder."
[inputs]
text = "text"
[outputs]
louder = "text"
"""


def run(*arguments: str | Path, given: str | bytes = "") -> Result:
    result = CliRunner().invoke(cli, list(map(str, arguments)), input=given)
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def command(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    whole = [sys.executable, "-m", "mkspy.cli", *arguments]
    return subprocess.run(whole, input=given, capture_output=True, timeout=60, check=False)


# --- one after the other ------------------------------------------------------------------------------------


def test_what_is_generated_passes_the_check_through_a_pipe() -> None:
    made = command("generate", given=TRIAGE.encode())
    checked = command("check", "-", given=made.stdout)

    assert (made.returncode, made.stderr) == (0, b"")
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@pytest.mark.parametrize("module", ["mkspy", "mkspy.cli"])
def test_the_package_and_its_cli_are_run_as_modules(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    )

    assert done.stdout.startswith("Usage: mkspy [OPTIONS] COMMAND")


def test_check_does_not_wait_for_dspy() -> None:
    code = (
        "import sys\nfrom mkspy.cli import cli\n"
        "try: cli(['check'])\nexcept SystemExit as end: print(end.code, 'dspy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=PROGRAM, capture_output=True, text=True, check=True
    )

    assert done.stdout == "0 False\n"


# --- spec, library ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["toml", "json"])
def test_spec_prints_the_whole_of_it(form: str) -> None:
    result = run("spec", "--format", form, given=TRIAGE)

    assert result.exit_code == 0
    assert load(result.stdout) == library.get("triage")
    assert run("spec", "--format", form, given=result.stdout).stdout == result.stdout


def test_spec_says_what_is_wrong_and_where() -> None:
    result = run("spec", given=SPEC.replace('louder = "text"', 'louder = "txet"'))

    assert (result.exit_code, result.stdout) == (2, "")
    assert "stdin: " in result.stderr
    assert "louder" in result.stderr
    assert "did you mean 'text'" in result.stderr


def test_a_file_is_read_by_what_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(run("spec", "--format", "json", given=SPEC).stdout)

    assert run("spec", tmp_path / "spec.json").exit_code == 0


def test_library_lists_specs_and_prints_one() -> None:
    assert [line.split()[0] for line in run("library").stdout.splitlines()] == list(library.names())
    assert run("library", "triage").stdout == TRIAGE.rstrip("\n") + "\n"
    assert run("library", "nothing").exit_code == 2


# --- generate -----------------------------------------------------------------------------------------------


def test_generate_writes_to_stdout_or_to_a_file(tmp_path: Path) -> None:
    assert run("generate", given=TRIAGE).stdout == PROGRAM
    assert run("generate", "--out", tmp_path / "program.py", given=TRIAGE).stdout == ""
    assert (tmp_path / "program.py").read_text() == PROGRAM
    assert run("generate", "--out", tmp_path / "program.py", given=TRIAGE).exit_code == 0
    assert "async def aforward" in run("generate", "--async", given=TRIAGE).stdout


def test_a_program_that_was_edited_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("mine")

    refused = run("generate", "--out", tmp_path / "program.py", given=TRIAGE)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert (tmp_path / "program.py").read_text() == "mine"
    assert run("generate", "--force", "--out", tmp_path / "program.py", given=TRIAGE).exit_code == 0
    assert (tmp_path / "program.py").read_text() == PROGRAM


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> list[Reply]:
    """Replies of the model that `dspy.LM` makes."""
    replies: list[Reply] = []
    real = dspy.LM
    monkeypatch.setattr(dspy, "LM", lambda name: real(name, engine=Engine(*replies), cache=False))
    return replies


def test_generate_with_a_model_prints_what_passed(model: list[Reply]) -> None:
    better = PROGRAM.replace('"""', '"""Better. ', 1)
    model += [chat(reasoning="So.", program=f"```python\nimport os\n{better}```")]
    model += [chat(reasoning="So.", program=f"```python\n{better}```")]

    result = run("generate", "--lm", "openai/gpt-5", given=TRIAGE)

    assert (result.exit_code, result.stdout) == (0, better)
    assert "Attempt 1 of openai/gpt-5 was refused:" in result.stderr
    assert "Attempt 2 of openai/gpt-5 passed." in result.stderr


def test_generate_with_a_model_that_never_passes_says_so(model: list[Reply]) -> None:
    model.append(chat(reasoning="So.", program=BAD))

    result = run("generate", "--model", "openai/gpt-5", "--rounds", "2", given=TRIAGE)

    assert (result.exit_code, result.stdout) == (1, PROGRAM)
    assert "No attempt of openai/gpt-5 passed; this is the program made without it." in result.stderr


def test_a_model_that_does_not_answer_is_an_error(model: list[Reply]) -> None:
    model.append(dspy.lm15.AuthError("no key"))

    result = run("generate", "--lm", "openai/gpt-5", given=TRIAGE)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "openai/gpt-5 did not answer" in result.stderr


# --- check, rules -------------------------------------------------------------------------------------------


def test_check_names_file_line_and_rule(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(PROGRAM + "\nimport os\n")

    result = run("check", tmp_path / "bad.py")

    assert result.exit_code == 1
    assert f"{tmp_path}/bad.py:{len(PROGRAM.splitlines()) + 2}:1: error: " in result.stdout
    assert result.stderr == ""


def test_check_reads_files_and_directories(tmp_path: Path) -> None:
    for name, text in {"a.py": "import dspy\n", "b/c.py": "import dspy\n", "d.py": "x = 1\n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for hidden in (".venv", "__pycache__"):
        (tmp_path / hidden).mkdir()
        (tmp_path / hidden / "e.py").write_text("import dspy\n")

    result = run("check", tmp_path, "--json")

    assert [Path(path).name for path in json.loads(result.stdout)] == ["a.py", "c.py"]
    assert result.exit_code == 1


def test_check_holds_a_program_to_its_spec(tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text(SPEC)
    (tmp_path / "program.py").write_text(PROGRAM)

    assert run("check", "--spec", tmp_path / "spec.toml", tmp_path / "program.py").exit_code == 1
    assert run("check", "--spec", "-", tmp_path / "program.py", given=TRIAGE).exit_code == 0
    assert run("check", "--spec", "-", given=TRIAGE).exit_code == 2


@pytest.mark.parametrize(
    ("form", "sign"), [("json", '"rule"'), ("sarif", '"2.1.0"'), ("github", "::error file=")]
)
def test_check_prints_for_machines(form: str, sign: str, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)

    result = run("check", f"--{form}", tmp_path / "bad.py")

    assert result.exit_code == 1
    assert sign in result.stdout
    if form != "github":
        json.loads(result.stdout)


def test_the_profile_decides_which_rules_hold(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import os\n" + PROGRAM.replace("import dspy\n", "import dspy\n", 1))

    assert run("check", tmp_path / "own.py").exit_code == 1
    assert run("check", "--profile", "project", tmp_path / "own.py").exit_code == 0


def test_rules_prints_each_rule_once() -> None:
    names = [line.split()[0] for line in run("rules").stdout.splitlines()]

    assert names == [rule.name for rule in RULES]
    assert [rule["name"] for rule in json.loads(run("rules", "--json").stdout)] == names
    assert 0 < len(run("rules", "--profile", "project").stdout.splitlines()) < len(names)


# --- what cannot be used ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["spec", "/no/such/file"], ""),
        (["generate", "/no/such/file"], ""),
        (["check", "/no/such/file"], ""),
        (["spec", "/"], ""),
        (["spec"], b"\xff\xfe"),
        (["spec"], ""),
        (["spec"], "name = "),
        (["spec"], "{" * 100_000),
        (["generate"], "{}"),
        (["generate", "--rounds", "0"], SPEC),
        (["generate", "--out", "/no/such/directory/program.py"], SPEC),
        (["check", "--profile", "none"], PROGRAM),
        (["check", "--spec", "/no/such/file"], PROGRAM),
        (["frobnicate"], ""),
    ],
    ids=str,
)
def test_what_cannot_be_used_exits_with_2_and_says_why(arguments: list[str], given: str | bytes) -> None:
    result = run(*arguments, given=given)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr


@pytest.mark.parametrize("given", [b"\xff\xfe", b"", b"\x00", b"(" * 100_000, "é".encode("latin-1")])
def test_a_program_that_cannot_be_read_is_a_finding(given: bytes) -> None:
    assert run("check", given=given).exit_code == 1


def test_one_file_that_is_not_there_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)

    result = run("check", tmp_path / "none.py", tmp_path / "bad.py")

    assert result.exit_code == 2
    assert "bad.py:1:" in result.stdout
    assert "none.py: No such file or directory" in result.stderr


def test_a_spec_with_a_byte_order_mark_is_read() -> None:
    assert run("spec", given="\ufeff" + SPEC).exit_code == 0


def test_a_pipe_that_is_closed_ends_it_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [sys.executable, "-m", "mkspy.cli", "rules"], stdout=writer, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writer)

    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_ends_it_as_a_shell_expects() -> None:
    code = (
        "import os, signal, threading\nfrom mkspy import cli\n"
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\ncli.main()"
    )
    with subprocess.Popen(  # a stdin that stays open: the command waits for it
        [sys.executable, "-c", code, "check"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.wait(60) == 130
        assert process.stdout
        assert process.stderr
        assert (process.stdout.read(), process.stderr.read()) == (b"", b"")


@pytest.mark.parametrize("name", [[], ["spec"], ["generate"], ["check"], ["rules"], ["library"]], ids=str)
def test_help_shows_examples(name: list[str]) -> None:
    shown = run(*name, "--help")

    assert shown.exit_code == 0
    assert "Examples:" in shown.stdout
