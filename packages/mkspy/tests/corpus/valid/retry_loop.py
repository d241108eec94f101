# run: Careful()(question="q").answer
import dspy


class Careful(dspy.Module):
    def __init__(self, attempts: int = 3):
        super().__init__()
        self.attempts = attempts
        self.answer = dspy.ChainOfThought("question, hint -> answer")
        self.check = dspy.Predict("question, answer -> ok: bool, critique")

    def forward(self, question):
        hint = ""
        result = None
        for attempt in range(self.attempts):
            result = self.answer(question=question, hint=hint)
            verdict = self.check(question=question, answer=result.answer)
            if verdict.ok:
                break
            hint = verdict.critique
        else:
            hint = "gave up"
        result.hint = hint
        return dspy.Prediction(answer=result.answer, hint=result.hint)
