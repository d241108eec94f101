# run: program(document="a b c").summary
import math

import dspy


def cut(text: str, size: int) -> list[str]:
    """Return parts of a text."""
    return [text[start : start + size] for start in range(0, len(text), size)]


class Chunks(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.size = 500
        self.note = dspy.Predict("part -> note")
        self.join = dspy.Predict("notes: list[str], many: int -> summary")

    def forward(self, document: str) -> dspy.Prediction:
        many = math.ceil(len(document) / self.size)
        notes = ["" for _ in range(min(many, 20))]
        for at, part in enumerate(cut(document, self.size)[:20]):
            notes[at] = self.note(part=part).note
        return self.join(notes=notes, many=many)


program = Chunks()
