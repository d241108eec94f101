# expect: no-program
import dspy


class P(dspy.Module):
    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=question)


program = dspy.Predict('question -> answer')
