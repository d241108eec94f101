# run: run("q")
import dspy

predict = dspy.Predict("question -> answer", n=2)


def run(question: str):
    response = predict(question=question, config={"temperature": 0.9}, demos=[])
    return response.completions.answer, response.toDict(), response.get("answer")
