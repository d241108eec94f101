"""What can go wrong in streamll itself. A program's own exceptions always pass through unchanged."""


class StreamllError(Exception):
    """Base of every error streamll raises on purpose."""


class BadEvent(StreamllError, ValueError):
    """Bytes that are not one event of the wire format."""


class ConsumerTooSlow(StreamllError, RuntimeError):
    """The reader of `streamll.stream()` fell further behind than its buffer holds."""


class NotAProgram(StreamllError, TypeError):
    """Something other than a `dspy.Module` was given where a program is expected."""
