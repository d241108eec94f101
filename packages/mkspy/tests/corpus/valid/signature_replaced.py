# run: run("q")
import dspy

predict = dspy.Predict("question -> answer")


def run(question):
    predict.signature = predict.signature.append("confidence", dspy.OutputField(), type_=float)
    result = predict(question=question)
    return result.answer, result.confidence
