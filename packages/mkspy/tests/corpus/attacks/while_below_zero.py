# expect: endless-loop
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
        left = 3
        left -= 5
        while left:
            left -= 1
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
