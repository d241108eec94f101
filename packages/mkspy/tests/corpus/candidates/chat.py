# run: program(question="q", history=dspy.History(messages=[])).answer
import dspy


class Talk(dspy.Signature):
    """Go on with the conversation."""

    history: dspy.History = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Chat(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.talk = dspy.Predict(Talk)

    def forward(self, question: str, history: dspy.History) -> dspy.Prediction:
        return self.talk(question=question, history=history)


program = Chat()
