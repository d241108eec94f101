# expect: large-number
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def fill(text: str, many: int) -> str:
    return text * many


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)

    def forward(self, question: str) -> dspy.Prediction:
        fill("a", int(question))
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
