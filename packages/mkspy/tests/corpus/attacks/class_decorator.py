# expect: class-base
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def program_of(cls: object) -> object:
    return cls


@program_of
class Wrapped(dspy.Module):
    pass


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)

    def forward(self, question: str) -> dspy.Prediction:
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
