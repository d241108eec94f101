# run: program(root="r", goal="g", budget=3).found
from collections import deque

import dspy


class Levels(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand = dspy.Predict("node, n: int -> children: list[str]")

    def forward(self, root: str, goal: str, budget: int) -> dspy.Prediction:
        level, last = [root], [root]
        for _ in range(3):
            following = []
            for node in level:
                following.append(node + "!")
                for child in self.expand(node=node, n=budget).children[:2]:
                    following.append(child)
            level = following
        for _ in range(2):
            later: list[str] = []
            for node in last:
                later += self.expand(node=node, n=len(level)).children[:2]
            last = later
        for _ in range(2):
            last = [child for node in last for child in self.expand(node=node, n=budget).children]
        return dspy.Prediction(found=self._depths(root), path=self._path(root, goal), last=last)

    def _depths(self, root: str) -> list[str]:
        todo, found = deque([root]), [root]
        waiting = deque([(root, 0)])
        for _ in range(10):
            if not waiting:
                break
            node, depth = waiting.popleft()
            found.append(f"{depth}: {node}")
            waiting.extend((child, depth + 1) for child in self.expand(node=node, n=2).children)
        return [*todo, *found]

    def _path(self, root: str, goal: str) -> list[str]:
        todo = [(root, [root])]
        for _ in range(10):
            if not todo:
                break
            node, path = todo.pop()
            if node == goal:
                return path
            longer = path + [node]
            for child in self.expand(node=node, n=2).children:
                todo.append((child, longer))
        return []


program = Levels()
