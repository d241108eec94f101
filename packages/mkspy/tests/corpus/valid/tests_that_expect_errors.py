# run: test_errors()
import dspy
import pytest

ask = dspy.Predict("question -> answer")


def test_errors():
    with pytest.raises(ValueError):
        dspy.Signature("no arrow here")
    result = ask(question="q")
    with pytest.raises(AttributeError):
        print(result.nothing)
