# run: Short()(text="t").summary
from abc import abstractmethod

import dspy


class Summarizer(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict(self.make_signature())

    @abstractmethod
    def make_signature(self):
        raise NotImplementedError

    def forward(self, text):
        return self.predict(text=text)


class Short(Summarizer):
    def make_signature(self):
        return dspy.Signature("text -> summary", "Summarize in ten words.")
