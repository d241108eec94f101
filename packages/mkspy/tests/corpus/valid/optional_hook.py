# run: Hooked()(question="q").answer
import dspy


class Hooked(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question):
        if hasattr(self, "hook"):
            self.hook(question)
        return self.ask(question=question)
