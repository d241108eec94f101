# run: predict(question="q").answer
import dspy

fields = {
    "question": (str, dspy.InputField()),
    "answer": (str, dspy.OutputField(desc="short")),
}
predict = dspy.Predict(dspy.Signature(fields, "Answer."))
