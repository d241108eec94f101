# expect: await
import dspy


class P(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    async def forward(self, question: str) -> dspy.Prediction:
        return await self.ask.acall(question=question)


program = P()
