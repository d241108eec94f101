# expect: syntax
import dspy
class QA(dspy.Module)
    pass
