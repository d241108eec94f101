# expect: signature-class
import dspy


class S(dspy.Signature):
    """Read."""

    text: str = dspy.InputField("what to read")
    label: str = dspy.OutputField()
