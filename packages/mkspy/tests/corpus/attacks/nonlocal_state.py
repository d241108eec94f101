# expect: construct
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
        count = 0
        def step() -> int:
            nonlocal count
            count = 1
            return count
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
