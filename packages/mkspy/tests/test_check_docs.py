"""What docs/checking.md says of the rules is what the rules say."""

import re
from pathlib import Path

from mkspy.check import RULES, check, render

_PAGE = Path(__file__).parents[3] / "docs" / "checking.md"
_HOOKS = Path(__file__).parents[3] / ".pre-commit-hooks.yaml"


def table() -> str:
    """Return the table of rules as the page has it."""
    rows = ["| rule | family | what holds | for |", "|---|---|---|---|"]
    for rule in RULES:
        profiles = "" if len(rule.profiles) == 2 else rule.profiles[0]
        rows.append(f"| `{rule.name}` | {rule.family} | {rule.summary} | {profiles} |")
    return "\n".join(rows)


def test_the_page_has_every_rule() -> None:
    found = re.search(r"<!-- rules -->\n(.*?)\n<!-- /rules -->", _PAGE.read_text(), re.DOTALL)

    assert found is not None
    assert found[1] == table()


def test_the_python_on_the_page_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL)

    assert blocks
    for block in blocks:
        exec(compile(block, str(_PAGE), "exec"), {})


_SOURCE = """import dspy


class QA(dspy.Module):
    def __init__(self):
        self.ask = dspy.ChainOfThought("question -> answer")

    def forward(self, question):
        result = self.ask(query=question)
        return dspy.Prediction(answer=result.anwser)
"""


def test_the_findings_on_the_page_are_found() -> None:
    shown = render({"qa.py": check(_SOURCE, profile="project")})

    assert shown.count("\n") == 2
    assert shown in _PAGE.read_text()


def test_the_hook_runs_the_command_of_the_page() -> None:
    entry = "entry: mkspy check --profile project"

    assert entry in _HOOKS.read_text()
    assert entry in _PAGE.read_text()


if __name__ == "__main__":
    start, end = "<!-- rules -->\n", "\n<!-- /rules -->"
    page = re.sub(
        f"{start}.*?<!-- /rules -->", lambda _: start + table() + end, _PAGE.read_text(), flags=re.DOTALL
    )
    _PAGE.write_text(page)
