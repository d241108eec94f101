# expect: predictor-arguments
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


def reward(args, pred):
    return 1.0


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Refine(dspy.Predict(QA), 3, reward)

    def forward(self, question: str) -> dspy.Prediction:
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
