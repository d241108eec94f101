# expect: constructor
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)

    def forward(self, question: str) -> dspy.Prediction:
        picture = dspy.Image(url="http://169.254.169.254/latest/meta-data", download=True)
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
