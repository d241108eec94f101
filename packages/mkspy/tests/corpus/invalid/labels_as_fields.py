# expect: result-field
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("text -> label: Literal['spam', 'ham']")

    def forward(self, question: str) -> dspy.Prediction:
        result = self.ask(text=question)
        return dspy.Prediction(answer=result.spam)


program = Program()
