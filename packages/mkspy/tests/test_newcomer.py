"""The README's path, walked as it is written: spec, generate, check, run, serve, watch."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from mkspy import library
from mkspy.check import check
from own_servers import free_port
from serving import command

ROOT = Path(__file__).parents[3]
README = (ROOT / "packages/mkspy/README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory where the README was followed up to `mkspy check`."""
    directory = tmp_path_factory.mktemp("newcomer")
    (spec,) = blocks("toml")
    (directory / "triage.toml").write_text(spec)
    for line in "".join(blocks("bash")).splitlines():
        if line.startswith("mkspy ") and "#" not in line:
            done = run("-m", *shlex.split(line), cwd=directory)
            assert (done.returncode, done.stderr) == (0, ""), line
    return directory


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=240)


def test_the_spec_has_ten_lines() -> None:
    (spec,) = blocks("toml")

    assert len(spec.splitlines()) <= 10


def test_the_readme_shows_the_program_that_comes_out(path: Path) -> None:
    (shown,) = blocks("py")

    assert shown in (path / "program.py").read_text()
    assert "import mkspy" not in (path / "program.py").read_text()


def test_the_program_runs_and_is_watched_on_the_model_inside_the_process(path: Path) -> None:
    (code,) = blocks("python")
    (path / "run.py").write_text(code)

    done = run("run.py", cwd=path)

    assert done.returncode == 0, done.stderr
    assert re.search(r"^(billing|shipping|technical) (True|False)$", done.stdout, re.MULTILINE)
    assert "[TOKEN] reasoning: " in done.stdout
    assert "TriageProgram" in done.stdout


async def test_the_program_is_served(path: Path) -> None:
    (config,) = blocks("yaml")
    (path / "dspy.config.yaml").write_text(config)
    with command("program.py", cwd=path, port=free_port()) as server:
        await server.ready()
        async with server.client() as client:
            (served,) = (await client.get("/programs")).json()["programs"]
            answered = await client.post(served["path"], json={"message": "Where is my parcel?"}, timeout=120)

    assert served["path"] == "/program"
    assert served["description"] == "Sort a customer's message, so that it reaches the right team."
    assert answered.status_code == 200, server.output
    assert answered.json()["team"] in ("billing", "shipping", "technical")


def test_the_readme_names_every_command_and_the_page_every_operation() -> None:
    from mkspy.cli import cli

    page = (ROOT / "docs/making.md").read_text()

    assert all(f"`{name} " in README or f"`{name}`" in README for name in cli.commands)
    assert all(f"# {name}" in page for name in ("tool", "map", "parallel", "branch", "repeat"))


def test_the_first_spec_of_the_library_goes_the_same_way() -> None:
    from mkspy.generate import generate

    task = library.get("triage")

    assert check(generate(task), task).findings == ()
