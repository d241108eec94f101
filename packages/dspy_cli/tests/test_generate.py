"""`dspy-cli generate`: parts for the project one is in, wherever in it one stands."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from dspy_cli.cli import cli
from dspy_cli.errors import BadName, BadSignature, DspyCliError, NotAProject, Occupied
from dspy_cli.project.scaffold import Options, new_project

FILES = {
    "scaffold": ["src/demo/signatures/triage.py", "src/demo/modules/triage.py", "tests/test_triage.py"],
    "signature": ["src/demo/signatures/triage.py"],
    "module": ["src/demo/modules/triage.py", "tests/test_triage.py"],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    new_project(tmp_path, "demo", Options())
    monkeypatch.chdir(tmp_path / "demo")
    return tmp_path / "demo"


def generate(*words: str) -> Result:
    return CliRunner().invoke(cli, ["generate", *words])


def generated(*words: str) -> Sequence[str]:
    """Return the files a command says it wrote."""
    result = generate(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return [line.strip() for line in result.stdout.partition("\n\n")[0].splitlines()]


def test_a_scaffold_is_a_signature_a_module_and_a_test(project: Path) -> None:
    assert generated("scaffold", "triage", "-s", "ticket -> team", "-m", "CoT") == FILES["scaffold"]

    assert "ticket: str = dspy.InputField()" in (project / FILES["signature"][0]).read_text()
    assert "dspy.ChainOfThought(TriageSignature)" in (project / FILES["module"][0]).read_text()


def test_a_signature_alone_is_one_file(project: Path) -> None:
    assert generated("signature", "triage", "-s", "ticket -> team") == FILES["signature"]


def test_a_module_is_built_on_the_signature_that_is_there(project: Path) -> None:
    generated(
        "signature",
        "triage",
        "-s",
        "when: date, tags: list[str] -> team: Literal['a', 'b'], note: str | None",
    )

    assert generated("module", "triage", "-m", "Refine") == FILES["module"]
    module = (project / FILES["module"][0]).read_text()
    assert "def forward(self, when: dt.date, tags: list[str]) -> dspy.Prediction:" in module
    passed = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=project, capture_output=True
    )
    assert passed.returncode == 0, passed.stdout


def test_a_module_with_a_signature_given_writes_that_too(project: Path) -> None:
    assert generated("module", "triage", "-s", "ticket -> team") == FILES["scaffold"]


def test_a_signature_file_is_read_and_never_run(project: Path) -> None:
    path = project / FILES["signature"][0]
    path.write_text(
        "import dspy\nraise SystemExit('run')\n\n\nclass TriageSignature(dspy.Signature):\n"
        "    ticket: str = dspy.InputField(desc='x')\n    team: int = dspy.OutputField()\n"
    )

    assert generated("module", "triage") == FILES["module"]
    assert "def forward(self, ticket: str)" in (project / FILES["module"][0]).read_text()


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            "class S:\n    a: Ticket = dspy.InputField()\n    b: str = dspy.OutputField()\n",
            "unknown type 'Ticket'",
        ),
        ("class S:\n    a: str = dspy.InputField()\n", "expected the name of an output"),
        ("x = 1\n", "expected the name of an input"),
        ("class (", "invalid syntax"),
        ("\0", "null bytes"),
    ],
)
def test_a_signature_that_cannot_be_read_is_said_with_a_way_out(
    project: Path, source: str, problem: str
) -> None:
    (project / FILES["signature"][0]).write_text(source)

    with pytest.raises(DspyCliError, match=rf"triage.py has a signature .*{problem}.*Say it with -s"):
        raise_of(generate("module", "triage"))


def raise_of(result: Result) -> None:
    assert result.exit_code == 1
    assert result.exception
    raise result.exception


def test_a_module_without_any_signature_is_refused(project: Path) -> None:
    with pytest.raises(
        DspyCliError, match=r"Triage has no signature yet: add -s .*`dspy-cli generate signature triage`"
    ):
        raise_of(generate("module", "triage"))


@pytest.mark.parametrize("part", ["scaffold", "signature", "module"])
def test_files_are_overwritten_by_force_only(project: Path, part: str) -> None:
    generated("scaffold", "triage", "-s", "ticket -> team")
    last = project / FILES[part][-1]
    last.write_text("# mine\n")

    with pytest.raises(Occupied, match=rf"{FILES[part][-1]} would be overwritten.*--force"):
        raise_of(generate(part, "triage", "-s", "ticket -> team"))
    assert last.read_text() == "# mine\n"
    generated(part, "triage", "-s", "ticket -> team", "--force")
    assert last.read_text() != "# mine\n"


def test_one_file_in_the_way_keeps_all_from_being_written(project: Path) -> None:
    (project / "tests/test_triage.py").write_text("# mine\n")

    assert isinstance(generate("scaffold", "triage").exception, Occupied)
    assert not (project / "src/demo/modules/triage.py").exists()


def test_the_project_is_found_from_inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project / "src/demo")

    assert generated("signature", "triage") == ["signatures/triage.py"]


def test_outside_a_project_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(
        NotAProject, match=r"not in a project: expected dspy.config.yaml .* dspy-cli new my-app"
    ):
        raise_of(generate("scaffold", "triage"))


@pytest.mark.parametrize(("packages", "found"), [([], "none"), (["a", "b"], "a, b")])
def test_a_project_has_to_have_one_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packages: Sequence[str], found: str
) -> None:
    (tmp_path / "dspy.config.yaml").touch()
    for package in packages:
        (tmp_path / "src" / package / "modules").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(NotAProject, match=rf"one package src/NAME/modules; found {found}\."):
        raise_of(generate("scaffold", "triage"))


@pytest.mark.parametrize("part", ["scaffold", "signature", "module", "gateway"])
@pytest.mark.parametrize("name", ["../x", "class", "1a", "a/b"])
def test_a_name_is_checked(project: Path, part: str, name: str) -> None:
    before = sorted(project.rglob("*"))

    assert isinstance(generate(part, name).exception, BadName)
    assert sorted(project.rglob("*")) == before


def test_a_wrong_signature_is_refused(project: Path) -> None:
    assert isinstance(generate("scaffold", "triage", "-s", "a -> b: Lit").exception, BadSignature)


# --- gateways -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "base"), [("api", "APIGateway"), ("cron", "CronGateway")])
def test_a_gateway_is_one_that_dspy_cli_takes_and_says_how_to_attach_it(
    project: Path, kind: str, base: str
) -> None:
    result = generate("gateway", "nightly", "--kind", kind)

    path = project / "src/demo/gateways/nightly.py"
    assert "  src/demo/gateways/nightly.py" in result.stdout
    assert "from demo.gateways.nightly import NightlyGateway" in result.stdout
    assert "gateway = NightlyGateway" in result.stdout
    scope: dict[str, object] = {"__name__": "nightly"}
    exec(compile(path.read_text(), path, "exec"), scope)  # which checks the declaration
    made = scope["NightlyGateway"]
    assert isinstance(made, type)
    assert [parent.__name__ for parent in made.__bases__] == [base]
    assert made()


@pytest.mark.parametrize("name", ["api", "Cron"])
def test_a_gateway_may_not_be_named_as_what_it_is_derived_from(project: Path, name: str) -> None:
    with pytest.raises(BadName, match=r"is dspy-cli's own\. Name what it is for"):
        raise_of(generate("gateway", name))


# --- help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [["new"], ["run"], ["generate"], *(["generate", part] for part in (*FILES, "gateway"))],
    ids=" ".join,
)
def test_help_has_examples(command: Sequence[str]) -> None:
    result = CliRunner().invoke(cli, [*command, "--help"])

    assert result.exit_code == 0
    assert f"dspy-cli {' '.join(command)}" in result.output.partition("Example")[2]


def test_help_imports_neither_dspy_nor_fastapi() -> None:
    code = (
        "import dspy_cli.cli, sys; print(*sorted({'dspy', 'fastapi', 'yaml', 'pydantic'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (done.stdout.strip(), done.stderr) == ("", "")
