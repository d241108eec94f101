# run: Concierge()(request="book").outcome
import datetime
from dataclasses import dataclass, field

import dspy


@dataclass
class Booking:
    customer: str
    day: datetime.date
    notes: list[str] = field(default_factory=list)


BOOKINGS: dict[str, Booking] = {}


def book(customer: str, day: str) -> str:
    """Book a table for a customer on a day such as 2025-03-01."""
    BOOKINGS[customer] = Booking(customer, datetime.date.fromisoformat(day))
    return f"booked for {customer}"


def cancel(customer: str) -> str:
    """Cancel the booking of a customer."""
    del BOOKINGS[customer]
    return "cancelled"


class Concierge(dspy.Module):
    def __init__(self, max_iters: int = 4):
        super().__init__()
        self.agent = dspy.ReAct("request -> outcome", tools=[book, cancel], max_iters=max_iters)

    def forward(self, request: str):
        pred = self.agent(request=request)
        return dspy.Prediction(outcome=pred.outcome, steps=pred.trajectory)
