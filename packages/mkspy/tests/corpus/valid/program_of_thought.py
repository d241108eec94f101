import dspy


class Calculator(dspy.Module):
    def __init__(self):
        super().__init__()
        self.pot = dspy.ProgramOfThought("question -> answer", max_iters=2)

    def forward(self, question):
        result = self.pot(question=question)
        return dspy.Prediction(answer=result.answer)
