# expect: attribute
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
        try:
            raise ValueError(question)
        except ValueError as error:
            return dspy.Prediction(answer=str(error.__traceback__.tb_frame))


program = Program()
