# expect: kept
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)
        self.numbers = zip(range(3), range(3))

    def forward(self, question: str) -> dspy.Prediction:
        for pair in self.numbers:
            break
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
