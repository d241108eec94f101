# run: ask
import dspy

ask = dspy.Predict("question -> answer")


def certain(question):
    return ask(question=question, config={"logprobs": True}).logprobs
