# expect: misspelt-method
import dspy


class QA(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question):
        return self.ask(question=question)

    async def aforwrd(self, question):
        return await self.ask.acall(question=question)
