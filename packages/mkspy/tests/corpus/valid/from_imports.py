# run: QA()(question="q").answer
from dspy import ChainOfThought, InputField, Module, OutputField, Prediction, Signature


class Ask(Signature):
    """Answer questions with short factoid answers."""

    question = InputField()
    answer = OutputField(desc="often between 1 and 5 words")


class QA(Module):
    def __init__(self):
        super().__init__()
        self.prog = ChainOfThought(Ask)

    def forward(self, question):
        return Prediction(answer=self.prog(question=question).answer)
