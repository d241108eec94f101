"""The ways a program can come to its answer, and what each needs to be written."""

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dspy_cli.errors import BadName

_REWARDED = ("attempt", "N=3", "reward_fn=reward", "threshold=1.0")
_REASONS = frozenset({"reasoning"})


class Strategy(NamedTuple):
    """A module of DSPy.

    Args:
        name: As DSPy calls it.
        arguments: What it is made with.
        template: The file that shows how it is built.
        reserved: Fields that it has itself; a signature may not.
        note: Told to who chooses it.
    """

    name: str
    arguments: Sequence[str] = ("{signature}",)
    template: str = "simple"
    reserved: frozenset[str] = _REASONS
    note: str = ""


_STRATEGIES = (
    Strategy("Predict", reserved=frozenset()),
    Strategy("ChainOfThought"),
    Strategy(
        "ReAct",
        arguments=("{signature}", "tools=[look_up]", "max_iters=5"),
        template="react",
        reserved=_REASONS | {"max_iters", "next_thought", "next_tool_args", "next_tool_name", "trajectory"},
    ),
    Strategy(
        "ProgramOfThought",
        reserved=_REASONS
        | {"code_output", "error", "final_generated_code", "generated_code", "interpreter", "previous_code"},
        note="ProgramOfThought needs Deno, where it runs what the model writes; DSPy 3.5 drops it.",
    ),
    Strategy("Refine", arguments=_REWARDED, template="reward"),
    Strategy("BestOfN", arguments=_REWARDED, template="reward"),
    Strategy(
        "MultiChainComparison",
        arguments=("{signature}", "M=ATTEMPTS"),
        template="comparison",
        reserved=_REASONS | {"completions", "rationale"},
    ),
)

STRATEGIES: Mapping[str, Strategy] = {strategy.name: strategy for strategy in _STRATEGIES}

_SHORT = {"cot": "ChainOfThought", "pot": "ProgramOfThought", "mcc": "MultiChainComparison", "bon": "BestOfN"}
_BY_LOWER = {name.lower(): name for name in STRATEGIES} | _SHORT


def strategy(text: str) -> Strategy:
    """Return the strategy that `text` names; case does not matter, and CoT is short for ChainOfThought.

    Raises:
        BadName: It names none.
    """
    key = text.lower().replace("-", "").replace("_", "")
    if key in _BY_LOWER:
        return STRATEGIES[_BY_LOWER[key]]
    close = difflib.get_close_matches(key, _BY_LOWER, 1)
    meant = f" Did you mean {_BY_LOWER[close[0]]}?" if close else ""
    raise BadName(
        f"{text!r:.80} is not a strategy: expected one of {', '.join(STRATEGIES)} (or CoT, PoT).{meant}"
    )
