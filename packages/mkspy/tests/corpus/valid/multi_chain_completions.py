# run: run("q").answer
import dspy

think = dspy.ChainOfThought("question -> answer", n=3)
compare = dspy.MultiChainComparison("question -> answer", M=3, temperature=0.5)


def run(question):
    drafts = [think(question=question) for _ in range(3)]
    best = compare(completions=drafts, question=question)
    print(best.rationale)
    return best
