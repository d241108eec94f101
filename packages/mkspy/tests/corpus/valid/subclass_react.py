# run: 1
import dspy


class MyReAct(dspy.ReAct):
    def __init__(self, signature, tools):
        super().__init__(signature, tools=tools, max_iters=3)

    def forward(self, **kwargs):
        result = super().forward(**kwargs)
        return dspy.Prediction(**result, tool_names=list(self.tools))


class Own(dspy.ChainOfThought):
    pass


own = Own("question -> answer")
