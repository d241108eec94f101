"""Tasks and their operations: write them, compose them, read them from a file and print them back."""

from mkspy.spec.composition import Branch, Chain, Operation, Parallel
from mkspy.spec.files import dumps, load
from mkspy.spec.loops import Filter, Map, Reduce, Repeat
from mkspy.spec.operations import STRATEGIES, Classify, Extract, Free, Step, Strategy, Tool
from mkspy.spec.task import MEASURES, Example, Measure, Task, default_measure
from mkspy.spec.walk import bindings, walk
from mkspy.types import REQUIRED, Field

__all__ = [
    "MEASURES",
    "REQUIRED",
    "STRATEGIES",
    "Branch",
    "Chain",
    "Classify",
    "Example",
    "Extract",
    "Field",
    "Filter",
    "Free",
    "Map",
    "Measure",
    "Operation",
    "Parallel",
    "Reduce",
    "Repeat",
    "Step",
    "Strategy",
    "Task",
    "Tool",
    "bindings",
    "default_measure",
    "dumps",
    "load",
    "walk",
]
