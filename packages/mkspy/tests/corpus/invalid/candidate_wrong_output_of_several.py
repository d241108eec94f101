# expect: result-field
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
        results = [self.ask(question=each) for each in question.split()]
        result = max(results, key=lambda each: len(each.answer))
        return dspy.Prediction(answer=result.response)


program = Program()
