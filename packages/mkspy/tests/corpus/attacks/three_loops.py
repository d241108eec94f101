# expect: endless-loop
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)

    def forward(self, question: str) -> dspy.Prediction:
        for a in question:
            for b in question:
                for c in question:
                    a = c
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
