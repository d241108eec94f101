# run: program(question="q").answer
from collections import Counter

import dspy


def best(votes: list[str]) -> str:
    counted = Counter(vote.strip().lower() for vote in votes)
    return counted.most_common(1)[0][0] if counted else ""


class Votes(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.answers = [dspy.ChainOfThought("question -> answer", temperature=1.0, rollout_id=i) for i in range(3)]

    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=best([ask(question=question).answer for ask in self.answers]))


program = Votes()
