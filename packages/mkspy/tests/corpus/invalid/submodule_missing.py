# expect: call-inputs
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Inner(dspy.Module):
    def __init__(self):
        self.p = dspy.Predict("text, tone -> label")

    def forward(self, text, tone):
        return self.p(text=text, tone=tone)


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = Inner()

    def forward(self, question: str) -> dspy.Prediction:
        return self.ask(text=question)


program = Program()
