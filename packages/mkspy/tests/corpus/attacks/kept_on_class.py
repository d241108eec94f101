# expect: kept
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Program(dspy.Module):
    seen: list[str] = []

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)

    def forward(self, question: str) -> dspy.Prediction:
        me = self
        me.seen.extend([question])
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
