# run: extract(text="one apple").invoice
from typing import Optional

import dspy
from pydantic import BaseModel, Field, field_validator


class LineItem(BaseModel):
    sku: str
    qty: int = Field(ge=0)
    price: float = Field(ge=0)


class Invoice(BaseModel):
    items: list[LineItem]
    total: float
    note: Optional[str] = None

    @field_validator("total")
    @classmethod
    def positive(cls, value):
        if value < 0:
            raise ValueError("negative")
        return value

    @property
    def count(self):
        return len(self.items)


class ExtractInvoice(dspy.Signature):
    """Read an invoice."""

    text: str = dspy.InputField()
    invoice: Invoice = dspy.OutputField()


class Extract(dspy.Module):
    def __init__(self):
        super().__init__()
        self.extract = dspy.Predict(ExtractInvoice)

    def forward(self, text):
        result = self.extract(text=text)
        if result.invoice.count > 100:
            raise ValueError("too many items")
        return result


extract = Extract()
