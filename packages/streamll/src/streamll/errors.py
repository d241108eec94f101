"""What can go wrong in streamll itself. A program's own exceptions always pass through unchanged."""


class StreamllError(Exception):
    """Base of every error streamll raises on purpose."""


class BadEvent(StreamllError, ValueError):
    """Bytes that are not one event of the wire format."""


class ConsumerTooSlow(StreamllError, RuntimeError):
    """The reader of `streamll.stream()` fell further behind than its buffer holds."""


class NotAProgram(StreamllError, TypeError):
    """Something other than a `dspy.Module` was given where a program is expected."""


class BadUrl(StreamllError, ValueError):
    """A URL, or a name in it, that does not say where events are kept."""


class MissingExtra(StreamllError, ImportError):
    """The client of a backend is not installed; the message names the extra that brings it."""


class Unreachable(StreamllError, ConnectionError):
    """The server does not answer, or went away: worth another try."""


class Refused(StreamllError, PermissionError):
    """The server answers, but not to us: password, permission, or another kind of server on that port."""


class EventsExpired(StreamllError, LookupError):
    """A reader asked for events that retention has cut.

    Attributes:
        available: What is left: the first sequence of the execution, or the cursor to follow from; None when
            nothing is.
    """

    def __init__(self, message: str, available: int | str | None = None) -> None:
        super().__init__(message)
        self.available = available
