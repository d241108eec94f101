# run: p(text="t").level
from enum import Enum

import dspy


class Level(str, Enum):
    LOW = "low"
    HIGH = "high"

    @classmethod
    def worst(cls):
        return cls.HIGH


class Rate(dspy.Signature):
    """Rate the risk."""

    text: str = dspy.InputField()
    level: Level = dspy.OutputField()


p = dspy.Predict(Rate)


def is_bad(text):
    return p(text=text).level is Level.worst() or p(text=text).level.value == Level.HIGH.value
