# run: program(claim="c").verdict
import re

import dspy

WORD = re.compile(r"[a-z]+")
STOP: frozenset[str] = frozenset({"the", "a"})


class Debate(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sides = {
            "for": dspy.ChainOfThought("claim, said: list[str] -> argument"),
            "against": dspy.ChainOfThought("claim, said: list[str] -> argument"),
        }
        self.judge = dspy.Predict("claim, said: list[str] -> verdict, score: float")

    def forward(self, claim: str) -> dspy.Prediction:
        said: list[str] = []
        for _ in range(2):
            for name, side in self.sides.items():
                said.append(side(claim=claim, said=said).argument)
        counts: dict[str, dict[str, int]] = {}
        for text in said:
            words = [word for word in WORD.findall(text.lower()) if word not in STOP]
            counts[text] = {}
            for word in words:
                counts[text][word] = counts[text].get(word, 0) + 1
        best = None
        for _ in range(2):
            best = self.judge(claim=claim, said=said)
        return best


program = Debate()
