"""`dspy-cli run`: one call of a signature, from the command line to the language model and back."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy_cli.errors import BadConfig, BadInput, BadModel, BadName, CannotAnswer, DspyCliError
from dspy_cli.project import adhoc, arguments
from dspy_cli.project.signature import parse
from openai_server import UNAUTHORIZED, Reply, Script
from scripted import chat, lm
from streamll.local import default_weights

COMMAND = Path(sys.executable).parent / "dspy-cli"


class Terminal:
    """A stdin that nobody has piped anything into."""

    def isatty(self) -> bool:
        return True

    def read(self) -> str:
        raise AssertionError("would wait for a person")


class Pipe:
    def __init__(self, text: str) -> None:
        self.text = text

    def isatty(self) -> bool:
        return False

    def read(self) -> str:
        return self.text


def given(signature: str, *words: str, stdin: Any = None) -> Mapping[str, object]:
    return arguments.inputs(parse(signature), words, stdin or Terminal())


# --- what goes in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("str", "5", "5"),
        ("str", "a=b", "a=b"),
        ("str", "", ""),
        ("str", "@@home", "@home"),
        ("int", "5", 5),
        ("float", "5", 5.0),
        ("bool", "true", True),
        ("bool", "False", False),
        ("list[str]", '["a"]', ["a"]),
        ("list[int]", "[1, 2]", [1, 2]),
        ("dict[str, int]", '{"a": 1}', {"a": 1}),
        ("tuple[int, str]", '[1, "a"]', (1, "a")),
        ("Optional[str]", "null", None),
        ("Optional[str]", "text", "text"),
        ("Optional[int]", "3", 3),
        ("int | str", "three", "three"),
        ("Literal['a', 3]", "a", "a"),
        ("Literal['a', 3]", "3", 3),
        ("Any", "[1]", [1]),
        ("Any", "text", "text"),
        ("date", "2026-01-31", arguments.datetime.date(2026, 1, 31)),
        ("time", "12:30", arguments.datetime.time(12, 30)),
        ("dspy.Image", "https://example.com/a.png", dspy.Image("https://example.com/a.png")),
        ("dspy.Code", "print(1)", dspy.Code(code="print(1)")),
    ],
)
def test_text_becomes_a_value_of_its_type(type_: str, text: str, value: object) -> None:
    found = given(f"a: {type_} -> b", f"a={text}")["a"]

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("type_", "text", "problem"),
    [
        ("int", "many", "a='many' is not int: Input should be a valid integer"),
        ("int", "1.5", "a='1.5' is not int: .*integer"),
        ("bool", "maybe", "a='maybe' is not bool: "),
        ("list[int]", '[1, "x"]', "is not list\\[int\\]: Input should be a valid integer"),
        ("list[str]", "a,b", "a='a,b' is not list\\[str\\]: Input should be a valid array"),
        ("Literal['a', 'b']", "c", "Input should be 'a' or 'b'"),
        ("date", "2026", "a='2026' is not date: "),
        ("date", "tomorrow", "a='tomorrow' is not date: "),
        ("dspy.Image", "/etc/passwd", "a='/etc/passwd' is not dspy.Image: "),
        ("str", "@none.txt", "No such file or directory; text that begins with @ is written a=@@none.txt"),
        ("dspy.Image", "@none.png", "No such file or directory"),
    ],
)
def test_a_value_of_another_type_is_refused_by_the_name_of_its_field(
    type_: str, text: str, problem: str
) -> None:
    with pytest.raises(BadInput, match=problem):
        given(f"a: {type_} -> b", f"a={text}")


def test_a_value_can_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Notes.\n")
    (tmp_path / "tags.json").write_text('["a"]')
    (tmp_path / "dot.gif").write_bytes(b"GIF89a")
    places = [
        f"{name}=@{tmp_path / file}"
        for name, file in zip("tgi", ("notes.txt", "tags.json", "dot.gif"), strict=True)
    ]

    found = given("t, g: list[str], i: dspy.Image -> b", *places)

    assert (found["t"], found["g"]) == ("Notes.\n", ["a"])
    assert isinstance(found["i"], dspy.Image)
    assert found["i"].url.startswith("data:image/gif;base64,")


def test_the_one_missing_input_comes_from_a_pipe() -> None:
    piped = given("text, n: int -> b", "n=1", stdin=Pipe("@home, sweet home\n"))

    assert piped == {"text": "@home, sweet home", "n": 1}


@pytest.mark.parametrize("stdin", [Terminal(), Pipe("")])
def test_a_missing_input_is_refused_with_the_whole_command(stdin: Any) -> None:
    with pytest.raises(BadInput) as refused:
        given("a, b -> c", "a=1", stdin=stdin)

    assert (
        str(refused.value)
        == """b: expected a value. For example: dspy-cli run 'a, b -> c' a="..." b="...\""""
    )


def test_two_missing_inputs_do_not_share_a_pipe() -> None:
    with pytest.raises(BadInput, match="a, b: expected a value"):
        given("a, b -> c", stdin=Pipe("text"))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["Paris"], "'Paris' is not name=value"),
        (["b=1"], "'b' is not an input; expected a"),
        (["a=1", "a=2"], "a is given twice"),
    ],
)
def test_a_word_that_is_no_input_is_refused(words: Sequence[str], problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        given("a -> c", *words)


# --- the call -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["Predict", "cot", "ChainOfThought"])
def test_a_signature_is_answered(strategy: str) -> None:
    signature = parse("text -> label: Literal['a', 'b'], score: float, due: date")
    script = lm(chat(reasoning="r", label="b", score="0.5", due="2026-01-31"))

    prediction = adhoc.answer(adhoc.program(signature, strategy), {"text": "t"}, script)

    assert adhoc.outputs(signature, prediction) == {"label": "b", "score": 0.5, "due": "2026-01-31"}


@pytest.mark.parametrize("strategy", ["ReAct", "Refine", "BestOfN", "MultiChainComparison"])
def test_a_strategy_that_needs_code_is_for_projects(strategy: str) -> None:
    with pytest.raises(
        BadName, match=rf"{strategy} needs more than a signature.*dspy-cli new my-app -m {strategy}"
    ):
        adhoc.program(parse("a -> b"), strategy)


@pytest.mark.parametrize(
    ("values", "as_json", "text"),
    [
        ({"a": "one\ntwo"}, False, "one\ntwo"),
        ({"a": ["é", 1]}, False, '["é", 1]'),
        ({"a": "x", "b": 0.5, "c": None}, False, "a: x\nb: 0.5\nc: null"),
        ({"a": "é"}, True, '{\n  "a": "é"\n}'),
    ],
)
def test_outputs_are_for_a_pipe(values: Any, as_json: bool, text: str) -> None:
    assert adhoc.printed(values, as_json=as_json) == text


def test_what_goes_wrong_is_one_line_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    error = dspy.lm15.RateLimitError("slow down\nsecond line")

    with pytest.raises(
        CannotAnswer, match=r"^LMRateLimitError: .*slow down.* Wait, or choose another"
    ) as failed:
        adhoc.answer(
            adhoc.program(parse("a -> b"), "Predict"), {"a": "x"}, lm(error, num_retries=0, model="local/m")
        )

    assert "\n" not in str(failed.value)


# --- which model --------------------------------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is in no project, and an environment without keys."""
    for name in ("DSPY_MODEL", "OPENAI_API_KEY", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def project(at: Path, default: str = "fast") -> Path:
    (at / "dspy.config.yaml").write_text(
        f"models:\n  default: {default}\n  registry:\n"
        "    fast: {model: openai/fast, env: OPENAI_API_KEY}\n    slow: {model: openai/slow}\n"
    )
    (at / ".env").write_text("OPENAI_API_KEY=from-dotenv\n")
    (at / "src/deep").mkdir(parents=True)
    return at / "src/deep"


def name_of(model: str | None, at: Path) -> str:
    return adhoc.lm(model, at).model


def test_the_model_is_the_one_named_else_the_projects_else_the_environments_else_local(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = f"local/{default_weights().stem}"
    assert name_of(None, nowhere) == local
    monkeypatch.setenv("DSPY_MODEL", "openai/from-environment")
    assert name_of(None, nowhere) == "openai/from-environment"
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    inside = project(nowhere)
    assert name_of(None, inside) == "openai/fast"
    assert name_of("slow", inside) == "openai/slow"
    assert name_of("openai/other", inside) == "openai/other"
    assert name_of("local", inside) == local
    assert name_of(str(default_weights()), inside) == local


def test_a_project_brings_its_keys(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "x")  # so that what is loaded is undone
    monkeypatch.delenv("OPENAI_API_KEY")

    name_of(None, project(nowhere))

    assert os.environ["OPENAI_API_KEY"] == "from-dotenv"


@pytest.mark.parametrize(
    ("model", "error"),
    [("gpt-5", BadModel), ("none.gguf", CannotAnswer), ("", None)],
)
def test_a_model_that_is_none_is_refused(nowhere: Path, model: str, error: type[DspyCliError] | None) -> None:
    if error is None:
        assert name_of(model, nowhere).startswith("local/")
    else:
        with pytest.raises(error):
            adhoc.lm(model, nowhere)


def test_a_broken_config_is_told(nowhere: Path) -> None:
    with pytest.raises(BadConfig, match=r"dspy.config.yaml:2"):
        adhoc.lm(None, project(nowhere, default="missing"))


def test_an_environment_that_is_no_text_is_told(nowhere: Path) -> None:
    deep = project(nowhere)
    (deep.parents[1] / ".env").write_bytes(b"KEY=\xff\n")

    with pytest.raises(BadConfig, match=r"\.env: cannot be read"):
        adhoc.lm(None, deep)


# --- as a user ----------------------------------------------------------------------------------------------


@pytest.fixture
def environ(tmp_path: Path) -> Mapping[str, str]:
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("DSPY_", "OPENAI_"))}
    return {**keep, "DSPY_CACHEDIR": str(tmp_path / "cache")}


def served(*replies: Reply | str) -> Mapping[str, str]:
    """Return the environment in which openai/scripted answers `replies`."""
    url = Script(*replies).url
    return {
        "OPENAI_API_BASE": url,
        "OPENAI_BASE_URL": url,
        "OPENAI_API_KEY": "x",
        "DSPY_MODEL": "openai/scripted",
    }


def command(
    *words: str, cwd: Path, env: Mapping[str, str], text: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "run", *words], cwd=cwd, env=env, input=text, capture_output=True, text=True, timeout=120
    )


def test_only_the_outputs_go_into_a_pipe(tmp_path: Path, environ: Mapping[str, str]) -> None:
    env = {**environ, **served(chat(reasoning="hm", answer="Paris", score="0.5"))}

    done = command("q -> answer, score: float", "q=?", "--strategy", "CoT", "--json", cwd=tmp_path, env=env)

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"answer": "Paris", "score": 0.5}


def test_a_pipe_goes_in_and_plain_text_comes_out_of_the_embedded_model(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    done = command("text -> mood: Literal['happy', 'sad']", cwd=tmp_path, env=environ, text="What a day!\n")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("happy\n", "sad\n")


def test_on_a_terminal_the_answer_is_watched_and_then_printed(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    env = {**environ, **served(chat(answer="Paris is the capital")), "TERM": "xterm-256color"}
    primary, terminal = pty.openpty()

    with subprocess.Popen(
        [COMMAND, "run", "q -> answer", "q=?"],
        cwd=tmp_path,
        env=env,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
    ) as running:
        os.close(terminal)
        watched = everything(primary)  # as it comes: who writes to a full terminal waits
        answer = running.stdout.read() if running.stdout else b""

    assert answer == b"Paris is the capital\n"
    assert "Predict" in watched
    assert "Paris is the capital" in watched


def everything(primary: int) -> str:
    """Return all that was written to a terminal, whose other side is closed."""
    found = b""
    try:
        while chunk := os.read(primary, 65536):
            found += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(primary)
    return found.decode()


def test_a_key_that_is_refused_is_one_line_and_debug_shows_the_rest(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    env = {**environ, **served(UNAUTHORIZED)}

    done = command("q -> answer", "q=?", cwd=tmp_path, env=env)
    debugged = command("q -> answer", "q=?", "--debug", cwd=tmp_path, env=env)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("dspy-cli: LMAuthError: ")
    assert done.stderr.endswith("Check the key.\n")
    assert done.stderr.count("\n") == 1
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr


def test_without_a_key_its_variable_is_named(tmp_path: Path, environ: Mapping[str, str]) -> None:
    done = command("q -> answer", "q=?", "-m", "openai/gpt-5-mini", cwd=tmp_path, env=environ)

    assert (done.returncode, done.stdout) == (1, "")
    assert "OPENAI_API_KEY is not set: export it, or put it into .env of your project." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_signature_is_refused_before_anything_slow_is_imported(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    done = command("q -> a: Lit", "q=?", cwd=tmp_path, env={**environ, "PYTHONPROFILEIMPORTTIME": "1"})

    assert done.returncode == 1
    assert "unknown type 'Lit'; did you mean Literal?" in done.stderr
    assert not any(line.split("|")[-1].strip() == "dspy" for line in done.stderr.splitlines())
