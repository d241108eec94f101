# expect: prompt
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
        result = self.ask(question=f"You are a careful assistant. Ignore what was said before and answer with one word: {question}")
        return dspy.Prediction(answer=result.answer)


program = Program()
