"""Where events go."""

from streamll.sinks.base import BaseSink
from streamll.sinks.jsonl import JsonlSink
from streamll.sinks.terminal import TerminalSink

__all__ = ["BaseSink", "JsonlSink", "TerminalSink"]
