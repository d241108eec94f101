# run: predict(question="Why?").answer
import dspy

predict = dspy.Predict("question -> answer")

if __name__ == "__main__":
    dspy.configure(lm=dspy.LM("openai/gpt-4o-mini"))
    print(predict(question="What is the tallest mountain?").answer)
