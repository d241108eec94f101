# expect: reserved-attribute
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.batch = dspy.Predict(QA)

    def forward(self, question: str) -> dspy.Prediction:
        return self.batch(question=question)


program = Program()
