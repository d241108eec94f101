# run: Pipeline()(text="t").label
import functools

import dspy


def step(signature: str, **config):
    return dspy.ChainOfThought(signature, **config)


@functools.lru_cache(maxsize=8)
def clean(text: str) -> str:
    return " ".join(text.split())


class Pipeline(dspy.Module):
    def __init__(self):
        super().__init__()
        self.summarize = step("text -> summary")
        self.classify = step("summary -> label: Literal['good', 'bad']", temperature=0.1)

    def forward(self, text):
        summary = self.summarize(text=clean(text)).summary
        return self.classify(summary=summary)


program = Pipeline()
