# expect: attribute
import dspy
from pydantic import BaseModel


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Note(BaseModel):
    save: str


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)

    def forward(self, question: str) -> dspy.Prediction:
        keep = self.ask.save
        keep("/tmp/x.json")
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
