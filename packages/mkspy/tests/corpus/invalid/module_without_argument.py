# expect: construction
import dspy


class QA(dspy.Module):
    def __init__(self, signature):
        super().__init__()
        self.ask = dspy.Predict(signature)

    def forward(self, question):
        return self.ask(question=question)


program = QA()
