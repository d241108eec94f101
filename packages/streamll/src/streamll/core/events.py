"""The vocabulary and the wire format: one event is one JSON object, the same on every transport.

`event.data` is the truth; what `TokenEvent` adds are readable names for it. A reader ignores fields it does
not know and treats an unknown `event_type` as a plain event, so both may grow without a new `version`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec

from streamll.errors import BadEvent

VERSION = 1
"""Schema version of the wire format, in every event's `version`."""

if TYPE_CHECKING:
    type JsonValue = str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None
else:
    JsonValue = Any  # msgspec has no recursive aliases; what the decoder yields is JSON anyway

SPANS = (
    "execution",
    "module",
    "lm",
    "tool",
    "adapter_format",
    "adapter_parse",
    "evaluate",
    "compile",
    "interpreter",
    "trace",
)
"""What has a beginning and an end: each `<span>_start` is closed by one `<span>_end` or `<span>_error`."""

LAST = ("execution_end", "execution_error")
"""Each closes the log of its execution."""

type FinishReason = Literal["stop", "length", "tool_call", "content_filter", "error"] | str


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened in one execution.

    Attributes:
        event_id: Unique over all executions: `<execution_id>-<sequence>`.
        execution_id: The outermost program call (or outermost `trace`) it belongs to.
        sequence: Gapless from 0 within the execution; the order in which things happened.
        timestamp: UTC, microseconds.
        event_type: `lm_start`, `token`, ... or any name a user emits.
        call_id: The call it is about; DSPy's own call id where DSPy has one.
        parent_call_id: The call that made that call, None at the root.
        module_name: Dotted path of the module in the program, `generate.predict`; the root's is its class.
        operation: What ran: module or adapter class, model, tool or trace name.
        data: JSON, with the correlation ids of `set_context` in it.
        tags: Free labels.
        version: Of the wire format.
    """

    event_id: str
    execution_id: str
    sequence: int
    timestamp: datetime
    event_type: str
    call_id: str | None = None
    parent_call_id: str | None = None
    module_name: str | None = None
    operation: str | None = None
    data: dict[str, JsonValue] = {}
    tags: tuple[str, ...] = ()
    version: int = VERSION

    @property
    def is_last(self) -> bool:
        """True for the event that closes its execution's log, also when all there is of it is a gap."""
        return self.event_type in LAST or (self.event_type == "gap" and self.data.get("ended") is True)


class TokenEvent(Event, frozen=True, kw_only=True):
    """A piece of an output field, as the model writes it.

    The last one of a field has a `finish_reason`, and for a field whose type is not `str` its parsed `value`
    in `data`. `data["raw"]` marks text that is the field's wire form rather than its value.
    """

    event_type: str = "token"

    @property
    def token(self) -> str:
        """Text to append; may be empty in the event that ends a field."""
        return cast("str", self.data.get("token", ""))

    @property
    def token_index(self) -> int:
        """Position among the events of this field in this LM call, from 0; from 0 again after a reset."""
        return cast("int", self.data.get("token_index", 0))

    @property
    def field(self) -> str | None:
        """Name of the output field; None for the text of an LM called directly, without a signature."""
        return cast("str | None", self.data.get("field"))

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the model stopped, in the last event of a field."""
        return cast("str | None", self.data.get("finish_reason"))


class ResultEvent(Event, frozen=True, kw_only=True):
    """The last event of `streamll.stream()`: an `execution_end` that carries what the program returned.

    The object itself stays in this process; on the wire it is the `execution_end` that every other sink sees.
    """

    prediction: object = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)
_token_decoder = msgspec.json.Decoder(TokenEvent)


def encode(event: Event) -> bytes:
    """Return the wire form of `event`: one line of UTF-8 JSON."""
    return _encoder.encode(plain(event) if type(event) is ResultEvent else event)


def decode(line: bytes | str) -> Event:
    """Return the event written by `encode`; unknown fields are ignored.

    Raises:
        BadEvent: Not JSON, or not an event, which the message says where; or of a later version.
    """
    try:
        is_token = b'"event_type":"token"' in (line if isinstance(line, bytes) else line.encode())
        event = (_token_decoder if is_token else _decoder).decode(line)
    except (msgspec.MsgspecError, UnicodeError) as error:
        given = line[:80]
        raise BadEvent(
            f"{given!r} is not a streamll event: {error}. Expected the output of encode()."
        ) from error
    if event.version > VERSION:
        raise BadEvent(
            f"{line[:80]!r} is of version {event.version}; this streamll reads {VERSION}: upgrade."
        )
    if (event.event_type == "token") is is_token:
        return event
    return rebuilt(event, Event if is_token else TokenEvent)  # other spacing, or it was in the data


def plain(event: Event) -> Event:
    """Return `event` without what only lives in this process."""
    return rebuilt(event, Event)


def rebuilt[E: Event](event: Event, kind: type[E], **values: Any) -> E:
    """Return `event` as another kind of event, with `values` changed or added."""
    fields: dict[str, Any] = {name: getattr(event, name) for name in Event.__struct_fields__}
    return kind(**(fields | values))


def with_data(event: Event, data: Mapping[str, JsonValue]) -> Event:
    """Return `event` with other data: what a `redact` function gives back."""
    return msgspec.structs.replace(event, data=dict(data))
