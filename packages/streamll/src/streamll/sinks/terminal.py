"""stub replaced by the helper"""
import sys

from streamll.core.events import Event, TokenEvent
from streamll.sinks.base import BaseSink


class TerminalSink(BaseSink):
    def handle_event(self, event: Event) -> None:
        if isinstance(event, TokenEvent):
            print(f'[TOKEN] {event.field}: "{event.token}"', flush=True)
        else:
            print(event.event_type, event.module_name, event.operation, file=sys.stdout, flush=True)
