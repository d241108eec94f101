# run: Agent().name
import threading

import dspy


class Agent(threading.Thread):
    """What runs it may be in the base, which is in another file."""

    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("question -> answer")
