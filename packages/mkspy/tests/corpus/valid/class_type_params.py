# run: Store[str]().get("a", "b")
import dspy


class Store[K](dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[K, str] = {}
        self.ask = dspy.Predict("key -> value")

    def get[D](self, key: K, default: D) -> str | D:
        return self.found.get(key, default)

    def forward(self, key: K) -> dspy.Prediction:
        return self.ask(key=str(key))
