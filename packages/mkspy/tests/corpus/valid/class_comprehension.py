# run: Sort()(text="t").team
import dspy


class Sort(dspy.Module):
    TEAMS = ["billing", "shipping"]
    NUMBERS = {team: number for number, team in enumerate(TEAMS)}

    def __init__(self):
        super().__init__()
        self.sort = dspy.Predict("text, teams: list[str] -> team")

    def forward(self, text):
        return self.sort(text=text, teams=self.TEAMS)
