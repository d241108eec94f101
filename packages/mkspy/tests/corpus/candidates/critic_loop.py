# run: program(question="q").answer
import dspy

ROUNDS = 3


class Critic(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.ChainOfThought("question, critique -> answer")
        self.judge = dspy.Predict("question, answer -> critique, good: bool")

    def forward(self, question: str) -> dspy.Prediction:
        critique, answer = "", ""
        for _ in range(ROUNDS):
            answer = self.answer(question=question, critique=critique).answer
            verdict = self.judge(question=question, answer=answer)
            if verdict.good:
                break
            critique = verdict.critique
        return dspy.Prediction(answer=answer)


program = Critic()
