# expect: no-program
import dspy


class P(dspy.Module):
    def __init__(self, k: int):
        self.k = k
        self.ask = dspy.Predict('question -> answer')

    def forward(self, question: str):
        return self.ask(question=question)


program = P()
