# run: program(brief="b").best
import dspy


class Selection(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ideas = dspy.Predict("brief -> ideas: list[str]")
        self.rate = dspy.Predict("idea -> score: float")
        self.kinds = {
            "short": dspy.Predict("idea -> text"),
            "long": dspy.ChainOfThought("idea -> text"),
        }

    def forward(self, brief: str) -> dspy.Prediction:
        write = self.kinds.get(brief, self.kinds["short"])
        best, score = brief, self.rate(idea=brief).score
        left, done = 3, None
        while left and done is None:
            left -= 1
            rated = [(idea, self.rate(idea=idea).score) for idea in self.ideas(brief=best).ideas[:3]]
            new, top = max(rated, default=(best, score), key=lambda pair: pair[1])
            if top > score:
                best, score = new, top
            else:
                done = new
            best, score = max((best, score), (new, top), key=lambda pair: pair[1])
        return dspy.Prediction(best=write(idea=best).text, winner=self._winner(brief), state=self._notes(brief))

    def _winner(self, brief: str) -> str:
        pool = self.ideas(brief=brief).ideas[:8]
        for _ in range(3):
            winners = []
            for at in range(0, len(pool) - 1, 2):
                first, second = pool[at], pool[at + 1]
                winners.append(first if self.rate(idea=first).score > 0.5 else second)
            pool = winners
        return pool[0] if pool else ""

    def _notes(self, brief: str) -> list[str]:
        state = {"brief": brief, "notes": [brief]}
        scores, weights = [1.0, 2.0], [0.5, 0.25]
        for _ in range(3):
            state = {**state, "notes": state["notes"] + self.ideas(brief=brief).ideas}
            total = sum(scores)
            scores = [score / total * weight for score, weight in zip(scores, weights)]
        return [*state["notes"], str(scores)]


program = Selection()
