# expect: misspelt-method
import dspy


class QA(dspy.Module):
    def __int__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question):
        return self.ask(question=question)
