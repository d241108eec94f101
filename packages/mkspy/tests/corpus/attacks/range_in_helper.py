# expect: large-number
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def span(many: int) -> list[int]:
    return [each for each in range(many)]


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)

    def forward(self, question: str) -> dspy.Prediction:
        span(10**12)
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
