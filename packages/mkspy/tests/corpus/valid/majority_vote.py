# run: Vote()(question="q").answer
import dspy
from dspy import majority


class Vote(dspy.Module):
    def __init__(self, k=3):
        super().__init__()
        self.answer = dspy.ChainOfThought("question -> answer")
        self.k = k

    def forward(self, question):
        votes = [self.answer(question=question, config={"rollout_id": i, "temperature": 1.0}) for i in range(self.k)]
        return majority([dict(answer=v.answer) for v in votes], field="answer")
