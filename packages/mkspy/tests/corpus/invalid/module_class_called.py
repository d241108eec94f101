# expect: construction
import dspy


class Inner(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question):
        return self.ask(question=question)


class Outer(dspy.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner

    def forward(self, question):
        return self.inner(question=question)
