# run: read("t")
import dspy

ask = dspy.Predict("question -> answer")


def annotate(result, **fields):
    for name, value in fields.items():
        result[name] = value


def read(question):
    result = ask(question=question)
    annotate(result, words=3)
    return result.words, result.answer
