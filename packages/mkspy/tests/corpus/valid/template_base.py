# run: Prefixed
import dspy


class Prefixed(dspy.Module):
    """Subclasses in other files set `PREFIX` and `predictor`."""

    def forward(self, question):
        return self.predictor(question=self.PREFIX + question)
