# expect: raw-model
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)
        self.lm = None

    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=self.lm(question)[0])


program = Program()
