# run: program(question="q").answer
import math

import dspy


def root(value: float) -> float:
    """Return the square root of a number."""
    return math.sqrt(abs(value))


def add(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


class Calculator(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.solve = dspy.ReAct("question -> answer: float", tools=[root, add], max_iters=4)

    def forward(self, question: str) -> dspy.Prediction:
        return self.solve(question=question)


program = Calculator()
