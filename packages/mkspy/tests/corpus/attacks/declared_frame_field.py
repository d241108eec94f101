# expect: attribute
import dspy
from pydantic import BaseModel


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Frames(BaseModel):
    gi_frame: str
    f_globals: str


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)

    def forward(self, question: str) -> dspy.Prediction:
        steps = (c for c in question)
        scope = steps.gi_frame.f_globals
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
