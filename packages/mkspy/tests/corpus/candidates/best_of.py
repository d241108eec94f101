# run: program(question="q").answer
import dspy


def short(args: dict[str, str], pred: dspy.Prediction) -> float:
    return 1.0 if len(pred.answer) < 80 else 0.0


class Best(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.best = dspy.BestOfN(module=dspy.Predict("question -> answer"), N=3, reward_fn=short, threshold=1.0)

    def forward(self, question: str) -> dspy.Prediction:
        return self.best(question=question)


program = Best()
