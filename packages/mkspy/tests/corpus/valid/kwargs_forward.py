# run: Any_()(question="q", context="c").answer
import dspy


class Any_(dspy.Module):
    def __init__(self, signature="question, context -> answer", **config):
        super().__init__()
        self.predict = dspy.Predict(signature, **config)

    def forward(self, **kwargs):
        return self.predict(**kwargs)
