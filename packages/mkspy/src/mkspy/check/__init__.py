"""Read a DSPy program without running it: what is wrong with it, and what it is made of.

`check` reads with LibCST, never imports or executes what it reads, and does not import dspy. It is a gate and
not a boundary: what passes must still run in a confined process, if you do not trust who wrote it.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from mkspy.check import (
    alignment,
    allowed,
    bounds,
    causes,
    constructions,
    flow,
    formats,
    guards,
    module_rules,
    resources,
    semantics,
    signature_rules,
    structure,
    style,
    text,
)
from mkspy.check.facts import facts_of
from mkspy.check.formats import Format, Reports
from mkspy.check.program import Program
from mkspy.check.report import BOTH, Facts, Finding, Found, Predictor, Profile, Report, Rule, Severity
from mkspy.check.tree import Entangled, Tree

if TYPE_CHECKING:
    from mkspy.spec import Task

__all__ = [
    "RULES",
    "Facts",
    "Finding",
    "Format",
    "Predictor",
    "Profile",
    "Report",
    "Rule",
    "Severity",
    "check",
    "render",
]

_OWN = (
    Rule(
        "internal-error",
        "bounds",
        "The gate itself did not fail; when it does, nothing passes.",
        profiles=BOTH,
    ),
)
_FAMILIES = (
    *(text, bounds, structure, allowed, signature_rules, semantics, constructions, module_rules, flow),
    *(alignment, style, resources),
)

RULES: tuple[Rule, ...] = (*(rule for family in _FAMILIES for rule in family.RULES), *_OWN)
"""Every rule, in the order in which they are applied."""

_QUIET = threading.Lock()
"""`catch_warnings` of two threads would undo each other."""


def check(source: str | bytes, spec: "Task | None" = None, *, profile: Profile = "candidate") -> Report:
    """Return what is wrong with a program, and what it is made of, without importing or running it.

    Never raises: a source that cannot be read, and a mistake of the gate itself, are findings.

    Args:
        source: The text of one file; bytes are read as UTF-8.
        spec: The task the program is for: its inputs, outputs and tools are then held against it.
        profile: `candidate` for generated code, which may only do what is on a list; `project` for a
            developer's own file in any style, of which only the structure and the use of DSPy are judged.
    """
    try:
        with _QUIET, warnings.catch_warnings(action="ignore"):  # the compiler warns about what it reads
            return _check(source, spec, profile)
    except (Entangled, RecursionError):
        return Report((_too_many(_ENTANGLED),))
    except Exception as error:  # noqa: BLE001 - what the gate did not foresee must refuse, not pass or raise
        return Report((_internal(error),))


def render(reports: Reports, form: Format = "text") -> str:
    """Return reports, by the path of their source ("-" is stdin), as text, json, sarif or github lines."""
    return formats.render(reports, form, RULES)


def _internal(error: BaseException) -> Finding:
    where = error.__traceback__
    while where and where.tb_next:
        where = where.tb_next
    line = f" at {where.tb_frame.f_code.co_name}:{where.tb_lineno}" if where else ""
    message = f"the gate failed: {type(error).__name__}{line}"  # not its text, which may quote a whole tree
    return Finding("internal-error", "error", message, 1, 1, "simplify the program, and report this to mkspy")


def _check(source: str | bytes, spec: "Task | None", profile: Profile) -> Report:
    read, broken = text.decode(source)
    early = [broken] if broken else list(text.examine(read, profile))
    if any(one.rule in _UNREADABLE for one in early):
        return Report(tuple(text.finding(read, one) for one in early), Facts(lines=_lines(read)))
    read = read.removeprefix("\ufeff") if profile == "project" else read
    broken, shape = bounds.examine(read, profile)
    module = broken or bounds.parsed(read)
    if isinstance(module, text.Broken):
        return Report(tuple(text.finding(read, one) for one in (*early, module)), Facts(lines=_lines(read)))
    tree = Tree(module)
    if profile == "candidate":
        early += [*text.names(read), *bounds.compare(shape, tree)]
    program = Program(tree, profile, spec)
    findings = [*(text.finding(read, one) for one in early), *_examine(program, profile)]
    try:
        facts = facts_of(program, _lines(read))
    except (Entangled, RecursionError):
        facts, findings = Facts(lines=_lines(read)), [*findings, _too_many(_ENTANGLED)]
    return Report(tuple(sorted(dict.fromkeys(findings), key=_place)), facts)


_UNREADABLE = ("not-text", "too-long")


def _place(one: Finding) -> tuple[int, int]:
    return one.line, one.column


def _lines(read: str) -> int:
    return len(read.splitlines())


_MOST = 200
_ENTANGLED = "the parts hang together in more ways than can be followed"


def _too_many(message: str) -> Finding:
    return Finding("too-many", "error", message, 1, 1, "write several smaller functions, or files")


def _examine(program: Program, profile: Profile) -> Iterator[Finding]:
    found: causes.Pairs = []
    for rule in (one for one in RULES if profile in one.profiles and one.run):
        try:
            found += ((rule, one) for one in islice(_run(rule, program), _MOST - len(found)))
        except (Entangled, RecursionError):
            yield _too_many(_ENTANGLED)
    if len(found) == _MOST:
        yield _too_many(f"there are {_MOST} findings or more, of which the first are told")
    if found:
        yield from _told(program, found)


def _run(rule: Rule, program: Program) -> Iterator[Found]:
    yield from rule.run(program) if rule.run else ()


def _told(program: Program, found: causes.Pairs) -> Iterator[Finding]:
    """Yield each mistake once, with its place, unless the program expects it."""
    program.tree.steps = 0  # what was found is told, however long it took
    with suppress(Entangled):
        found = [(rule, one) for rule, one in found if not guards.expects_failure(program, one.node)]
        found = causes.without_echoes(program.tree, found)
    places = program.tree.positions([one.node for _, one in found])
    for (rule, one), (line, column) in zip(found, places, strict=True):
        yield Finding(rule.name, one.severity or rule.severity, one.message, line, column, one.hint)
