"""Let a language model write a richer program for a task; only what passes the gate comes back."""

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import dspy
import pydantic
from dspy.utils.exceptions import AdapterParseError

from mkspy.check import Report, check
from mkspy.generate import generate
from mkspy.spec import Task, dumps

ROUNDS = 3
_MAX_CHARACTERS = 100_000
_MAX_FENCES = 40
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*([^`\n]*?)[ \t]*")


@dataclass(frozen=True)
class Proposal:
    """A program, and how it came about.

    Attributes:
        source: What a model wrote, or the baseline when nothing it wrote passed.
        report: What the gate says about `source`.
        rounds: How often the model was asked.
        is_baseline: Whether `source` is what `generate` makes.
        refused: For each attempt that did not pass, what was wrong with it.
    """

    source: str
    report: Report
    rounds: int
    is_baseline: bool
    refused: tuple[tuple[str, ...], ...] = ()


def propose(task: Task, lm: dspy.LM, *, rounds: int = ROUNDS, asynchronous: bool = False) -> Proposal:
    """Return a program that `lm` wrote for `task` and that the gate lets through, or else the baseline.

    An attempt is read, never run. What is wrong with it is told to the model, at most `rounds` times.

    Args:
        task: The contract; the model is given the whole of it, and the baseline to improve on.
        lm: Who writes.
        rounds: At least 1.
        asynchronous: Passed on to `generate`.

    Raises:
        dspy.LMError: The model cannot be reached; unchanged.
        ValueError: `rounds` is less than 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; expected 1 or more")
    baseline = generate(task, asynchronous=asynchronous)
    with dspy.context(lm=lm):
        return cast("Proposal", Author(rounds)(task=task, baseline=baseline).proposal)


class Source(dspy.Code):
    """The source of a Python file.

    A reply is prose, code, or code in fences. `dspy.Code` takes the text up to the next fence, which cuts a
    program off that has one in a docstring.
    """

    @pydantic.model_validator(mode="before")
    @classmethod
    def validate_input(cls, data: object) -> object:
        """Take the code out of a reply."""
        given = cast("dict[str, object]", data).get("code") if isinstance(data, dict) else data
        return {"code": extract(given)} if isinstance(given, str) else cast("object", data)


class WriteProgram(dspy.Signature):
    """Write a DSPy program that does a task better than the baseline does, under the same contract.

    The file imports dspy, defines typed signatures and one main `dspy.Module`, and ends with
    `program = TheModule()`. `forward` takes the inputs of the task, typed as the baseline has them, and
    returns a `dspy.Prediction` with every output. Predictors are built in `__init__` and called with
    keywords. Say what is wanted in signatures: no prompt strings, no parsing of text, no loops without a
    bound. Only dspy, pydantic, typing, datetime and the task's own tools may be imported.

    Better is: the steps that a careful expert would take, each with a signature of its own. If the last
    attempt was refused, mend everything that was found, and nothing else.
    """

    task: str = dspy.InputField(desc="The specification of the task, in TOML.")
    baseline: Source = dspy.InputField(desc="A program that meets the contract.")
    attempt: Source | None = dspy.InputField(desc="The last attempt, if there was one.")
    findings: list[str] = dspy.InputField(desc="Why it was refused.")
    program: Source = dspy.OutputField(desc="The whole file.")


class Author(dspy.Module):
    """Asks for a program until one passes, at most `rounds` times."""

    def __init__(self, rounds: int = ROUNDS) -> None:
        super().__init__()
        self.rounds = rounds
        self.write = dspy.ChainOfThought(WriteProgram)

    def forward(self, task: Task, baseline: str) -> dspy.Prediction:
        """Return a Prediction whose `proposal` is a `Proposal`."""
        refused: list[tuple[str, ...]] = []
        attempt: str | None = None
        for number in range(self.rounds):
            source, findings = self._attempt(task, baseline, attempt, refused[-1] if refused else ())
            report = check(source, task) if source is not None else None
            if source is not None and report and report.ok:
                same = source == baseline
                return _prediction(Proposal(source, report, number + 1, same, tuple(refused)))
            refused.append(_said(report) if report else findings)
            attempt = source if source is not None else attempt
        report = check(baseline, task)
        return _prediction(Proposal(baseline, report, self.rounds, True, tuple(refused)))

    def _attempt(
        self, task: Task, baseline: str, attempt: str | None, findings: Sequence[str]
    ) -> tuple[str | None, tuple[str, ...]]:
        """Return what the model wrote, or why there is nothing."""
        try:
            written = self.write(
                task=dumps(task),
                baseline=Source(code=baseline),
                attempt=None if attempt is None else Source(code=attempt),
                findings=list(findings),
                # Nothing else differs between two rounds without code, and a cached reply would come back.
                config={"rollout_id": len(findings)} if findings else {},
            )
        except AdapterParseError as error:
            return None, (f"The reply had no field `program`: {str(error)[:300]}",)
        return _ended(cast("Source", written.program).code), ()


def extract(text: str) -> str:
    """Return the code in a model's reply: the longest part between fences that parses, or the text itself.

    A fence inside a docstring ends nothing when the code goes on to be valid behind it.
    """
    if len(text) > _MAX_CHARACTERS:
        return text
    if "dspy" in text and _parses(text):
        return text
    blocks = list(_blocks(text))
    valid = [block for block in blocks if _parses(block)]
    return max(valid, key=len) if valid else blocks[0] if blocks else text


def _blocks(text: str) -> Iterator[str]:
    """Yield what stands between a fence and each later one that may end it; the nearest first."""
    lines = text.splitlines()
    fences = [(at, found) for at, line in enumerate(lines) if (found := _FENCE.fullmatch(line))][:_MAX_FENCES]
    for number, (start, opening) in enumerate(fences):
        if opening[2] and not opening[2].lower().startswith("py"):
            continue
        ends = [at for at, found in fences[number + 1 :] if _ends(found, opening)]
        for end in ends or [len(lines)]:
            yield "\n".join(lines[start + 1 : end])


def _ends(fence: re.Match[str], opening: re.Match[str]) -> bool:
    return not fence[2] and fence[1][0] == opening[1][0] and len(fence[1]) >= len(opening[1])


def _parses(text: str) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):  # of "\d" and the like
            return bool(ast.parse(text).body)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False


def _ended(source: str) -> str:
    return source.strip("\n") + "\n"


def _said(report: Report) -> tuple[str, ...]:
    """Return the findings as sentences for the model."""
    return tuple(
        f"line {one.line}: {one.message} [{one.rule}] {one.hint}".rstrip() for one in report.findings
    )


def _prediction(proposal: Proposal) -> dspy.Prediction:
    return dspy.Prediction(proposal=proposal)
