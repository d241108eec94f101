# run: Editor()(text="t").summary
import dspy


class Write(dspy.Signature):
    """Write."""

    text: str = dspy.InputField()
    summary: str = dspy.OutputField()


class Editor(dspy.Module):
    def __init__(self, tone: str = "calm"):
        super().__init__()
        signature = Write.with_instructions(f"Summarize in a {tone} tone.")
        signature = signature.append("keywords", dspy.OutputField(desc="keywords"), type_=list[str])
        signature = signature.prepend("audience", dspy.InputField())
        self.write = dspy.Predict(signature)

    def forward(self, text, audience="everyone"):
        result = self.write(text=text, audience=audience)
        return dspy.Prediction(summary=result.summary, keywords=result.keywords)
