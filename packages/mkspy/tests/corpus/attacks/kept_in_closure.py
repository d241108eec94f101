# expect: kept
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def make():
    seen = []

    def push(text: str) -> str:
        seen.append(text)
        return text

    return push


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)
        self.push = make()

    def forward(self, question: str) -> dspy.Prediction:
        self.push(question)
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
