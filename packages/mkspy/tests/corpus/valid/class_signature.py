# run: Emotion()(sentence="I am fine").sentiment
from typing import Literal

import dspy


class Classify(dspy.Signature):
    """Classify the emotion of a sentence."""

    sentence: str = dspy.InputField()
    sentiment: Literal["sadness", "joy", "love", "anger", "fear", "surprise"] = dspy.OutputField()


class Emotion(dspy.Module):
    def __init__(self):
        super().__init__()
        self.classify = dspy.Predict(Classify)

    def forward(self, sentence):
        return self.classify(sentence=sentence)
