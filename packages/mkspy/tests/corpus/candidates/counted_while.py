# run: program(text="t").text
import re

import dspy


class Polish(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.polish = dspy.Predict("text -> text_after: str, done: bool")

    def forward(self, text: str) -> dspy.Prediction:
        rounds, done = 0, False
        while rounds < 3 and not done:
            result = self.polish(text=text, config={"temperature": 0.3})
            text, done = re.sub(r"\s+", " ", result.text_after), result.done
            rounds += 1
        return dspy.Prediction(text=text)


program = Polish()
