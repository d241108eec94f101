"""Finding the programs of a project, a file or a module, whatever their code does."""

import os
import sys
from collections.abc import Generator
from pathlib import Path
from textwrap import dedent

import dspy
import pytest
from dspy_cli.errors import BadConfig, MissingKey, NothingToServe
from dspy_cli.project.config import ServerSettings
from dspy_cli.project.discover import Discovery, Failure, discover, traceback_of

ASK = """
import dspy

class Ask(dspy.Module):
    '''Ask.'''

    def __init__(self):
        super().__init__()
        self.answer = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str):
        return self.answer(question=question)
"""


@pytest.fixture(autouse=True)
def process() -> Generator[None]:
    """Undo what importing a project does to this process."""
    path, environ = list(sys.path), dict(os.environ)
    yield
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(environ)


class Project:
    """A project on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("src/demo/modules/__init__.py", "")
        self.write("src/demo/__init__.py", "")

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
        return file

    def module(self, name: str, text: str) -> Path:
        return self.write(f"src/demo/modules/{name}.py", text)

    def discover(self) -> Discovery:
        return discover(self.root)

    def failure(self) -> Failure:
        """Return the one failure there is."""
        (failure,) = self.discover().failures
        return failure


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def names(found: Discovery) -> list[str]:
    return [program.name for program in found.programs]


# --- What is found ------------------------------------------------------------------------------------------


def test_every_module_under_modules_is_a_program(project: Project) -> None:
    file = project.module("ask", ASK)
    project.module("deep/er/two", ASK.replace("Ask", "Two"))

    found = project.discover()

    assert names(found) == ["Ask", "Two"]
    assert (found.programs[0].description, found.programs[0].source) == ("Ask.", file)
    assert (found.root, found.package, found.failures) == (project.root, "demo", ())


def test_what_is_only_imported_is_not_served_again(project: Project) -> None:
    project.module("ask", f"{ASK}\nready = dspy.Predict('a -> b')\n")
    project.module(
        "other", "import dspy\nfrom demo.modules.ask import Ask, ready\nfrom dspy import Predict\n"
    )

    assert names(project.discover()) == ["Ask", "ready"]


def test_private_and_base_classes_are_not_programs(project: Project) -> None:
    project.module("_hidden", ASK)
    project.module("base", "import dspy\nclass Base(dspy.Module): ...\n")
    project.module(
        "kinds",
        """
        import dspy
        from demo.modules.base import Base
        class _Private(dspy.Module):
            def forward(self): ...
        class Real(Base):
            def forward(self): ...
        Alias = Real
        """,
    )

    found = project.discover()

    assert names(found) == ["Real"]
    assert found.failures == ()


def test_an_instance_is_served_instead_of_its_class(project: Project) -> None:
    project.module("ask", f"{ASK}\nquick = Ask()\n_draft = Ask()\n")

    assert names(project.discover()) == ["quick"]


def test_a_file_is_served_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "json.py"  # a name Python has already
    file.write_text(f"import json, helper\njson.dumps(1)\n{ASK}")
    (tmp_path / "helper.py").write_text("")

    found = discover(file)

    assert names(found) == ["Ask"]
    assert (found.root, found.package) == (tmp_path, None)


@pytest.mark.parametrize("target", ["demo.modules.ask:Ask", "src/demo/modules/ask.py:Ask"])
def test_one_class_is_served_by_its_name(
    project: Project, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    project.module("ask", f"{ASK}\nother = dspy.Predict('a -> b')\n")
    monkeypatch.chdir(project.root)

    found = discover(target)

    assert names(found) == ["Ask"]
    assert found.programs[0].source == project.root / "src/demo/modules/ask.py"


def test_a_module_that_is_installed_can_be_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "site" / "installed_asks.py"
    file.parent.mkdir()
    file.write_text(ASK)
    monkeypatch.syspath_prepend(file.parent)
    monkeypatch.chdir(tmp_path)

    (program,) = discover("installed_asks:Ask").programs

    assert program.source == file


def test_a_module_that_is_nowhere_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    (failure,) = discover("nowhere.asks:Ask").failures

    assert failure.error == "ModuleNotFoundError: No module named 'nowhere'"


def test_a_file_of_a_project_is_imported_as_part_of_it(project: Project) -> None:
    project.write("dspy.config.yaml", "server: {port: 9000}")
    project.write("src/demo/shared.py", "X = 1")
    file = project.module("ask", f"from ..shared import X\n{ASK}")

    found = discover(file)

    assert names(found) == ["Ask"]
    assert found.config.server == ServerSettings(port=9000)


def test_a_directory_inside_a_project_stands_for_it(project: Project) -> None:
    project.write("dspy.config.yaml", "")
    project.module("ask", ASK)

    assert names(discover(project.root / "src" / "demo")) == ["Ask"]


def test_a_project_inside_another_is_its_own(project: Project) -> None:
    project.write("../dspy.config.yaml", "app_id: outer")
    project.module("ask", ASK)

    assert (project.discover().root, project.discover().config.app_id) == (project.root, "")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere", "No file or directory 'nowhere'"),
        ("empty", r"expected src/<package>/modules/\*\.py"),
        ("ask.py:Aks", "There is no 'Aks' in .*Did you mean 'Ask'?"),
        ("ask.py:dspy", "expected a dspy.Module"),
        ("notes.txt", "is no Python file"),
        ("a b:c", "No file or directory 'a b:c'"),
    ],
)
def test_a_target_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "ask.py").write_text(ASK)
    (tmp_path / "notes.txt").write_text(ASK)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(NothingToServe, match=message):
        discover(target)


# --- What fails ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error", "line", "hint"),
    [
        ("x = 1\ndef f(:", "SyntaxError: invalid syntax", 2, "correct the line"),
        ("import nowhere.at.all", "ModuleNotFoundError: No module named 'nowhere'", 1, "uv add nowhere"),
        ("from demo import nothing", "ImportError: cannot import name 'nothing'", 1, "check"),
        (
            "import demo.gone",
            "ModuleNotFoundError: No module named 'demo.gone'",
            1,
            "no such file in src/demo",
        ),
        ("\n\n1 / 0", "ZeroDivisionError: division by zero", 3, "check --traceback"),
        ("import sys; sys.exit(3)", "it exits when it is imported: sys.exit(3)", 1, "__name__ == '__main__'"),
        ("import os; os.environ['NO_SUCH']", "KeyError: 'NO_SUCH'", 1, "set it in .env"),
        ("open('no.txt')", "FileNotFoundError: ", 1, "Path(__file__).parent"),
        ("raise RuntimeError('a\\nb')", "RuntimeError: a", 1, "check --traceback"),
        ("raise BaseExceptionGroup('g', [ValueError()])", "ExceptionGroup: g (1 sub-exception)", 1, "check"),
        ("class E(Exception):\n def __str__(self): return 1\nraise E", "E", 3, "check --traceback"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_file_that_fails_hides_no_other(
    project: Project, code: str, error: str, line: int, hint: str
) -> None:
    broken = project.module("a_broken", code)
    project.module("ask", ASK)

    found = project.discover()

    assert names(found) == ["Ask"]
    (failure,) = found.failures
    assert (failure.path, failure.line) == (broken, line)
    assert failure.error.startswith(error)
    assert "\n" not in failure.error
    assert hint in failure.hint


def test_an_error_in_an_imported_file_names_that_file(project: Project) -> None:
    project.write("src/demo/signatures/qa.py", "\nclass QA(")
    file = project.module("ask", "from demo.signatures.qa import QA")

    failure = project.failure()

    assert failure.path == file
    assert failure.error == "qa.py:2: SyntaxError: '(' was never closed"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("def __init__(self, db, *, k): ...", "Bad() needs db, k; give them defaults"),
        ("def __init__(self): raise RuntimeError('no')", "Bad: RuntimeError: no"),
        ("def __init__(self): raise SystemExit", "Bad: it exits when it is imported"),
        ("forward = None", "Bad has no `forward`"),
        ("def forward(self, log: print): ...", "the input 'log' is a"),
    ],
    ids=lambda value: value[:30],
)
def test_a_class_that_cannot_be_served_hides_no_other(project: Project, code: str, error: str) -> None:
    init = "" if "forward" in code else "\n    def forward(self): ..."
    project.module("ask", f"{ASK}\nclass Bad(dspy.Module):\n    {code}{init}\n")

    found = project.discover()

    assert names(found) == ["Ask"]
    assert found.failures[0].error.startswith(error)


def test_a_name_that_is_used_twice_is_refused_in_both_places(project: Project) -> None:
    first, second = project.module("a", ASK), project.module("sub/b", ASK)

    found = project.discover()

    assert found.programs == ()
    assert [(failure.path, failure.error) for failure in found.failures] == [
        (first, "the name 'Ask' is also in sub/b.py"),
        (second, "the name 'Ask' is also in ../a.py"),
    ]


def test_a_path_of_the_server_is_refused_as_a_name(project: Project) -> None:
    project.module("runs", ASK.replace("class Ask", "class runs"))

    assert project.failure().error == "the server needs /runs for itself; rename the program"


def test_a_package_that_is_named_like_an_installed_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "src/click/modules/ask.py"
    file.parent.mkdir(parents=True)
    file.write_text(ASK)

    found = discover(tmp_path)

    assert found.programs == ()
    assert found.failures[0].error.startswith("the name 'click' is taken by <module 'click' from ")


def test_a_traceback_begins_in_the_users_file(project: Project) -> None:
    file = project.module("ask", "def f():\n    raise ValueError('deep')\nf()\n")

    cause = project.failure().cause

    assert cause is not None
    lines = traceback_of(cause).splitlines()
    assert lines[1] == f'  File "{file}", line 3, in <module>'
    assert lines[-1] == "ValueError: deep"


def test_nothing_is_printed_about_a_failure(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    project.module("ask", "1 / 0")

    project.discover()

    assert capfd.readouterr() == ("", "")


# --- One project after another ------------------------------------------------------------------------------


def test_projects_with_packages_of_one_name_do_not_mix(tmp_path: Path) -> None:
    for name in ("One", "Two"):
        project = Project(tmp_path / name)
        project.write("src/demo/shared.py", f"NAME = {name!r}")
        project.module("ask", f"from demo.shared import NAME\n{ASK}\nAsk.__doc__ = NAME\n")

        assert project.discover().programs[0].description == name


def test_a_file_that_was_mended_is_imported_again(project: Project) -> None:
    project.module("ask", "1 / 0")
    assert project.discover().failures

    project.module("ask", ASK)

    assert names(project.discover()) == ["Ask"]
    assert names(project.discover()) == ["Ask"]


def test_what_is_installed_stays_imported(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    project.module("dspy", ASK)
    project.module("ask", "import colorsys")
    project.write("src/yaml.py", "")
    project.discover()
    before = {name: sys.modules[name] for name in ("dspy", "yaml", "colorsys")}

    project.discover()

    assert {name: sys.modules[name] for name in before} == before


# --- Models and the environment -----------------------------------------------------------------------------

CONFIG = """
models:
  default: small
  registry:
    small: {model: openai/small}
    big: {model: openai/big, env: DISCOVER_KEY}
program_models: {Ask: big}
"""


def test_a_program_runs_on_the_model_of_the_config(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCOVER_KEY", "sk-1")
    project.write("dspy.config.yaml", CONFIG)
    project.module("ask", f"{ASK}\nclass Two(Ask): ...\nclass Three(Ask): ...\n")

    ask, two, three = project.discover().programs

    assert (ask.model, two.model) == ("openai/big", "openai/small")
    assert isinstance(ask.lm, dspy.LM)
    assert two.lm is three.lm


def test_dotenv_is_loaded_but_the_environment_wins(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCOVER_BOTH", "environment")
    monkeypatch.delenv("DISCOVER_KEY", raising=False)
    project.write(".env", "DISCOVER_KEY=sk-file\nDISCOVER_BOTH=file\n")
    project.write("dspy.config.yaml", CONFIG)
    project.module("ask", ASK)

    (program,) = project.discover().programs

    assert isinstance(program.lm, dspy.LM)
    assert program.lm.kwargs["api_key"] == "sk-file"
    assert os.environ["DISCOVER_BOTH"] == "environment"


async def test_without_its_key_a_program_is_served_and_its_runs_say_which(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISCOVER_KEY", raising=False)
    config = project.write("dspy.config.yaml", CONFIG)
    project.module("ask", ASK)

    found = project.discover()

    (program,), (failure,) = found.programs, found.failures
    assert (failure.path, program.model) == (config, "openai/big")
    assert "DISCOVER_KEY is not set" in failure.error
    with dspy.context(lm=program.lm):
        with pytest.raises(MissingKey, match="DISCOVER_KEY"):
            program.module(question="why?")
        with pytest.raises(MissingKey, match="DISCOVER_KEY"):
            await dspy.Predict("question -> answer").acall(question="why?")


def test_without_a_config_the_model_is_left_to_dspy(project: Project) -> None:
    project.module("ask", ASK)

    (program,) = project.discover().programs

    assert (program.lm, program.model) == (None, "")


def test_a_config_that_cannot_be_used_is_an_error(project: Project) -> None:
    project.write("dspy.config.yaml", "zebra: 1")
    project.module("ask", ASK)

    with pytest.raises(BadConfig, match="zebra"):
        project.discover()


def test_a_wrong_gateway_fails_its_file(project: Project) -> None:
    project.module("ask", f"{ASK}\nAsk.gateway = 'nothing'\n")

    assert "`gateway` is 'nothing'" in project.failure().error


def test_an_environment_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"KEY=\xff\n")

    with pytest.raises(BadConfig, match=r"\.env: cannot be read"):
        Project(tmp_path).discover()
