# run: read(text="t")["items"]
import dspy

read = dspy.Predict("text -> items: list[str]")
print(read(text="a")["items"], read(text="a").items())
