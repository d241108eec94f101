# expect: dspy-name
from dspy import Module, Predct


class QA(Module):
    def __init__(self):
        self.p = Predct('q -> a')

    def forward(self, q):
        return self.p(q=q)
