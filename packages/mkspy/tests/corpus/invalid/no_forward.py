# expect: no-forward
import dspy


class QA(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict('question -> answer')

    def froward(self, question):
        return self.ask(question=question)
