# expect: result-field
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Inner(dspy.Module):
    def __init__(self):
        self.p = dspy.Predict("text -> label")

    def forward(self, text):
        return dspy.Prediction(kind=self.p(text=text).label)


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = Inner()

    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=self.ask(text=question).label)


program = Program()
