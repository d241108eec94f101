# arun: Panel().acall(topic="t")
import asyncio

import dspy


class Panel(dspy.Module):
    def __init__(self):
        super().__init__()
        self.pro = dspy.Predict("topic -> argument")
        self.con = dspy.Predict("topic -> argument")
        self.judge = dspy.ChainOfThought("topic, pro, con -> verdict")

    async def aforward(self, topic: str) -> dspy.Prediction:
        pro, con = await asyncio.gather(self.pro.acall(topic=topic), self.con.acall(topic=topic))
        verdict = await self.judge.acall(topic=topic, pro=pro.argument, con=con.argument)
        return dspy.Prediction(verdict=verdict.verdict)

    def forward(self, topic: str) -> dspy.Prediction:
        return asyncio.run(self.aforward(topic))
