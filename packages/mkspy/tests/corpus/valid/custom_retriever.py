# run: Custom()(query="q").passages
import dspy


class Custom(dspy.Retrieve):
    def __init__(self, k=3):
        super().__init__(k=k)

    def forward(self, query, k=None):
        return dspy.Prediction(passages=[query] * (k or self.k))
