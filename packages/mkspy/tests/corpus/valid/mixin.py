# run: Logged()(question="q").answer
import logging

import dspy

logger = logging.getLogger(__name__)


class LoggingMixin:
    def log(self, message, *args):
        logger.info(message, *args)


class Logged(LoggingMixin, dspy.Module):
    def __init__(self):
        super().__init__()
        self.qa = dspy.Predict("question -> answer")

    def forward(self, question):
        self.log("asked %s", question)
        return self.qa(question=question)
