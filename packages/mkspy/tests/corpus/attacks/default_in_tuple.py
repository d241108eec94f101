# expect: default
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def note(text: str, seen=([],)) -> str:
    seen[0].append(text)
    return text


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)

    def forward(self, question: str) -> dspy.Prediction:
        note(question)
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
