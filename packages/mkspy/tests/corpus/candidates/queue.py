# run: program(task="t").report
from collections import deque

import dspy


class Queue(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.split = dspy.Predict("task -> parts: list[str]")
        self.report = dspy.Predict("done: list[str] -> report")

    def forward(self, task: str) -> dspy.Prediction:
        todo, done, turns = deque([task]), [], 0
        while todo and turns < 8:
            turns += 1
            one = todo.popleft()
            done.append(one)
            for part in self.split(task=one).parts[:2]:
                todo.append(part)
        return self.report(done=done)


program = Queue()
