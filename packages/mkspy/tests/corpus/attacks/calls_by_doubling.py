# expect: many-calls
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
        self.g0(question)
        result = self.ask(question=question)
        return dspy.Prediction(answer=result.answer)

    def g0(self, text: str) -> None:
        self.g1(text)
        self.g1(text)

    def g1(self, text: str) -> None:
        self.g2(text)
        self.g2(text)

    def g2(self, text: str) -> None:
        self.g3(text)
        self.g3(text)

    def g3(self, text: str) -> None:
        self.g4(text)
        self.g4(text)

    def g4(self, text: str) -> None:
        self.g5(text)
        self.g5(text)

    def g5(self, text: str) -> None:
        self.g6(text)
        self.g6(text)

    def g6(self, text: str) -> None:
        self.g7(text)
        self.g7(text)

    def g7(self, text: str) -> None:
        self.g8(text)
        self.g8(text)

    def g8(self, text: str) -> None:
        self.g9(text)
        self.g9(text)

    def g9(self, text: str) -> None:
        self.g10(text)
        self.g10(text)

    def g10(self, text: str) -> None:
        self.ask(question=text)


program = Program()
