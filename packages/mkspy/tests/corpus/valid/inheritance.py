# run: Polite()(question="q").answer
import dspy


class BaseQA(dspy.Module):
    signature = "question -> answer"

    def __init__(self):
        super().__init__()
        self.answer = dspy.ChainOfThought(self.signature)

    def prepare(self, question):
        return question.strip()

    def forward(self, question):
        return self.answer(question=self.prepare(question))


class Polite(BaseQA):
    def prepare(self, question):
        return super().prepare(question) + " Please."


class Twice(Polite):
    def __init__(self):
        super().__init__()
        self.check = dspy.Predict("question, answer -> correct: bool")

    def forward(self, question):
        first = super().forward(question)
        verdict = self.check(question=question, answer=first.answer)
        return first if verdict.correct else super().forward(question)
