# run: QA()(question="q").answer
from dspy.predict.chain_of_thought import ChainOfThought as CoT
from dspy.primitives.module import Module
from dspy.signatures import InputField, OutputField, Signature


class S(Signature):
    question: str = InputField()
    answer: str = OutputField()


class QA(Module):
    def __init__(self):
        super().__init__()
        self.cot = CoT(S)

    def forward(self, question):
        return self.cot(question=question)
