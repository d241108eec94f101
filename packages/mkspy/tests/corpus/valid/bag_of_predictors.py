# run: prompts.classify(text="t").label
import dspy


class Prompts(dspy.Module):
    def __init__(self):
        super().__init__()
        self.classify = dspy.Predict("text -> label")


prompts = Prompts()
print(prompts.classify(text="a").label)
