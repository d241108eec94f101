# run: Reviews()(texts=["a", "b"]).labels
import dspy


class Reviews(dspy.Module):
    def __init__(self):
        super().__init__()
        self.label = dspy.Predict("text -> label")
        self.parallel = dspy.Parallel(num_threads=2)

    def forward(self, texts: list[str]):
        results = self.parallel([(self.label, {"text": text}) for text in texts])
        return dspy.Prediction(labels=[one.label for one in results])
