# run: build()(text="t").label
import dspy


def build(labels=("x", "y")):
    class Sort(dspy.Signature):
        """Sort."""

        text: str = dspy.InputField()
        label: str = dspy.OutputField(desc=" or ".join(labels))

    class Sorter(dspy.Module):
        def __init__(self):
            super().__init__()
            self.sort = dspy.Predict(Sort)

        def forward(self, text):
            return self.sort(text=text)

    return Sorter()
