# expect: call-inputs
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = [dspy.Predict("text -> summary") for _ in range(2)]

    def forward(self, question: str) -> dspy.Prediction:
        for step in self.steps:
            result = step(question=question)
        return result


program = Program()
