"""What a check says: findings, facts, and the rules that made them, as data."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import libcst as cst

    from mkspy.check.program import Program

type Profile = Literal["candidate", "project"]
type Severity = Literal["error", "warning"]

BOTH: tuple[Profile, ...] = ("candidate", "project")
CANDIDATE: tuple[Profile, ...] = ("candidate",)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: which rule says so, where (from line 1, column 1), and what to do."""

    rule: str
    severity: Severity
    message: str
    line: int
    column: int
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Predictor:
    """A predictor as the source builds it; `inputs` and `outputs` are empty when they cannot be known."""

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What a program is made of, for metrics and reports; empty when the source could not be read.

    `model_calls` is how many times a run calls a predictor at most, `None` when a loop makes that depend on
    the data. A `ReAct` counts as its `max_iters` and one more.
    """

    predictors: tuple[Predictor, ...] = ()
    modules: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    model_calls: int | None = 0
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """The findings, in the order of the source, and the facts."""

    findings: tuple[Finding, ...] = ()
    facts: Facts = field(default_factory=Facts)

    @property
    def ok(self) -> bool:
        """Whether nothing of severity `error` was found."""
        return all(finding.severity != "error" for finding in self.findings)


class Found(NamedTuple):
    """What a rule yields: the node it is about, one sentence, what to do, and another severity."""

    node: "cst.CSTNode"
    message: str
    hint: str = ""
    severity: Severity | None = None


type Run = "Callable[[Program], Iterator[Found]]"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: what it is called, whom it holds for, and the function that looks for what breaks it.

    A rule without `run` belongs to a stage before the program is a tree: it is about the text or its bounds.
    """

    name: str
    family: str
    summary: str
    run: Run | None = None
    profiles: tuple[Profile, ...] = CANDIDATE
    severity: Severity = "error"
    example: str = ""
