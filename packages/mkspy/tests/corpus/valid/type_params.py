# run: 1
from typing import Any, Callable, Generic, NamedTuple, Protocol, TypedDict, TypeVar

import dspy

T = TypeVar("T")
type Scorer = Callable[[Any], float]


class Doc(TypedDict):
    title: str
    body: str


class Pair(NamedTuple):
    left: str
    right: str


class Search(Protocol):
    def __call__(self, query: str) -> list[str]: ...


class Box(Generic[T]):
    def __init__(self, value: T):
        self.value = value


def first[V](values: list[V]) -> V:
    return values[0]


class RAG(dspy.Module):
    def __init__(self, search: Search):
        super().__init__()
        self.search = search
        self.respond = dspy.Predict("docs: list[str], question -> response, scores: dict[str, float]")

    def forward(self, question: str) -> dspy.Prediction:
        docs: list[str] = self.search(question)
        result = self.respond(docs=docs, question=question)
        best = max(result.scores, key=lambda name: result.scores[name]) if result.scores else first(docs)
        return dspy.Prediction(response=result.response, best=best)
