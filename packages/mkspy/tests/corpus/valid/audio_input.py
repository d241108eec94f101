# run: 1
import dspy

SpokenQA = dspy.Signature("question: str, audio: dspy.Audio -> answer: str")
predict = dspy.ChainOfThought(SpokenQA)


def ask(path: str, question: str) -> str:
    return predict(question=question, audio=dspy.Audio.from_file(path)).answer
