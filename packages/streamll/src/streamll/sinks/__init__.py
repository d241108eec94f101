"""Where events go."""

from streamll.sinks.base import BaseSink
from streamll.sinks.jsonl import JsonlSink
from streamll.sinks.terminal import TerminalSink
from streamll.sinks.transport import NatsSink, RabbitMQSink, RedisSink, SqliteSink, TransportSink
from streamll.transports import Retention

__all__ = [
    "BaseSink",
    "JsonlSink",
    "NatsSink",
    "RabbitMQSink",
    "RedisSink",
    "Retention",
    "SqliteSink",
    "TerminalSink",
    "TransportSink",
]
