# expect: signature-class
import dspy
import pydantic


class S(dspy.Signature):
    """Read."""

    text: str = pydantic.Field(description="what to read")
    label: str = dspy.OutputField()
