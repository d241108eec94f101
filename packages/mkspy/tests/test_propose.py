"""A model may write the program; only what passes the gate comes back."""

import json

import dspy
import pytest
from mkspy import library
from mkspy.check import check
from mkspy.generate import generate
from mkspy.propose import extract, propose
from scripted import chat, lm

TASK = library.get("triage")
BASELINE = generate(TASK)
BETTER = BASELINE.replace("dspy.Predict(", "dspy.ChainOfThought(").replace('"""', '"""Think first. ', 1)
BAD = BETTER.replace("import dspy\n", "import dspy\nimport os\n")


def wrote(source: str) -> str:
    return chat(reasoning="Here it is.", program=f"```python\n{source}```")


def prompts(model: dspy.LM) -> list[str]:
    return [json.dumps(call["messages"], default=str) for call in model.history]


def test_what_passes_the_gate_comes_back() -> None:
    proposal = propose(TASK, lm(wrote(BETTER)))

    assert (proposal.source, proposal.rounds, proposal.is_baseline) == (BETTER, 1, False)
    assert proposal.report.findings == check(BETTER, TASK).findings == ()


def test_findings_are_fed_back_with_the_attempt() -> None:
    model = lm(wrote(BAD), wrote(BETTER))

    proposal = propose(TASK, model)

    assert (proposal.source, proposal.rounds) == (BETTER, 2)
    assert "`os`" in proposal.refused[0][0]
    first, second = prompts(model)
    assert "import os" not in first
    assert "import os" in second
    assert "may not be imported" in second


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_when_none_passes_the_baseline_comes_back_and_says_so(rounds: int) -> None:
    model = lm(wrote(BAD))

    proposal = propose(TASK, model, rounds=rounds)

    assert (proposal.source, proposal.is_baseline, proposal.rounds) == (BASELINE, True, rounds)
    assert len(proposal.refused) == rounds
    assert proposal.report.ok


def test_a_reply_without_a_program_is_a_round_that_failed() -> None:
    proposal = propose(TASK, lm("I would rather not.", "No.", wrote(BETTER)), rounds=2)

    assert proposal.source == BETTER
    assert "`program`" in proposal.refused[0][0]


def test_a_program_for_another_contract_does_not_pass() -> None:
    other = BETTER.replace("urgent", "important")

    assert propose(TASK, lm(wrote(other)), rounds=1).is_baseline


def test_what_a_model_writes_is_never_run(tmp_path: object) -> None:
    armed = BETTER + "\nraise SystemExit('it ran')\n"

    assert propose(TASK, lm(wrote(armed)), rounds=1).is_baseline


def test_a_model_that_repeats_the_baseline_has_proposed_nothing() -> None:
    proposal = propose(TASK, lm(wrote(BASELINE)))

    assert (proposal.is_baseline, proposal.refused) == (True, ())


def test_a_model_that_fails_is_an_error() -> None:
    with pytest.raises(dspy.utils.exceptions.LMError):
        propose(TASK, lm(dspy.lm15.AuthError("no key")), rounds=1)


def test_rounds_begin_at_one() -> None:
    with pytest.raises(ValueError, match="rounds is 0"):
        propose(TASK, lm("x"), rounds=0)


CODE = "import dspy\n\nx = 1\n"
FENCED = 'import dspy\n\n"""\n```\nnot the end\n```\n"""\nx = 1\n'

REPLIES: dict[str, tuple[str, str]] = {
    "code alone": (CODE, CODE),
    "in a fence": (f"```python\n{CODE}```", CODE),
    "py": (f"```py\n{CODE}```", CODE),
    "a fence without a language": (f"```\n{CODE}```", CODE),
    "tildes": (f"~~~python\n{CODE}~~~", CODE),
    "longer fences": (f"````python\n{CODE}````", CODE),
    "prose around": (f"Sure!\n\n```python\n{CODE}```\n\nIt works.", CODE),
    "no end": (f"Here:\n```python\n{CODE}", CODE),
    "a small example first": (f"Like `x`:\n```python\nx\n```\nin full:\n```python\n{CODE}```", CODE),
    "another language first": (f"```bash\npip install dspy\n```\n```python\n{CODE}```", CODE),
    "a fence in a docstring": (f"```python\n{FENCED}```", FENCED),
    "a fence in a docstring, alone": (FENCED, FENCED),
    "line ends of Windows": (f"```python\r\n{CODE}```\r\n".replace("\n", "\r\n"), CODE),
    "nothing that parses": ("```python\nx = = 1\n```", "x = = 1"),
    "no code": ("I would rather not.", "I would rather not."),
}


@pytest.mark.parametrize("case", REPLIES)
def test_the_code_is_taken_out_of_a_reply(case: str) -> None:
    reply, code = REPLIES[case]

    assert extract(reply).strip() == code.strip()


@pytest.mark.parametrize("part", ["```\n", "(", "`", "```python\ndspy(\n", ""])
def test_a_hostile_reply_is_read_too(part: str) -> None:
    for number in (5_000, 50_000):
        assert isinstance(extract(part * number), str)
