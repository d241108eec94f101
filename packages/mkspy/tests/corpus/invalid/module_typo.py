# expect: dspy-name
import dspy
class QA(dspy.Modul):
    def forward(self, q):
        return q
