# expect: call-inputs
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
        self.ask = dspy.BestOfN(module=dspy.Predict(QA), N=2, reward_fn=reward, threshold=1.0)

    def forward(self, question: str) -> dspy.Prediction:
        return self.ask(text=question)


program = Program()
