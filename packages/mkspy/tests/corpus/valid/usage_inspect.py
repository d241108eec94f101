# run: QA()(question="q").answer
import dspy


class QA(dspy.Module):
    """A module that names its predictors."""

    NAMES = ("first", "second")

    def __init__(self):
        super().__init__()
        for name in self.NAMES:
            setattr(self, name, dspy.Predict("question -> answer"))

    def forward(self, question):
        answers = [getattr(self, name)(question=question).answer for name in self.NAMES]
        return dspy.Prediction(answer=answers[-1], all=answers)


if __name__ == "__main__":
    for name, predictor in QA().named_predictors():
        print(name, predictor.signature.instructions, predictor.demos)
