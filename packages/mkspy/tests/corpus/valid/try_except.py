# run: Safe()(text="t").value
import json

import dspy


class Safe(dspy.Module):
    def __init__(self):
        super().__init__()
        self.guess = dspy.Predict("text -> json_text")

    def forward(self, text):
        try:
            raw = self.guess(text=text).json_text
            value = json.loads(raw)
        except (json.JSONDecodeError, ValueError) as error:
            return dspy.Prediction(value=None, error=str(error))
        finally:
            pass
        return dspy.Prediction(value=value, error=None)
