# run: program(document="a\n\nb").summary
"""Summarize a long document, paragraph by paragraph."""

import dspy


class Shorten(dspy.Signature):
    """Say in one sentence what the paragraph says."""

    paragraph: str = dspy.InputField()
    sentence: str = dspy.OutputField(desc="One sentence.")


class Join(dspy.Signature):
    """Join the sentences into one summary."""

    sentences: list[str] = dspy.InputField()
    summary: str = dspy.OutputField()


class Summary(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shorten = dspy.Predict(Shorten)
        self.join = dspy.ChainOfThought(Join)

    def forward(self, document: str) -> dspy.Prediction:
        paragraphs = [part.strip() for part in document.split("\n\n") if part.strip()]
        sentences = [self.shorten(paragraph=paragraph).sentence for paragraph in paragraphs]
        result = self.join(sentences=sentences)
        return dspy.Prediction(summary=result.summary)


program = Summary()
