"""`dspy.config.yaml`: what it means, and how it is refused."""

import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import dspy
import pytest
import yaml
from dspy_cli.errors import BadConfig, BadSetting, MissingKey
from dspy_cli.project.config import Config, ServerSettings, event_log, load, make_lm, missing_key
from hypothesis import given
from hypothesis import strategies as st

WHOLE = """\
app_id: demo
models:
  default: local
  registry:
    local: {model: local}
    "openai:gpt-5-mini":
      model: openai/gpt-5-mini
      env: DEMO_KEY
      max_tokens: 16000
      temperature: 1.0
      model_type: chat
      num_retries: 5
      cache: false
      api_base: https://llm.example/v1
      top_p: 0.5
program_models: {Triage: "openai:gpt-5-mini"}
server: {host: 0.0.0.0, port: 9000, timeout_seconds: null, allowed_hosts: [a.example, b.example]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "dspy.config.yaml"


def problems(file: Path, text: str) -> tuple[str, ...]:
    file.write_text(text)
    with pytest.raises(BadConfig) as caught:
        load(file)
    return caught.value.problems


def found(file: Path) -> tuple[str, ...]:
    """Return what is wrong with `file`, nothing if it is a config."""
    try:
        load(file)
    except BadConfig as error:
        return error.problems
    return ()


def test_a_file_says_which_model_runs_a_program(file: Path) -> None:
    file.write_text(WHOLE)

    config = load(file)

    assert config.app_id == "demo"
    assert config.alias("Triage") == "openai:gpt-5-mini"
    assert config.alias("Other") == "local"
    assert config.path == file


def test_the_server_section_becomes_frozen_settings(file: Path) -> None:
    file.write_text(WHOLE)

    server = load(file).server

    assert (server.host, server.port, server.timeout_seconds) == ("0.0.0.0", 9000, None)
    assert server.allowed_hosts == ("a.example", "b.example")
    assert server.concurrency == ServerSettings().concurrency
    with pytest.raises(FrozenInstanceError):
        server.port = 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "models:\n  registry:\nserver:\nprogram_models:\n"])
def test_what_is_left_empty_has_its_default(file: Path, text: str) -> None:
    file.write_text(text)

    assert load(file).model_dump() == Config().model_dump()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "models:\n  registry:\n    fast:\n      model: x\n      temperature: hot\n",
            "5:7: models.registry.fast.temperature: expected a number, got 'hot'",
        ),
        ("app_id: 12\n", "1:1: app_id: expected text (put it in quotes), got 12"),
        ("server: {port: 80.5}\n", "1:10: server.port: expected a whole number, got 80.5"),
        ("server: {port: '80'}\n", "1:10: server.port: expected a whole number, got '80'"),
        ("server: {port: 70000}\n", "1:10: server.port: expected 65535 or less, got 70000"),
        ("server: {concurrency: 0}\n", "1:10: server.concurrency: expected 1 or more, got 0"),
        (
            "server: {timeout_seconds: 0}\n",
            "1:10: server.timeout_seconds: expected more than 0, got 0",
        ),
        ("server: {debug: 1}\n", "1:10: server.debug: expected true or false, got 1"),
        ("server: {allowed_hosts: a}\n", "1:10: server.allowed_hosts: expected a list, got 'a'"),
        (
            "server: {allowed_hosts: [a, 2]}\n",
            "1:29: server.allowed_hosts.1: expected text (put it in quotes), got 2",
        ),
        ("server: 8000\n", "1:1: server: expected a mapping, got 8000"),
        ("models: {registry: [a]}\n", "1:10: models.registry: expected a mapping, got ['a']"),
        ("models: {registry: {a: x}}\n", "1:21: models.registry.a: expected a mapping, got 'x'"),
        ("models: {registry: {a: {}}}\n", "1:21: models.registry.a.model: is missing"),
        (
            "models: {registry: {a: {model: x, model_type: chatty}}}\n",
            "1:35: models.registry.a.model_type: expected 'chat', 'text' or 'responses', got 'chatty'",
        ),
        ("app: x\n", "1:1: app: unknown key; did you mean 'app_id'?"),
        ("server: {prot: 1}\n", "1:10: server.prot: unknown key; did you mean 'port'?"),
        (
            "models: {registry: {a: {model: x}}, registy: 1}\n",
            "1:37: models.registy: unknown key; did you mean 'registry'?",
        ),
        ("models: {defualt: x}\n", "1:10: models.defualt: unknown key; did you mean 'default'?"),
        (
            "models: {registry: {a: {model: x, temprature: 1}}}\n",
            "1:35: models.registry.a.temprature: unknown key; did you mean 'temperature'?",
        ),
        (
            "models: {default: fsat, registry: {fast: {model: x}}}\n",
            "1:10: models.default: no model 'fsat' in models.registry; did you mean 'fast'?",
        ),
        (
            "program_models:\n  Triage: big\n",
            "2:3: program_models.Triage: no model 'big' in models.registry; it has: nothing",
        ),
    ],
)
def test_an_error_names_file_line_column_and_key(file: Path, text: str, expected: str) -> None:
    assert problems(file, text) == (f"dspy.config.yaml:{expected}",)


def test_an_unknown_key_that_resembles_none_lists_the_known_ones(file: Path) -> None:
    (problem,) = problems(file, "zebra: 1\n")

    assert problem.endswith("unknown key; known: app_id, description, models, program_models, server")


def test_all_errors_are_told_at_once(file: Path) -> None:
    told = problems(file, "app_id: 1\nserver: {port: x, queue: -1}\nzebra: 1\n")

    assert [problem.split(":")[1] for problem in told] == ["1", "2", "2", "3"]


@pytest.mark.parametrize("name", ["api_key", "apikey", "API-Key", "token", "password"])
def test_a_key_in_the_file_is_refused_and_not_repeated(file: Path, name: str) -> None:
    (problem,) = problems(file, f"models:\n  registry:\n    a:\n      model: x\n      {name}: sk-123\n")

    assert problem.startswith(
        f"dspy.config.yaml:5:7: models.registry.a.{name}: keys come from the environment"
    )
    assert "sk-123" not in problem


def test_a_key_given_as_the_name_of_its_variable_is_not_repeated(file: Path) -> None:
    (problem,) = problems(file, "models: {registry: {a: {model: x, env: sk-123}}}\n")

    assert problem.endswith("expected the name of an environment variable, like OPENAI_API_KEY")


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("a: 1\na: 2\n", "2:1", "'a' is given twice, first in line 1"),
        ("models: {default: a, default: b}\n", "1:22", "'default' is given twice, first in line 1"),
        ("models: [1\nserver: 2\n", "2:7", "not YAML: while parsing a flow sequence"),
        (
            "app_id: !!python/object/apply:os.getcwd []\n",
            "1:9",
            "not YAML: could not determine a constructor",
        ),
        ("a: 1\n---\nb: 2\n", "2:1", "not YAML: expected a single document"),
        ("app_id: *nobody\n", "1:9", "not YAML: found undefined alias"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_place(file: Path, text: str, place: str, what: str) -> None:
    (problem,) = problems(file, text)

    assert problem.startswith(f"dspy.config.yaml:{place}: {what}")


def test_a_file_that_is_no_text_is_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(BadConfig, match=r"dspy\.config\.yaml: cannot be read"):
        load(file)


def test_values_that_are_nested_too_deeply_are_refused(file: Path) -> None:
    assert problems(file, "a: " + "[" * 5000) == (
        "dspy.config.yaml: cannot be read: its values are nested too deeply",
    )


@pytest.mark.parametrize("url", ["nonsense:", "http://x", "sqlite:///", "redis://[x", ""])
def test_a_url_that_names_no_place_for_events_is_refused(url: str) -> None:
    with pytest.raises(BadSetting, match=r"server\.events"):
        event_log(ServerSettings(events=url))


def test_a_value_that_contains_itself_is_refused(file: Path) -> None:
    assert problems(file, "models: &m {registry: *m}\n")


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["models", "registry", "default", "server", "port", "model", "env"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(data=_values)
def test_any_document_is_a_config_or_a_bad_config(
    data: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")

    assert all(problem.startswith("any.yaml") for problem in found(file))


@given(text=st.text())
def test_any_text_is_a_config_or_a_bad_config(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))

    assert all(problem.startswith("any.yaml") for problem in found(file))


def test_a_model_has_its_options_and_the_key_of_its_variable(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(WHOLE)
    monkeypatch.setenv("DEMO_KEY", "sk-from-env")

    lm = make_lm(load(file), "openai:gpt-5-mini")

    assert isinstance(lm, dspy.LM)
    assert (lm.model, lm.model_type, lm.num_retries, lm.cache) == ("openai/gpt-5-mini", "chat", 5, False)
    assert lm.kwargs["api_key"] == "sk-from-env"
    assert lm.kwargs["api_base"] == "https://llm.example/v1"
    assert lm.kwargs["top_p"] == 0.5


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_key_is_told_by_the_name_of_its_variable(
    file: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    file.write_text(WHOLE)
    monkeypatch.delenv("DEMO_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("DEMO_KEY", value)
    config = load(file)

    with pytest.raises(MissingKey, match=r"^dspy\.config\.yaml:8:7: .*DEMO_KEY is not set; put it in \.env"):
        make_lm(config, "openai:gpt-5-mini")
    assert missing_key(config, "local") is None


def test_an_unknown_model_is_refused_with_the_nearest(file: Path) -> None:
    file.write_text(WHOLE)

    with pytest.raises(BadConfig, match=r"no model 'locl' in models\.registry; did you mean 'local'"):
        make_lm(load(file), "locl")


def test_what_dspy_refuses_is_told_with_its_place(file: Path) -> None:
    file.write_text("models: {registry: {a: {model: openai/}}}\n")

    with pytest.raises(
        BadConfig, match=r"^dspy\.config\.yaml:1:21: models\.registry\.a: dspy\.LM refused it: "
    ):
        make_lm(load(file), "a")


def test_the_local_model_takes_options_too(file: Path) -> None:
    pytest.importorskip("xllamacpp")
    file.write_text("models: {registry: {a: {model: local, max_tokens: 7}}}\n")

    lm = make_lm(load(file), "a")

    assert lm.model.startswith("local/")
    assert lm.kwargs["max_tokens"] == 7


def test_a_local_model_without_its_runtime_says_what_to_install(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    file.write_text("models: {registry: {a: {model: local}}}\n")

    with pytest.raises(MissingKey, match=r"dspy-cli\[local\]"):
        make_lm(load(file), "a")


def test_a_local_model_without_weights_says_where_it_looked(file: Path) -> None:
    pytest.importorskip("xllamacpp")
    file.write_text("models: {registry: {a: {model: local, path: /no/such.gguf}}}\n")

    with pytest.raises(MissingKey, match=r"No model file at '/no/such\.gguf'"):
        make_lm(load(file), "a")
