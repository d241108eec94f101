# run: Lazy()(question="q").answer
import dspy


class Lazy(dspy.Module):
    def forward(self, question: str, style: str = "short"):
        predict = dspy.ChainOfThought(f"question -> answer", temperature=0.3)
        with dspy.context(track_usage=True):
            result = predict(question=question)
        return result
