# run: QA()(question="q").answer
import dspy
from dspy.utils.callback import BaseCallback


class Printer(BaseCallback):
    def on_module_start(self, call_id, instance, inputs):
        print(call_id, type(instance).__name__, inputs)

    def on_module_end(self, call_id, outputs, exception):
        print(call_id, outputs if exception is None else exception)


class QA(dspy.Module):
    def __init__(self):
        super().__init__(callbacks=[Printer()])
        self.ask = dspy.Predict("question -> answer", callbacks=[Printer()])

    def forward(self, question):
        return self.ask(question=question)
