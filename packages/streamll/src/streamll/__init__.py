"""Stream a DSPy program's inner workings to its users, as they happen."""

from streamll.consumer import EventConsumer
from streamll.core.events import Event, TokenEvent, decode, encode, with_data
from streamll.eventlog import EventLog
from streamll.frames import sse
from streamll.instrument import configure, dspy_callback, emit, flush, instrument, set_context, trace
from streamll.live import execution, stream

__all__ = [
    "Event",
    "EventConsumer",
    "EventLog",
    "TokenEvent",
    "configure",
    "decode",
    "dspy_callback",
    "emit",
    "encode",
    "execution",
    "flush",
    "instrument",
    "set_context",
    "sse",
    "stream",
    "trace",
    "with_data",
]
