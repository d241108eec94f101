# expect: no-dspy
# import dspy
# class QA(dspy.Module): forward
