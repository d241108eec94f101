# run: Summary()(article="words").summary
import dspy


def brevity(args, pred) -> float:
    return 1.0 if len(pred.summary) < 200 else 0.0


class Summary(dspy.Module):
    def __init__(self, n=2):
        super().__init__()
        self.write = dspy.Refine(dspy.Predict("article -> summary"), n, brevity, 1.0)

    def forward(self, article):
        return self.write(article=article)
