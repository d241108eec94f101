# run: Compare()(question="q").answer
import dspy


class Compare(dspy.Module):
    def __init__(self, chains: int = 3):
        super().__init__()
        self.think = [dspy.ChainOfThought("question -> answer", temperature=0.7) for _ in range(chains)]
        self.compare = dspy.MultiChainComparison("question -> answer", M=chains)

    def forward(self, question):
        completions = [one(question=question) for one in self.think]
        return self.compare(completions, question=question)
