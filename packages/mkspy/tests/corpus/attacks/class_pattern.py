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
        match self:
            case object(__class__=found):
                return dspy.Prediction(answer=str(found))
        return dspy.Prediction(answer=question)


program = Program()
