# run: (Ask()(question="q"), Tell()(question="q"))
import dspy


def run(self, question):
    return self.ask(question=question)


class Ask(dspy.Module):
    forward = run

    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")


class Tell(dspy.Module):
    def __init__(self):
        super().__init__()
        self.ask = dspy.Predict("question -> answer")


Tell.forward = run
