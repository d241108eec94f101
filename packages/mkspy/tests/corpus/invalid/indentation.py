# expect: syntax
import dspy
class QA(dspy.Module):
  def forward(self, q):
      return q
    x = 1
