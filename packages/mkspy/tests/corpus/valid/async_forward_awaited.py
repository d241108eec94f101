# arun: Outer().acall(question="q")
import dspy


class Inner(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    async def forward(self, question):
        return await self.ask.acall(question=question)


class Outer(dspy.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()

    async def aforward(self, question):
        result = await self.inner(question=question)
        return dspy.Prediction(answer=result.answer)
