# expect: result-field
import dspy

read = dspy.Predict("text -> items: list[str]")
print(len(read(text="a").items))
