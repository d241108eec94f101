"""What a sink is: an object whose `handle_event` is called on a thread of its own, one event at a time."""

from abc import ABC, abstractmethod

from streamll.core.events import Event


class BaseSink(ABC):
    """Override `handle_event`; the rest is concrete.

    streamll calls `handle_event` from the sink's own worker, in the order of the log, never from the
    program's thread: it may block. What it raises is logged and counted, the other sinks and the program do
    not notice. It may be `async`. The worker starts the sink before its first event.
    """

    def __init__(self) -> None:
        self.is_running = False

    @abstractmethod
    def handle_event(self, event: Event) -> object:
        """Take one event."""

    def start(self) -> None:
        """Make ready; called before the first event, and harmless to call again."""
        self.is_running = True

    def stop(self) -> None:
        """Flush and let go of what `start` took."""
        self.flush()
        self.is_running = False

    def flush(self, timeout: float | None = None) -> bool:
        """Write out what the sink buffers. Returns False when `timeout` seconds were not enough."""
        return True
