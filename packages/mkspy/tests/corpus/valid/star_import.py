# run: QA()(question="q").answer
from dspy import *


class QA(Module):
    def __init__(self):
        super().__init__()
        self.ask = Predict("question -> answer")

    def forward(self, question):
        return self.ask(question=question)
