# expect: untyped-parameter
import dspy


class P(dspy.Module):
    def __init__(self):
        self.ask = dspy.Predict('question -> answer')

    def forward(self, question):
        return self.ask(question=question)


program = P()
