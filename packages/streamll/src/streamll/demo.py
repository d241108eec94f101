"""The program that `streamll demo` runs: a tool looks a passage up, ChainOfThought answers from it."""

import re
from importlib.resources import files
from typing import cast

import dspy

import streamll


def passages() -> list[str]:
    """Return the bundled handbook of lighthouses, a sentence each."""
    return files("streamll").joinpath("handbook.txt").read_text(encoding="utf-8").splitlines()


def search_handbook(query: str) -> str:
    """Return the sentence of the handbook that shares most words with the query."""
    asked = _words(query)
    return max(passages(), key=lambda passage: len(asked & _words(passage)))


_COMMON = frozenset("a an are did do does how in is it of the to was were what when which who why".split())  # noqa: SIM905


def _words(text: str) -> frozenset[str]:
    """Return the words of `text` that say what it is about, without a plural's s."""
    return frozenset(word.removesuffix("s") for word in re.findall(r"\w+", text.lower())) - _COMMON


class Answer(dspy.Signature):
    """Use the context to answer the question."""

    question: str = dspy.InputField()
    context: str = dspy.InputField()
    answer: str = dspy.OutputField()


@streamll.instrument(stream_fields=["reasoning", "answer"])
class Handbook(dspy.Module):
    """Answers questions about lighthouses from a handbook."""

    def __init__(self) -> None:
        super().__init__()
        self.search = dspy.Tool(search_handbook)
        self.respond = dspy.ChainOfThought(Answer)

    def forward(self, question: str) -> dspy.Prediction:
        with streamll.trace("retrieval") as step:
            passage = str(cast("object", self.search(query=question)))
            step.emit("passage_found", words=len(passage.split()))
        return self.respond(question=question, context=passage)
