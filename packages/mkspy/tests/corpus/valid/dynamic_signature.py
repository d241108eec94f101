# run: Dynamic(["name", "age"])(text="t")
import dspy


class Dynamic(dspy.Module):
    def __init__(self, fields: list[str]):
        super().__init__()
        self.fields = fields
        self.extract = dspy.Predict(f"text -> {', '.join(fields)}")

    def forward(self, text: str):
        result = self.extract(text=text)
        return dspy.Prediction(**{name: getattr(result, name) for name in self.fields})
