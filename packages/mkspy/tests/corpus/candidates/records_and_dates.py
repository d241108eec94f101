# run: program(text="t").invoice
import datetime
from enum import StrEnum
from typing import Literal, Optional

import dspy
from pydantic import BaseModel, Field


class Currency(StrEnum):
    EUR = "EUR"
    USD = "USD"


class Item(BaseModel):
    """One line of an invoice."""

    name: str
    price: float = Field(ge=0, description="Price of one.")
    count: int = 1


class Invoice(BaseModel):
    number: str
    day: Optional[datetime.date] = None
    currency: Currency = Currency.EUR
    items: list[Item] = Field(default_factory=list)


class Read(dspy.Signature):
    """Read the invoice."""

    text: str = dspy.InputField()
    invoice: Invoice = dspy.OutputField()
    kind: Literal["sale", "refund"] = dspy.OutputField()


class Reader(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read = dspy.Predict(Read)

    def forward(self, text: str) -> dspy.Prediction:
        result = self.read(text=text)
        total = sum(item.price * item.count for item in result.invoice.items)
        return dspy.Prediction(invoice=result.invoice, kind=result.kind, total=round(total, 2))


program = Reader()
