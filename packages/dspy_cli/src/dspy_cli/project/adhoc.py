"""One call of a signature that is written in one line: `dspy-cli run "question -> answer" question=...`."""

import json
import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, cast

import dspy
import streamll
from pydantic import JsonValue
from streamll.errors import StreamllError
from streamll.sinks import TerminalSink

from dspy_cli.errors import BadName, CannotAnswer
from dspy_cli.project.arguments import python_type
from dspy_cli.project.config import FILE, Config, Model, Models, load, load_environment, make_lm
from dspy_cli.project.scaffold.models import key_variable
from dspy_cli.project.scaffold.models import model as model_named
from dspy_cli.project.scaffold.strategies import STRATEGIES, strategy
from dspy_cli.project.signature import Signature
from dspy_cli.project.values import jsonable

MODEL_VARIABLE = "DSPY_MODEL"
_FLUSH_SECONDS = 5


def program(signature: Signature, strategy_name: str) -> dspy.Module:
    """Return a module of DSPy that answers `signature`.

    Raises:
        BadName: There is no such strategy, or it needs more than a signature.
    """
    chosen = strategy(strategy_name)
    if chosen.template != "simple":
        simple = ", ".join(one.name for one in STRATEGIES.values() if one.template == "simple")
        raise BadName(
            f"{chosen.name} needs more than a signature; expected {simple}. For a project with it: "
            f"dspy-cli new my-app -m {chosen.name}"
        )
    fields = {field.name: (python_type(field.type), dspy.InputField()) for field in signature.inputs}
    fields |= {field.name: (python_type(field.type), dspy.OutputField()) for field in signature.outputs}
    return getattr(dspy, chosen.name)(cast("Callable[..., object]", dspy.Signature)(fields))


# --- who answers --------------------------------------------------------------------------------------------


def lm(model: str | None, start: Path) -> dspy.BaseLM:
    """Return a language model: an alias of the project at `start`, `provider/name`, `local`, or a GGUF file.

    Without one: the project's default, else what DSPY_MODEL names, else the model inside the process.

    Raises:
        DspyCliError: There is no such model, or it cannot be used as it is configured.
    """
    config = _config(start)
    name = model or config.models.default or os.environ.get(MODEL_VARIABLE) or "local"
    if name.endswith(".gguf"):
        return _gguf(name)
    if name not in config.models.registry:
        config = Config(models=Models(registry={name: Model(model=model_named(name).name)}))
    return make_lm(config, name)


def _config(start: Path) -> Config:
    for root in (start, *start.parents):
        if (root / FILE).is_file():
            load_environment(root)
            return load(root / FILE)
    return Config()


def _gguf(path: str) -> dspy.BaseLM:
    from streamll import local

    try:
        return local.lm(path)
    except StreamllError as error:
        raise CannotAnswer(str(error)) from error


# --- the call -----------------------------------------------------------------------------------------------


@contextmanager
def shown() -> Generator[None]:
    """Show what happens inside on the terminal, if there is one: on stderr, else on stdout.

    What libraries print is left out: LiteLLM asks for feedback on stdout whenever a call fails.
    """
    with ExitStack() as stack:
        if terminal := next((stream for stream in (sys.stderr, sys.stdout) if stream.isatty()), None):
            stack.enter_context(streamll.configure([TerminalSink(terminal)]))
            stack.callback(streamll.flush, _FLUSH_SECONDS)
        stack.enter_context(redirect_stdout(StringIO()))
        yield


def answer(made: dspy.Module, values: Mapping[str, object], model: dspy.BaseLM) -> object:
    """Return the prediction.

    Raises:
        CannotAnswer: The model or DSPy failed; the cause has the details.
    """
    try:
        with dspy.context(lm=model):
            return made(**values)
    except Exception as error:
        text = next((line.strip(" .") for line in str(error).splitlines() if line.strip()), "no message")
        raise CannotAnswer(f"{type(error).__name__}: {text:.300}.{_hint(error, model)}") from error


_HINTS = {
    "AdapterParseError": "The model did not keep to the format; choose a more capable one with -m.",
    "ContextWindowExceededError": "Shorten the input, or choose another model with -m.",
    "LMAuthError": "Check the key.",
    "LMBillingError": "Check the account.",
    "LMRateLimitError": "Wait, or choose another model with -m.",
    "LMServerError": "Try again, or choose another model with -m.",
    "LMTimeoutError": "Try again, or choose another model with -m.",
    "LMTransportError": "Check the network, and the address of the server.",
    "LMUnsupportedModelError": "Check the name of the model.",
}


def _hint(error: Exception, model: dspy.BaseLM) -> str:
    variable = key_variable(str(getattr(model, "model", "")))
    if variable and not os.environ.get(variable):
        return f" {variable} is not set: export it, or put it into .env of your project."
    kinds = [kind.__name__ for kind in type(error).__mro__]
    return next((f" {_HINTS[kind]}" for kind in kinds if kind in _HINTS), "")


# --- what comes out -----------------------------------------------------------------------------------------


def outputs(signature: Signature, prediction: object) -> Mapping[str, JsonValue]:
    """Return the outputs that the signature names, as JSON."""
    return {field.name: jsonable(cast("Any", prediction)[field.name]) for field in signature.outputs}


def printed(values: Mapping[str, JsonValue], *, as_json: bool) -> str:
    """Return the outputs for stdout: one alone as plain text, several as `name: value` lines."""
    if as_json:
        return json.dumps(values, ensure_ascii=False, indent=2)
    if len(values) == 1:
        return _plain(*values.values())
    return "\n".join(f"{name}: {_plain(value)}" for name, value in values.items())


def _plain(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
