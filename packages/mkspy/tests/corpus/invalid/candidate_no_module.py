# expect: no-module
import dspy

program = dspy.Predict('question -> answer')
