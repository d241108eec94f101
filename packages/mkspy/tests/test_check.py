"""The gate refuses what it does not know, accepts ordinary programs, and never raises, imports or runs."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus_runs import CORPUS, expected, run, sources
from hypothesis import given, settings
from hypothesis import strategies as st
from mkspy.check import RULES, Finding, Profile, check

_BASE = '''"""Answer a question."""

import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)

    def forward(self, question: str) -> dspy.Prediction:
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
'''


def _profile(path: Path) -> Profile:
    strict = path.parent.name == "attacks" or path.name.startswith("candidate_")
    return "candidate" if strict else "project"


def _rules(findings: tuple[Finding, ...]) -> set[str]:
    return {finding.rule for finding in findings}


@pytest.mark.parametrize("path", [*sources("attacks"), *sources("invalid")], ids=lambda path: path.stem)
def test_what_is_wrong_is_found_by_the_rule_for_it(path: Path) -> None:
    report = check(path.read_bytes(), profile=_profile(path))

    assert expected(path) in _rules(report.findings)
    assert not report.ok or {one.severity for one in report.findings} == {"warning"}
    assert "internal-error" not in _rules(report.findings)


@pytest.mark.parametrize("path", sources("valid"), ids=lambda path: path.stem)
def test_ordinary_programs_are_left_alone(path: Path) -> None:
    report = check(path.read_bytes(), profile="project")

    assert report.findings == ()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", sources("valid"), ids=lambda path: path.stem)
def test_ordinary_programs_are_right(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(path)

    assert "not in signature" not in caplog.text
    assert "Not all input fields" not in caplog.text


@pytest.mark.parametrize("path", sources("candidates"), ids=lambda path: path.stem)
def test_plain_candidates_pass_the_allow_list(path: Path) -> None:
    report = check(path.read_bytes())

    assert report.findings == ()


@pytest.mark.parametrize("path", sources("candidates"), ids=lambda path: path.stem)
def test_plain_candidates_run(path: Path) -> None:
    run(path)


def test_the_attacks_are_refused_for_what_was_added_to_a_program_that_passes() -> None:
    assert check(_BASE).findings == ()


def test_there_are_as_many_programs_as_promised() -> None:
    assert len(sources("attacks")) >= 60
    assert len(sources("invalid")) >= 40
    assert len(sources("valid")) >= 60


def test_every_rule_but_the_ones_tested_elsewhere_has_a_program_that_breaks_it() -> None:
    broken = {expected(path) for path in (*sources("attacks"), *sources("invalid"))}

    assert {rule.name for rule in RULES} - broken == {
        "internal-error",
        "task-inputs",
        "task-outputs",
        "task-tools",
        "two-readings",
    }


def test_names_of_rules_are_unique_and_say_what_holds() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.summary.endswith(".") and rule.profiles for rule in RULES)


_PIECES = (
    "(",
    ")",
    "[",
    "'",
    '"""',
    ":",
    "\n",
    "    ",
    "\\",
    "{",
    "}",
    "\x00",
    "\ufeff",
    "é",
    "lambda ",
    "async ",
    "@",
)


def _mutants(source: str) -> st.SearchStrategy[str]:
    cuts = st.tuples(
        st.integers(0, len(source)), st.integers(0, 12), st.sampled_from(_PIECES) | st.text(max_size=3)
    )
    return st.lists(cuts, max_size=4).map(lambda changes: _changed(source, changes))


def _changed(source: str, changes: list[tuple[int, int, str]]) -> str:
    for at, length, piece in changes:
        source = source[:at] + piece + source[at + length :]
    return source


@settings(max_examples=1000)
@given(
    st.sampled_from([path.read_bytes().decode("utf-8", "replace") for path in sources("valid")]).flatmap(
        _mutants
    )
)
def test_no_text_makes_it_raise_or_fail(source: str) -> None:
    for profile in ("candidate", "project"):
        report = check(source, profile=profile)

        assert "internal-error" not in _rules(report.findings), report.findings


@settings(max_examples=200)
@given(st.binary(max_size=400) | st.text(max_size=400))
def test_nothing_arbitrary_passes(source: bytes | str) -> None:
    report = check(source)

    assert not report.ok
    assert "internal-error" not in _rules(report.findings)


_MONSTERS = {
    "brackets": "(" * 16_000 + ")" * 16_000,
    "open": "[" * 32_000,
    "minus": "x = " + "-" * 32_000 + "1",
    "attributes": "x" + ".a" * 16_000,
    "calls": "x" + "()" * 16_000,
    "sum": "x = " + "1+" * 16_000 + "1",
    "lambda": "lambda: " * 4_000 + "1",
    "ternary": "1 if 1 else " * 2_600 + "1",
    "strings": "x = " + "'a' " * 8_000,
    "rows of brackets": "x = " + ("[" * 55 + "]" * 55 + ",") * 240,
    "f-strings": "x = f'" + "{a}" * 10_000 + "'",
    "conditions": "x = " + "a and " * 6_000 + "a",
    "conditions in conditions": "x = " + "(a and " * 55 + "a" + ")" * 55,
    "import": "import a" + ".a" * 15_000,
    "from": "from a" + ".a" * 15_000 + " import b",
    "a few strings": "x = undefined\ny = (" + "'a'\n" * 400 + ")",
    "f-strings in a row": "x = (" + "f'{a}' " * 4_000 + ")",
    "else": "if a:\n pass\n" + "elif a:\n pass\n" * 2_200,
    "blocks": "\n".join(" " * depth + "if a:" for depth in range(240)) + "\n" + " " * 240 + "pass",
    "assignments": "\n".join(f"a{n} = a{n - 1}" for n in range(1, 1_800)),
    "names": "import dspy\n" + "a = dspy\n" * 1_400,
    "bytes": "\\" * 32_000,
    "digits": "x = " + "9" * 32_000,
    "surrogate": "x = '\ud800'",
    "lists in lists": "import dspy\ndef f(q):\n a = [q]\n" + " a = [a, a]\n a[0].append(a)\n" * 300,
    "loops in a loop": "import dspy\ndef f(a):\n for i in a:\n"
    + "  a = [b for b in a]\n  b = [a for a in b]\n" * 200,
    "doubled": "import dspy\ndef f(a):\n" + " a = a + a\n" * 700,
    "calls of calls": "import dspy\ndef f0(x):\n return x\n"
    + "".join(f"def f{n + 1}(x):\n return [{f'f{n}(x), ' * 8}]\n" for n in range(9)),
    "calls in calls": "import dspy\ndef f(x):\n return x\ndef g(x):\n for i in 'ab':\n  x = "
    + "f(" * 40
    + "x"
    + ")" * 40,
    "tries of tries": "import dspy\nclass P(dspy.Module):\n def __init__(self):\n"
    + "  self.m0 = dspy.Predict('a -> b')\n"
    + "".join(
        f"  self.m{n + 1} = dspy.BestOfN(module=self.m{n}, reward_fn=self.m{n}, N=2)\n" for n in range(40)
    )
    + " def forward(self, a):\n  return self.m40(a=a)\n",
    "heirs": "import dspy\nclass C0(dspy.Module):\n def forward(self): return 1\n"
    + "".join(f"class C{n + 1}(C{n}): pass\n" for n in range(1_000))
    + "c = C1000()\n"
    + "c.x()\n" * 600,
    "results": "import dspy\np = dspy.Predict('a -> b')\n" + "r = p(a=1)\n" * 700 + "r.c\n" * 700,
    "one pattern": "import re\nA = '" + "(a|b)?" * 2_000 + "'\n" + "re.match(A, A)\n" * 600,
    "nearly names": "".join(f"name{n:04} = nane{n:04}\n" for n in range(1_400)),
}


_CHECKS = """
import json, sys
from mkspy.check import check
for name, source in json.load(sys.stdin).items():
    reports = [check(source, profile=profile) for profile in ("candidate", "project")]
    rules = {one.rule for report in reports for one in report.findings}
    print(json.dumps([name, reports[0].ok, "internal-error" in rules]), flush=True)
"""


def test_monsters_are_refused() -> None:
    """In a process of its own, which a parser that overruns its stack would end, and which may not hang."""
    given = json.dumps(_MONSTERS)

    done = subprocess.run(
        [sys.executable, "-c", _CHECKS], input=given, capture_output=True, text=True, timeout=300
    )

    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert results == [[name, False, False] for name in _MONSTERS]


def test_reading_neither_imports_dspy_nor_runs_the_program(tmp_path: Path) -> None:
    trap = f"import dspy\nopen({str(tmp_path / 'ran')!r}, 'w').close()\nraise SystemExit('ran')\n"
    code = "import sys; from mkspy.check import check, render\n"
    code += "render({'-': check(sys.stdin.read(), profile='project')}, 'sarif')\n"
    code += "print([name for name in ('dspy', 'pydantic', 'litellm') if name in sys.modules])"

    done = subprocess.run(
        [sys.executable, "-c", code], input=trap, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
    assert not (tmp_path / "ran").exists()


def test_threads_may_check_at_once() -> None:
    source = _BASE + 'TEXT = "\\d"\n'
    findings: list[tuple[Finding, ...]] = []
    threads = [threading.Thread(target=lambda: findings.append(check(source).findings)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert findings == [()] * 8


def test_a_mistake_of_the_gate_refuses_the_program() -> None:
    report = check(_BASE, spec=object())  # pyright: ignore[reportArgumentType] - what no caller should give

    assert not report.ok
    assert _rules(report.findings) == {"internal-error"}


def test_two_readings_of_one_text_are_refused() -> None:
    import libcst as cst
    from mkspy.check.bounds import compare, examine
    from mkspy.check.tree import Tree

    _, shape = examine("import os\nos.listdir()", "candidate")

    assert [one.rule for one in compare(shape, Tree(cst.parse_module("x = 1")))] == ["two-readings"] * 3


def _lines(findings: tuple[Finding, ...]) -> Iterator[tuple[int, int, str]]:
    return ((one.line, one.column, one.rule) for one in findings)


def test_a_finding_says_where_and_what_to_do() -> None:
    source = _BASE.replace("self.ask(question=question)", "self.ask(query=question)")

    [finding] = check(source).findings

    assert source.split("\n")[finding.line - 1][finding.column - 1 :].startswith("query=question")
    assert finding.message == "`ask` takes question, not `query`"
    assert finding.hint == "did you mean `question=`?"


_ONE_MISTAKE = {
    "signature": (("dspy.ChainOfThought(QA)", 'dspy.ChainOfThought("question, answer")'), "signature"),
    "field": (("    answer: str = dspy.Out", "    question: str = dspy.Out"), "signature-class"),
    "undefined class": (("ChainOfThought(QA)", "ChainOfThought(QuestionAnswer)"), "undefined-name"),
    "name of dspy": (("dspy.ChainOfThought(", "dspy.ChainOfThougt("), "dspy-name"),
    "base": (("class Program(dspy.Module)", "class Program"), "not-a-module"),
    "name of __init__": (("def __init__", "def __int__"), "misspelt-method"),
    "self": (("def forward(self, question", "def forward(question"), "no-self"),
    "attribute of self": (("result = self.ask(", "result = self.aks("), "self-attribute"),
    "field of a result": (("answer=result.answer", "answer=result.anwser"), "result-field"),
    "import": (("result = self", "os.remove(question)\n        result = self"), "undefined-name"),
    "type": (("ChainOfThought(QA)", 'ChainOfThought("question: string -> answer")'), "signature-import"),
    "endless": (("        result =", "        for _ in range(10**9):\n            pass\n        result ="),
                "large-number"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "rule"), _ONE_MISTAKE.values(), ids=_ONE_MISTAKE)
def test_one_mistake_is_told_once(change: tuple[str, str], rule: str) -> None:
    assert change[0] in _BASE

    found = [one.rule for one in check(_BASE.replace(*change)).findings]

    assert found == [rule]


def test_what_only_another_file_can_tell_is_a_warning() -> None:
    source = (CORPUS / "invalid" / "dead_predictor.py").read_text()

    report = check(source, profile="project")

    assert [one.severity for one in report.findings] == ["warning"]
    assert report.ok
    assert not check(source).ok


def test_findings_come_in_the_order_of_the_source() -> None:
    source = _BASE.replace("import dspy", "import os\nimport dspy").replace("result.answer", "result.anser")

    assert [rule for _, _, rule in _lines(check(source).findings)] == ["import", "result-field"]


def test_facts_say_what_a_program_is_made_of() -> None:
    facts = check(_BASE).facts

    [predictor] = facts.predictors
    assert (predictor.name, predictor.kind) == ("ask", "ChainOfThought")
    assert (predictor.inputs, predictor.outputs) == (("question",), ("answer",))
    assert (facts.modules, facts.signatures, facts.model_calls) == (("Program",), ("QA",), 1)
    assert facts.imports == ("dspy",)


@pytest.mark.parametrize(
    ("body", "calls"),
    [
        ("for _ in range(3):\n            result = self.ask(question=question)", 3),
        ("for part in question.split():\n            result = self.ask(question=part)", None),
        (
            "for _ in range(2):\n            for _ in range(1, 5):\n"
            "                result = self.ask(question=question)",
            8,
        ),
        (
            "run = dspy.Parallel()\n"
            "        result, _ = run([(self.ask, {'question': 'x'}), (self.ask, {'question': question})])",
            2,
        ),
    ],
)
def test_facts_count_the_calls_of_a_model(body: str, calls: int | None) -> None:
    report = check(_BASE.replace("result = self.ask(question=question)", body))

    assert report.facts.model_calls == calls


def test_a_byte_order_mark_is_fine_in_a_project_and_not_in_a_candidate() -> None:
    source = b"\xef\xbb\xbf" + _BASE.encode()

    assert check(source, profile="project").ok
    assert "invisible" in _rules(check(source).findings)


def test_an_encoding_is_found_in_the_lines_that_python_looks_at() -> None:
    assert "encoding" in _rules(check(b"\r# coding: utf-7\rimport dspy\r").findings)
    assert "encoding" not in _rules(check(b"#\n#\n# coding: utf-7\n").findings)
