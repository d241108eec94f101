"""How numbers, values and foreign text are put into words, for a person at a terminal.

What a model, a tool or a name contains is never trusted: everything passes through `visible`, `quoted` or
`prose` before it is shown, so that no text can move the cursor, set the title or reverse what is read.
"""

import json
import re
from collections.abc import Mapping
from itertools import islice
from math import floor, log10

from streamll.core.events import Event, JsonValue

NO_DATA: Mapping[str, JsonValue] = {}

_UNSEEN = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_HIDDEN = re.compile(rf"[\t\n{_UNSEEN}]")
_HIDDEN_IN_PROSE = re.compile(rf"[{_UNSEEN}]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: object) -> str:
    """Return `text` on one line, control characters and bidi overrides as escapes: `\\x1b`."""
    return _HIDDEN.sub(_escaped, str(text))


def prose(text: str) -> str:
    """Return `text` as `visible` does, but with its lines and tabs."""
    return _HIDDEN_IN_PROSE.sub(_escaped, text.replace("\r\n", "\n")).replace("\t", "    ")


def quoted(text: str) -> str:
    """Return `text` as a JSON string on one line, letters of any script as they are."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return _SHORT.get(found[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


# --- values -------------------------------------------------------------------------------------------------

_encoder = json.JSONEncoder(ensure_ascii=False)


def brief(value: JsonValue, room: int = 60) -> str:
    """Return the beginning of `value` as JSON, in about `room` characters; a large one is not read whole."""
    if isinstance(value, str):
        return quoted(value if len(value) <= room else f"{value[: room - 1]}…")
    text = ""
    for piece in _encoder.iterencode(value):
        text += piece
        if len(text) > room:
            return f"{visible(text[: room - 1])}…"
    return visible(text)


def named(values: Mapping[str, JsonValue], room: int = 80) -> str:
    """Return `query="sky", k=3`; each value gets its share of the room, and many do not all get one."""
    share = max(20, room // max(1, len(values)))
    parts = [f"{visible(name)}={brief(value, share)}" for name, value in islice(values.items(), room // 20)]
    return ", ".join([*parts, "…"] if len(parts) < len(values) else parts)


def mapping(data: Mapping[str, JsonValue], key: str) -> Mapping[str, JsonValue]:
    """Return `data[key]` when it is an object, else an empty one."""
    value = data.get(key)
    return value if isinstance(value, dict) else NO_DATA


def number(data: Mapping[str, JsonValue], key: str) -> float | None:
    value = data.get(key)
    return value if isinstance(value, int | float) else None


# --- numbers ------------------------------------------------------------------------------------------------


def took(milliseconds: float | None) -> str:
    """Return `12 ms`, `0.8 s`, `2 m 05 s`; nothing for nothing."""
    if milliseconds is None:
        return ""
    if milliseconds < 100:
        return f"{milliseconds:.0f} ms" if milliseconds >= 1 else "< 1 ms"
    if milliseconds < 59_950:  # what is rounded to 60.0 is a minute
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(round(milliseconds / 1000), 60)
    return f"{minutes} m {seconds:02} s"


def money(usd: float) -> str:
    """Return dollars, with two digits that say something when it is less than a cent."""
    if usd <= 0:
        return "$0"
    return f"${usd:,.2f}" if usd >= 0.01 else "$" + f"{usd:.{1 - floor(log10(usd))}f}".rstrip("0")


def tokens(data: Mapping[str, JsonValue]) -> str:
    """Return `120→38 tokens`; nothing when the provider did not say."""
    read, written = number(data, "input_tokens"), number(data, "output_tokens")
    return f"{read or 0:.0f}→{written or 0:.0f} tokens" if read or written else ""


def counted(count: float | None, thing: str) -> str:
    return f"{count:.0f} {thing}{'' if count == 1 else 's'}" if count else ""


# --- events -------------------------------------------------------------------------------------------------

_USUAL_ENDS = (None, "stop", "tool_call", "tool_calls", "end_turn")


def lm_facts(data: Mapping[str, JsonValue]) -> list[str]:
    """Return what is known of a finished LM call: `0.8 s`, `61 tok/s`, `120→38 tokens`, `$0.0002`."""
    cost, rate, finish = (
        number(data, "cost_usd"),
        number(data, "tokens_per_second"),
        data.get("finish_reason"),
    )
    facts = [
        took(number(data, "duration_ms")),
        f"{rate:.0f} tok/s" if rate and rate < 10_000 and not data.get("cached") else "",
        tokens(data),
        "cached" if data.get("cached") else money(cost) if cost is not None else "",
        f"{retries:.0f} retried" if (retries := number(data, "retries")) else "",
        f"stopped by {visible(finish)}" if finish not in _USUAL_ENDS else "",
    ]
    return [fact for fact in facts if fact]


def summary(data: Mapping[str, JsonValue], sources: Mapping[str, int]) -> list[str]:
    """Return the totals of an execution; `sources` says how the cost of how many LM calls is known."""
    facts = [
        took(number(data, "duration_ms")),
        counted(number(data, "lm_calls"), "LM call"),
        counted(number(data, "tool_calls"), "tool call"),
        tokens(data),
        _cost(number(data, "cost_usd") or 0, sources),
        counted(number(data, "corrections"), "correction"),
    ]
    return [fact for fact in facts if fact]


def _cost(usd: float, sources: Mapping[str, int]) -> str:
    if sources and not set(sources) - {"unknown"}:
        return "cost unknown"
    if len(sources) == 1:
        return f"{money(usd)} ({next(iter(sources))})"
    parts = ", ".join(f"{count} {source}" for source, count in sources.items())
    return f"{money(usd)} ({parts})" if parts else money(usd) if usd else ""


def error_of(event: Event) -> tuple[str, str, str]:
    """Return code, message and hint of an `*_error` event; an empty message is replaced by the class."""
    error = mapping(event.data, "error")
    kind, message = visible(error.get("type") or ""), visible(error.get("message") or "")
    code, hint = visible(error.get("code") or kind or "error"), visible(error.get("hint") or "")
    return code, f"{kind}: {message}" if kind and message else message or kind, hint


def output_field(event: Event) -> str:
    """Return what a token belongs to: `answer`, or `answer[1]` of several candidates; "" for plain text."""
    name, candidate = event.data.get("field"), event.data.get("candidate")
    field = "" if name is None else visible(name)
    return field if candidate is None else f"{field}[{candidate}]"


def own_data(event: Event, ids: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Return what the user put into an event, without the correlation ids that every event carries."""
    return {name: value for name, value in event.data.items() if name not in ids or ids[name] != value}
