# expect: not-a-module
import dspy


class QA:
    def __init__(self):
        self.ask = dspy.Predict('question -> answer')

    def forward(self, question):
        return self.ask(question=question)


QA()(question="q")
