# expect: endless-loop
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def grow(parts: list[str]) -> None:
    parts.append('a')


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)

    def forward(self, question: str) -> dspy.Prediction:
        parts = [question]
        for part in parts:
            grow(parts)
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
