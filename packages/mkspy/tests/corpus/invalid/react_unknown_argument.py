# expect: construction
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)
        self.agent = dspy.ReAct("question -> found", tools=[], max_iterations=3)

    def forward(self, question: str) -> dspy.Prediction:
        result = self.agent(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
