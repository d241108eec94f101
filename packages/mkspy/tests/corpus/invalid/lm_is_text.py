# expect: lm-text
import dspy

dspy.configure(lm="openai/gpt-4o-mini")
print(dspy.Predict("question -> answer")(question="x").answer)
