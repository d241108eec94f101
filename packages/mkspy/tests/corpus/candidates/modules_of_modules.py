# run: program(topic="t").article
import dspy


class Plan(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.outline = dspy.ChainOfThought("topic -> headings: list[str]")

    def forward(self, topic: str) -> dspy.Prediction:
        return self.outline(topic=topic)


class Write(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plan = Plan()
        self.section = dspy.Predict("topic, heading -> text")

    def _title(self, heading: str) -> str:
        return f"## {heading.strip()}"

    def forward(self, topic: str) -> dspy.Prediction:
        parts: list[str] = []
        for heading in self.plan(topic=topic).headings[:8]:
            try:
                text = self.section(topic=topic, heading=heading).text
            except ValueError as error:
                text = str(error)
            parts.append(f"{self._title(heading)}\n\n{text}")
        return dspy.Prediction(article="\n\n".join(parts))


program = Write()
