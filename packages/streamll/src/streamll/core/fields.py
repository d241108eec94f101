"""Completion text in, deltas of output fields out: one parser per adapter, no I/O, no opinion on chunk size.

An adapter reads a completion once it is whole; a parser here reads it while it grows and says of each piece of
text, as soon as it is certain, which field it belongs to. The rule that makes a stream trustworthy: what was
said for a `str` field, joined, is the value the adapter's own `parse` returns, wherever the chunks were cut.

Three kinds of text are uncertain and wait: the beginning of a marker (a header, an escape, a tag), whitespace
that the adapter strips if nothing follows it, and anything after JSON has left its grammar, because how
`json_repair` reads a bent completion depends on what comes later. A few things only the end can tell (a second
JSON key of the same name wins, a second XML element makes a list). For these, and for bent JSON, the parser
reads the whole at the end as the adapter does and says what is missing, or starts the field again (`reset`).
"""

import re
from collections.abc import Callable, Mapping
from json import loads
from json.decoder import scanstring
from typing import NamedTuple, Protocol
from xml.etree import ElementTree
from xml.parsers import expat
from xml.sax.saxutils import escape

import json_repair
import regex


class Delta(NamedTuple):
    """Text to append to what a field has so far.

    Attributes:
        field: Name of the output field.
        text: What follows.
        raw: The field is not a `str`: this is how the model wrote its value, not the value.
        reset: Everything said of this field so far is void, `text` starts it again.
    """

    field: str
    text: str
    raw: bool = False
    reset: bool = False


class FieldParser(Protocol):
    """Reads one completion of one adapter. Never raises, whatever the text."""

    def feed(self, chunk: str) -> list[Delta]:
        """Return what `chunk` makes certain, in order; often nothing."""
        ...

    def close(self) -> list[Delta]:
        """Return what the end of the completion makes certain. Calling it again returns nothing."""
        ...


class _Trimmed:
    """Text whose trailing whitespace waits for something to follow it; leading whitespace is dropped if asked."""

    def __init__(self, *, drop_leading: bool) -> None:
        self._leading = drop_leading
        self._waiting: list[str] = []

    def add(self, text: str) -> str:
        """Return what is certain to be kept."""
        if self._leading:
            text = text.lstrip()
        body = text.rstrip()
        if not body:
            if text:
                self._waiting.append(text)
            return ""
        self._leading = False
        if self._waiting:
            certain = "".join(self._waiting) + body
            self._waiting = []
        else:
            certain = body
        if len(body) < len(text):
            self._waiting.append(text[len(body) :])
        return certain

    def release(self) -> str:
        """Return the whitespace that waited: it is kept after all, or the caller drops it."""
        waited, self._waiting = "".join(self._waiting), []
        return waited


_HEADER = re.compile(r"\[\[ ## (\w+) ## \]\]")
_CUT_HEADER = re.compile(
    r"\[(?:\[(?: (?:#(?:#(?: (?P<name>\w+(?P<rest> (?:#(?:#(?: (?:\])?)?)?)?)?)?)?)?)?)?)?"
)
_WORD = re.compile(r"\w+")
_LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


class ChatParser:
    """`[[ ## field ## ]]` at the start of a line opens a field, any header ends it, the first of a name counts."""

    def __init__(self, fields: Mapping[str, bool]) -> None:
        self._fields = fields
        self._seen: set[str] = set()
        self._field: str | None = None
        self._text = _Trimmed(drop_leading=True)
        self._ready: list[str] = []
        self._deltas: list[Delta] = []
        self._after_return = False
        self._start_line(after_header=False)

    def feed(self, chunk: str) -> list[Delta]:
        """Return what `chunk` makes certain. At most one unfinished header and whitespace wait."""
        if self._after_return and chunk:
            self._after_return = False
            chunk = chunk.removeprefix("\n")
        for line in chunk.splitlines(keepends=True):
            self._read(line)
        return self._take()

    def close(self) -> list[Delta]:
        """Return the unfinished header, which is text after all."""
        self._not_a_header("")
        return self._take()

    def _read(self, line: str) -> None:
        """Read a line, or the part of one that has come."""
        body = line.rstrip(_LINE_BREAKS)
        if body:
            if self._may_be_header:
                self._read_start(body)
            else:
                self._add(body)
        if len(body) < len(line):
            self._end_line()
            self._after_return = line.endswith("\r")

    def _read_start(self, text: str) -> None:
        if not self._head:
            body = text.lstrip()
            self._indent += len(text) - len(body)
            self._add(text[: len(text) - len(body)])
            text = body
        if self._in_name and _WORD.fullmatch(text):
            self._head.append(text)
        elif text:
            self._decide("".join((*self._head, text)))

    def _decide(self, head: str) -> None:
        if header := _HEADER.match(head):
            self._open(header[1])
            # The adapter cuts the unstripped line where the header ends in the stripped one.
            self._add(head[max(header.end() - self._indent, 0) :])
        elif cut := _CUT_HEADER.fullmatch(head):
            self._head = [head]
            self._in_name = cut["name"] is not None and not cut["rest"]
        else:
            self._head = []
            self._not_a_header(head)

    def _not_a_header(self, text: str) -> None:
        head, self._head = "".join(self._head), []
        self._may_be_header = False
        self._add(head + text)

    def _open(self, name: str) -> None:
        self._flush()
        self._field = name if name in self._fields and name not in self._seen else None
        self._seen.add(name)
        self._text = _Trimmed(drop_leading=True)
        self._head = []
        self._may_be_header = False
        self._after_header = True

    def _end_line(self) -> None:
        if self._head:
            self._not_a_header("")
        if self._after_header:
            self._text.release()
        self._add("\n")
        self._start_line(after_header=False)

    def _start_line(self, *, after_header: bool) -> None:
        self._after_header = after_header
        self._may_be_header = True
        self._in_name = False
        self._indent = 0
        self._head: list[str] = []

    def _add(self, text: str) -> None:
        if self._field is not None and (certain := self._text.add(text)):
            self._ready.append(certain)

    def _flush(self) -> None:
        if self._ready and self._field is not None:
            self._deltas.append(Delta(self._field, "".join(self._ready), not self._fields[self._field]))
        self._ready = []

    def _take(self) -> list[Delta]:
        self._flush()
        deltas, self._deltas = self._deltas, []
        return deltas


class _Emitted:
    """The deltas of one feed, and all that was said of each field, to hold against what the adapter reads."""

    def __init__(self, fields: Mapping[str, bool]) -> None:
        self._fields = fields
        self._said: dict[str, list[str]] = {}
        self._deltas: list[Delta] = []

    def say(self, field: str, text: str) -> None:
        if text:
            self._said.setdefault(field, []).append(text)
            self._deltas.append(Delta(field, text, not self._fields[field]))

    def settle(self, field: str, text: str) -> None:
        """Make `text` the whole of what was said of `field`."""
        said = "".join(self._said.get(field, ()))
        if text.startswith(said):
            self.say(field, text[len(said) :])
        else:
            self._said[field] = [text]
            self._deltas.append(Delta(field, text, not self._fields[field], reset=True))

    def take(self) -> list[Delta]:
        deltas, self._deltas = self._deltas, []
        return deltas


_HIGH = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_CUT_LOW = r"(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?"
_STRING_BODY = re.compile(
    r'(?:[^"\\]+|\\(?:["\\/bfnrt]|u(?![dD][89abAB])[0-9a-fA-F]{4})'
    rf"|{_HIGH}(?!{_CUT_LOW}\Z))*+"
)
_CUT_ESCAPE = re.compile(rf"\\(?:u[0-9a-fA-F]{{0,3}})?|{_HIGH}{_CUT_LOW}")
_SPACE = re.compile(r"[ \t\n\r]*")
_SCALAR = re.compile(r"[^,}\s]*")
_STRUCTURE = re.compile(r'[^"\[\]{}]*')
_DEPTH = {"{": 1, "[": 1, "}": -1, "]": -1}
_FIRST_OBJECT = regex.compile(r"\{(?:[^{}]|(?R))*\}", regex.DOTALL)


class JsonParser:
    """The members of the completion's object; each step reads what is expected next and names the step after it."""

    def __init__(self, fields: Mapping[str, bool]) -> None:
        self._fields = fields
        self._chunks: list[str] = []
        self._cut = ""
        self._step: Callable[[str, int], int] = self._prose
        self._key = ""
        self._text = _Trimmed(drop_leading=False)
        self._source: list[str] = []
        self._depth = 0
        self._emitted = _Emitted(fields)
        self._closed = False

    def feed(self, chunk: str) -> list[Delta]:
        """Return the text `chunk` completes. At most one unfinished escape and whitespace wait."""
        self._chunks.append(chunk)
        if self._cut:
            chunk = self._cut + chunk
            self._cut = ""
        at, end = 0, len(chunk)
        while at < end:
            at = self._step(chunk, at)
        return self._emitted.take()

    def close(self) -> list[Delta]:
        """Return what the adapter, which repairs the whole completion, reads beyond what was said."""
        if not self._closed:
            self._closed = True
            self._settle(_read_object("".join(self._chunks)))
        return self._emitted.take()

    def _settle(self, read: Mapping[str, object] | None) -> None:
        if read is None:
            return
        for field, is_text in self._fields.items():
            if is_text:
                self._emitted.settle(field, str(read[field]) if field in read else "")

    def _prose(self, text: str, at: int) -> int:
        found = text.find("{", at)
        if found < 0:
            return len(text)
        self._step = self._before_key
        return found + 1

    def _before_key(self, text: str, at: int) -> int:
        return self._expect(text, at, {'"': self._in_key, "}": self._ignore})

    def _after_key(self, text: str, at: int) -> int:
        return self._expect(text, at, {":": self._before_value})

    def _after_value(self, text: str, at: int) -> int:
        after = self._expect(text, at, {",": self._before_key, "}": self._ignore})
        if self._step != self._after_value and self._step != self._lost:
            self._emitted.say(self._key, self._text.release())
        return after

    def _expect(self, text: str, at: int, steps: Mapping[str, Callable[[str, int], int]]) -> int:
        at = _end(_SPACE, text, at)
        if at < len(text):
            self._step = steps.get(text[at], self._lost)
        return at + 1

    def _in_key(self, text: str, at: int) -> int:
        end = _end(_STRING_BODY, text, at)
        self._source.append(text[at:end])
        if _is_quote(text, end):
            self._key = _decode("".join(self._source))
            self._source = []
            self._step = self._after_key
            return end + 1
        return self._wait(text, end)

    def _before_value(self, text: str, at: int) -> int:
        at = _end(_SPACE, text, at)
        if at == len(text):
            return at
        first = text[at]
        if first == '"' and self._fields.get(self._key):
            self._emitted.settle(self._key, "")
            self._step = self._in_text
            return at + 1
        self._step = self._in_structure if first in _DEPTH else self._in_scalar
        if first == '"':
            self._step = self._in_string
            self._add_source(first)
            return at + 1
        return at

    def _in_text(self, text: str, at: int) -> int:
        end = _end(_STRING_BODY, text, at)
        self._emitted.say(self._key, self._text.add(_decode(text[at:end])))
        if _is_quote(text, end):
            self._step = self._after_value
            return end + 1
        return self._wait(text, end)

    def _in_string(self, text: str, at: int) -> int:
        end = _end(_STRING_BODY, text, at)
        if not _is_quote(text, end):
            self._add_source(text[at:end])
            return self._wait(text, end)
        self._add_source(text[at : end + 1])
        self._step = self._in_structure
        if not self._depth:
            self._end_value()
        return end + 1

    def _in_structure(self, text: str, at: int) -> int:
        end = _end(_STRUCTURE, text, at)
        self._add_source(text[at : end + 1])
        if end == len(text):
            return end
        if text[end] == '"':
            self._step = self._in_string
            return end + 1
        self._depth += _DEPTH[text[end]]
        if not self._depth:
            self._end_value()
        return end + 1

    def _in_scalar(self, text: str, at: int) -> int:
        end = _end(_SCALAR, text, at)
        self._add_source(text[at:end])
        if end < len(text):
            self._end_value()
        return end

    def _add_source(self, source: str) -> None:
        self._source.append(source)
        if self._fields.get(self._key) is False:
            self._emitted.say(self._key, source)

    def _end_value(self) -> None:
        source, self._source = "".join(self._source), []
        self._step = self._after_value
        try:
            value: object = loads(source, strict=False)
        except (ValueError, RecursionError):
            self._step = self._lost
        else:
            if self._fields.get(self._key):
                self._emitted.settle(self._key, str(value))

    def _wait(self, text: str, at: int) -> int:
        """Keep an escape that the next chunk completes; any other end of a string's body leaves the grammar."""
        if at < len(text):
            self._cut = text[at:]
            if not _CUT_ESCAPE.fullmatch(self._cut):
                self._step = self._lost
        return len(text)

    def _ignore(self, text: str, at: int) -> int:
        return len(text)

    _lost = _ignore


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    assert match  # each of these patterns matches the empty string
    return match.end()


def _is_quote(text: str, at: int) -> bool:
    return text.startswith('"', at)


def _decode(body: str) -> str:
    return scanstring(body + '"', 0, False)[0] if "\\" in body else body


def _read_object(completion: str) -> Mapping[str, object] | None:
    """Read `completion` as `JSONAdapter.parse` does; None if it would refuse."""
    try:
        read: object = json_repair.loads(completion)
        if not isinstance(read, dict) and (found := _FIRST_OBJECT.search(completion)):
            read = json_repair.loads(found[0])
    except Exception:  # noqa: BLE001 - json_repair's own: the adapter fails the same way
        return None
    return read if isinstance(read, dict) else None


class XmlParser:
    """The children of the root are the fields. Expat itself decides what is markup."""

    def __init__(self, fields: Mapping[str, bool]) -> None:
        self._fields = fields
        self._emitted = _Emitted(fields)
        self._values: dict[str, list[str]] = {}
        self._with_children: set[str] = set()
        self._expat = expat.ParserCreate(namespace_separator="}")
        self._expat.buffer_text = True
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._data
        self._expat.SetReparseDeferralEnabled(False)
        self._over = False
        self._depth = 0
        self._field: str | None = None
        self._parse("<dspy_root>")

    def feed(self, chunk: str) -> list[Delta]:
        """Return the text `chunk` completes."""
        self._parse(chunk)
        return self._emitted.take()
