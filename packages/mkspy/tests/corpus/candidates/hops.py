# run: program(question="q").answer
import dspy

HOPS = 3


class Hops(dspy.Module):
    def __init__(self, passages: int = 4) -> None:
        super().__init__()
        self.passages = passages
        self.search = dspy.Predict("question, context: list[str] -> found: list[str]")
        self.answer = dspy.ChainOfThought("question, context: list[str] -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        context: list[str] = []
        for hop in range(HOPS):
            found = self.search(question=question, context=context).found
            for passage in found[: self.passages]:
                if passage not in context:
                    context.append(passage)
        return self.answer(question=question, context=list(dict.fromkeys(context)))


program = Hops()
