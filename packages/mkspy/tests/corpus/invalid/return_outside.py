# expect: syntax
import dspy
return dspy.Predict('q -> a')
