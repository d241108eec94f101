# run: program(question="q").answer
import dspy


class Talk(dspy.Signature):
    """Go on."""

    history: dspy.History = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Twice(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.talk = dspy.Predict(Talk)

    def forward(self, question: str) -> dspy.Prediction:
        history = dspy.History(messages=[])
        first = self.talk(question=question, history=history)
        history.messages.append({"question": question, "answer": first.answer})
        facts = self.talk(question=question, history=history)
        return dspy.Prediction(**facts, tries=2)


program = Twice()
