# expect: tool
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def search(query: str) -> str:
    return query


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ReAct(QA, tools=[search], max_iters=3)

    def forward(self, question: str) -> dspy.Prediction:
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
