# run: Triage()(message="m").reply
import dspy


class Triage(dspy.Module):
    def __init__(self):
        super().__init__()
        self.sort = dspy.Predict("message -> team: Literal['a', 'b'], urgent: bool")
        self.reply = dspy.Predict("message, tone -> reply")

    def forward(self, message):
        match self.sort(message=message):
            case dspy.Prediction(team="a", urgent=True):
                tone = "fast"
            case _:
                tone = "kind"
        return self.reply(message=message, tone=tone)
