# run: Namer()(description="a red fox").name
import dspy

NameIt = dspy.Signature("description: str -> name: str, slug: str", "Invent a product name.")


class Namer(dspy.Module):
    def __init__(self):
        self.name_it = dspy.ChainOfThought(NameIt)

    def forward(self, description: str) -> dspy.Prediction:
        out = self.name_it(description=description)
        return dspy.Prediction(name=out.name, slug=out["slug"].lower())
