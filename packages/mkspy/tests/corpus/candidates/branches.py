# run: program(message="m").reply
from typing import Literal

import dspy

LABELS = ("billing", "shipping")


class Sort(dspy.Signature):
    """Choose the team."""

    message: str = dspy.InputField()
    team: Literal["billing", "shipping"] = dspy.OutputField()


class Desk(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sort = dspy.Predict(Sort)
        self.billing = dspy.ChainOfThought("message -> reply")
        self.shipping = dspy.ChainOfThought("message -> reply")

    def forward(self, message: str) -> dspy.Prediction:
        team = self.sort(message=message).team
        match team:
            case "billing":
                return self.billing(message=message)
            case _:
                return self.shipping(message=message)

    async def aforward(self, message: str) -> dspy.Prediction:
        sorted_ = await self.sort.acall(message=message)
        if sorted_.team == "billing":
            return await self.billing.acall(message=message)
        return await self.shipping.acall(message=message)


program = Desk()
