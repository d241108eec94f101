# run: read("t")
import dspy

ask = dspy.Predict("question -> answer")


def read(question):
    result = ask(question=question)
    if "warning" in result:
        return result["warning"]
    why = result.reasoning if hasattr(result, "reasoning") else ""
    try:
        return result.rationale
    except (AttributeError, KeyError):
        return why + result.answer
