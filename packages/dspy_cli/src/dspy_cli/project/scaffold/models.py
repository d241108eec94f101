"""Which language model a project begins with, and the key it needs."""

import re
from typing import NamedTuple

from dspy_cli.errors import BadModel


class Model(NamedTuple):
    """A language model; `env` is the variable that holds its key, "" if it needs none."""

    alias: str
    name: str
    env: str


LOCAL = Model("local", "local", "")
"""The model inside the process."""

_NAME = re.compile(r"[a-z][a-z0-9_]*(?:/[A-Za-z0-9][\w.:@-]*)+", re.ASCII)
_KEYS = {
    "gemini": "GEMINI_API_KEY",
    "huggingface": "HF_TOKEN",
    "together_ai": "TOGETHERAI_API_KEY",
    "voyage": "VOYAGE_API_KEY",
    **dict.fromkeys(
        ("bedrock", "hosted_vllm", "local", "lm_studio", "ollama", "ollama_chat", "vertex_ai"), ""
    ),
}


def model(text: str | None) -> Model:
    """Return the model that `text` names: `provider/name` as LiteLLM spells it, or `local` (also for None).

    Raises:
        BadModel: It names none.
    """
    if text in (None, "local"):
        return LOCAL
    if not _NAME.fullmatch(text):
        raise BadModel(
            f"{text!r:.80} names no model: expected provider/name, such as openai/gpt-5-mini, or local for "
            f"the model inside the process.{_guess(text)}"
        )
    return Model(text.replace("/", ":", 1), text, key_variable(text))


def key_variable(model: str) -> str:
    """Return the environment variable that holds the key of `provider/name`, "" if it needs none."""
    provider, has_provider, _ = model.partition("/")
    return _KEYS.get(provider, f"{provider.upper()}_API_KEY") if has_provider else ""


def _guess(text: str) -> str:
    guessed = re.sub(r"\s", "", text.replace(":", "/", 1))
    if "/" not in guessed:
        guessed = ("anthropic/" if guessed.startswith("claude") else "openai/") + guessed
    return f" Did you mean {guessed}?" if _NAME.fullmatch(guessed) else ""
