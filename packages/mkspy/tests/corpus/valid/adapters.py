# run: p(passage="t").facts
import dspy
from dspy.adapters import JSONAdapter

p = dspy.Predict("passage -> facts: list[str]")


def extract(passage):
    with dspy.context(adapter=JSONAdapter()):
        return p(passage=passage).facts


def extract_xml(passage):
    with dspy.settings.context(adapter=dspy.XMLAdapter()):
        return p(passage=passage).facts
