# run: index(text="t")
import dspy


class Index(dspy.Module):
    def __init__(self):
        super().__init__()
        self.label = dspy.Predict("text -> label")
        self.index = {}

    def forward(self, text):
        self.index[text] = self.label(text=text).label


index = Index()
