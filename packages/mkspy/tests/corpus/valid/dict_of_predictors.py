# run: Router()(message="m").reply
import dspy


class Router(dspy.Module):
    def __init__(self):
        super().__init__()
        self.route = dspy.Predict("message -> team: Literal['billing', 'shipping']")
        self.desks = {
            "billing": dspy.ChainOfThought("message -> reply"),
            "shipping": dspy.ChainOfThought("message -> reply, parcel: str | None"),
        }

    def forward(self, message):
        team = self.route(message=message).team
        desk = self.desks.get(team, self.desks["billing"])
        return desk(message=message)
