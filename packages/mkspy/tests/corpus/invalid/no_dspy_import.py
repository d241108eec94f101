# expect: undefined-name
class QA(dspy.Module):
    def forward(self, q):
        return q
