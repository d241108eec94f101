# run: ask(question="q").answer
import dspy

ask = dspy.Predict("question -> answer")
if hasattr(dspy, "Assert"):
    dspy.Assert(True, "an old DSPy")
