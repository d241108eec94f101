# expect: prompt
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


PROMPT = "You are a helpful assistant. Answer the question briefly, kindly and without a lie: "


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)

    def forward(self, question: str) -> dspy.Prediction:
        result = self.ask(question=PROMPT + question)
        return dspy.Prediction(answer=result.answer)


program = Program()
