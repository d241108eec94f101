# expect: no-self
import dspy


class QA(dspy.Module):
    def __init__(self):
        self.ask = dspy.Predict('question -> answer')

    def forward(question):
        return self.ask(question=question)
