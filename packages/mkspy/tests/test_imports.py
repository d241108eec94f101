"""What reads specs and checks programs does not wait for dspy, and knows the names that dspy has."""

import subprocess
import sys

import dspy
import pytest
from mkspy import names
from pydantic import BaseModel


@pytest.mark.parametrize("module", ["mkspy", "mkspy.types", "mkspy.spec", "mkspy.library", "mkspy.errors"])
def test_a_module_that_only_reads_does_not_import_dspy(module: str) -> None:
    code = (
        f"import sys, {module}; print([name for name in ('dspy', 'pydantic', 'gepa') if name in sys.modules])"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout == "[]\n"


def test_reading_a_spec_does_not_import_dspy() -> None:
    code = "import sys\nfrom mkspy import library\nlibrary.get('agent')\nprint('dspy' in sys.modules)"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout == "False\n"


def _public(*things: object) -> set[str]:
    return {name for thing in things for name in dir(thing) if not name.startswith("_")}


@pytest.mark.parametrize(
    "thing", [BaseModel, dspy.Signature, type(dspy.Signature), dspy.Prediction, dspy.Example]
)
def test_no_field_can_hide_what_signatures_and_predictions_have(thing: object) -> None:
    free = {name for name in _public(thing) if not names.why_not(name)}

    assert free == set()


def test_no_field_of_a_record_can_hide_what_a_pydantic_model_has() -> None:
    free = {name for name in _public(BaseModel) if not names.why_not(name, names.RESERVED_RECORD_FIELDS)}

    assert free == set()


def test_no_step_can_hide_what_a_module_has() -> None:
    class Program(dspy.Module):
        def forward(self) -> None: ...

    own = _public(Program) | {name for name in vars(Program()) if not name.startswith("_")}

    assert {name for name in own if not names.why_not(name, names.RESERVED_STEPS)} == set()


def test_no_field_can_have_a_name_that_a_strategy_adds() -> None:
    signature = dspy.Signature("question -> answer")
    added = set(dspy.ChainOfThought(signature).predict.signature.fields)
    added |= set(dspy.ReAct(signature, tools=[lambda: "x"]).react.signature.fields)

    assert {name for name in added - {"question", "answer"} if not names.why_not(name)} == set()
