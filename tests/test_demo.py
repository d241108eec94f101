"""The stranger's first command, on the real model."""

import json
import re
import subprocess
import sys
from pathlib import Path

import streamll
from click.testing import CliRunner
from streamll import cli
from streamll.demo import passages, search_handbook


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamll", "demo", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


def test_the_demo_streams_a_real_models_tokens_into_their_fields() -> None:
    done = demo("--question", "How tall was the Pharos of Alexandria?")

    assert done.returncode == 0, done.stderr
    tokens = re.findall(r"^\[TOKEN\] (\w+): (\".*\")$", done.stdout, re.MULTILINE)
    written = {
        field: "".join(json.loads(t) for f, t in tokens if f == field) for field in ("reasoning", "answer")
    }
    assert all(len(text) > 5 for text in written.values()), written
    assert sum(field == "reasoning" for field, _ in tokens) > 2
    assert "[[ ##" not in done.stdout
    assert re.search(
        r"^\[TOOL\] search_handbook → \"The Pharos of Alexandria was built", done.stdout, re.MULTILINE
    )
    assert re.search(r"^\[END\] Handbook .*1 LM call, 1 tool call, \d+→\d+ tokens", done.stdout, re.MULTILINE)


def test_a_model_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    done = demo("--model", str(tmp_path / "none.gguf"))

    assert done.returncode == 1
    assert "none.gguf" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_model_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")

    done = demo("--model", str(tmp_path / "notes.txt"))

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "notes.txt' is not a GGUF file" in done.stderr


def test_help_says_what_the_command_does() -> None:
    shown = CliRunner().invoke(cli.main, ["demo", "--help"])

    assert shown.exit_code == 0
    assert "Watch a small DSPy program think" in shown.output


def test_the_retriever_finds_the_passage_of_each_subject() -> None:
    for passage in passages():
        assert search_handbook(passage.partition(".")[0]) == passage


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(cli.main, ["--version"]).output.startswith("streamll, version ")
    assert streamll.__doc__
