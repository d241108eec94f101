# run: entities(text="x").people
from typing import Dict, List, Tuple

import dspy


class Entities(dspy.Signature):
    """Extract entities from the text."""

    text: str = dspy.InputField()
    people: List[str] = dspy.OutputField(desc="People's names")
    places: list[Tuple[str, int]] = dspy.OutputField()
    meta: Dict[str, float] = dspy.OutputField()


entities = dspy.Predict(Entities)
