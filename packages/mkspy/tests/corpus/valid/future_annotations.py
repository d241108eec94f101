# run: QA()(question="q").answer
from __future__ import annotations

from typing import TYPE_CHECKING

import dspy

if TYPE_CHECKING:
    from collections.abc import Sequence


class QA(dspy.Module):
    def __init__(self, hints: Sequence[str] = ()) -> None:
        super().__init__()
        self.hints = hints
        self.ask: dspy.Predict = dspy.Predict("question, hints: list[str] -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.ask(question=question, hints=list(self.hints))
