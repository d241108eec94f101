# expect: no-program
import dspy


class P(dspy.Module):
    def __init__(self):
        self.ask = dspy.Predict('question -> answer')

    def forward(self, question: str):
        return self.ask(question=question)
