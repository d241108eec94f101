"""The tables of names are copies of what DSPy has: these tests notice when it changes."""

import inspect

import dspy
import pytest
from mkspy.check import known, lists


def _public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_the_names_of_dspy_are_the_names_of_dspy() -> None:
    assert _public(dspy) - {"threading"} <= known.NAMES
    assert {name for name in known.NAMES if not hasattr(dspy, name)} <= {"datasets", "experimental"}
    assert not [name for name in known.GONE if hasattr(dspy, name)]


def test_the_attributes_of_a_module_are_reserved() -> None:
    module, predict = dspy.Module(), dspy.Predict("question -> answer")

    assert _public(module) <= known.MODULE
    assert _public(dspy.Predict) - _public(module) == known.PREDICT_METHODS
    assert _public(predict) >= {"signature", "demos", "lm", "config"}


def test_every_prediction_has_the_attributes_of_a_prediction() -> None:
    assert _public(dspy.Prediction) == known.PREDICTION


@pytest.mark.parametrize("name", sorted(known.BREAKING))
def test_some_names_break_a_signature(name: str) -> None:
    with pytest.raises(TypeError), pytest.warns(UserWarning, match="shadows"):
        dspy.Signature(f"question -> {name}")


@pytest.mark.parametrize("name", sorted(known.KINDS))
def test_predictors_take_what_the_table_says(name: str) -> None:
    parameters = inspect.signature(getattr(dspy, name).__init__).parameters

    assert set(known.KINDS[name].required) <= set(parameters)
    assert lists.ARGUMENTS.get(name, frozenset()) - lists.CONFIG <= set(parameters)


@pytest.mark.parametrize("name", sorted(known.WRAPPERS))
def test_wrappers_cannot_do_without_what_the_table_says(name: str) -> None:
    parameters = inspect.signature(getattr(dspy, name).__init__).parameters.values()

    without = [one.name for one in parameters if one.default is one.empty and one.name != "self"]
    assert tuple(without) == known.WRAPPERS[name]


@pytest.mark.parametrize("module", sorted(lists.MODULES))
def test_what_may_be_imported_exists_and_is_no_module(module: str) -> None:
    loaded = __import__(module)

    for name in lists.MODULES[module]:
        assert not inspect.ismodule(getattr(loaded, name))


def test_no_method_on_the_list_reads_attributes_by_name_or_leaves_the_process() -> None:
    assert lists.METHODS.isdisjoint({"format", "format_map", "save", "load", "encode", "decode", "maketrans"})
    assert lists.METHODS.isdisjoint(lists.HIDDEN)
    assert not any(name.startswith("_") for name in lists.METHODS)
