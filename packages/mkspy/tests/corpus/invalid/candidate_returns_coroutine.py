# expect: returns-prediction
import dspy


class P(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.ask.acall(question=question)


program = P()
