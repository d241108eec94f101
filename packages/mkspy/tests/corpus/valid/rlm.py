# run: 1
import dspy

rlm = dspy.RLM("context, query -> answer", max_iters=5)


def ask(context: str, query: str) -> str:
    result = rlm(context=context, query=query)
    return result.answer
