# expect: large-number
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
        parts = [question]
        for _ in range(100):
            others = []
            for part in parts:
                others.append(part + part)
            parts = others
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
