# expect: call-inputs
import dspy


class QA(dspy.Signature):
    """Answer the question."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Program(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.ChainOfThought(QA)
        self.steps = {"a": dspy.Predict(QA), "b": dspy.ChainOfThought(QA)}

    def forward(self, question: str) -> dspy.Prediction:
        result = self.steps["a"](query=question)
        return dspy.Prediction(answer=result.answer)


program = Program()
