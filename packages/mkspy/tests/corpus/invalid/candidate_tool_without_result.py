# expect: tool
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def note(text: str) -> None:
    """Note it."""
    text.strip()


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)
        self.agent = dspy.ReAct("question -> found", tools=[note], max_iters=2)

    def forward(self, question: str) -> dspy.Prediction:
        self.agent(question=question)
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
