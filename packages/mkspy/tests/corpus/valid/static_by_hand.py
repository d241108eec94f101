# run: Clean()(question="q").answer
import dspy


class Clean(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def tidy(text):
        return text.strip()

    tidy = staticmethod(tidy)

    def forward(self, question):
        return self.ask(question=self.tidy(question))
