# run: Weather()(question="Rain?").answer
import dspy


class Weather(dspy.Module):
    def __init__(self):
        super().__init__()
        tool = dspy.Tool(self.forecast, name="forecast", desc="Tomorrow's weather in a city.")
        self.react = dspy.ReAct("question -> answer", tools=[tool, self.now], max_iters=3)

    def forecast(self, city: str) -> str:
        return f"rain in {city}"

    def now(self, city: str) -> str:
        """The weather in a city."""
        return f"sun in {city}"

    def forward(self, question: str):
        return self.react(question=question)
