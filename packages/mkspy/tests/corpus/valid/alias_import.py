# run: QA().forward(question="q").answer
import dspy as d


class QA(d.Module):
    def __init__(self):
        super().__init__()
        self.ask = d.Predict("question -> answer")

    def forward(self, question: str) -> d.Prediction:
        return self.ask(question=question)
