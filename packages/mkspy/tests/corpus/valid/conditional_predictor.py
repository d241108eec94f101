# run: QA(cot=False)(question="q").answer
import dspy


class QA(dspy.Module):
    def __init__(self, cot=True, passages=False):
        super().__init__()
        if cot:
            self.answer = dspy.ChainOfThought("question -> answer")
        else:
            self.answer = dspy.Predict("question -> answer")
        self.rank = dspy.Predict("question -> order: list[int]") if passages else None

    def forward(self, question):
        result = self.answer(question=question)
        if self.rank is not None:
            result["order"] = self.rank(question=question).order
        return result
