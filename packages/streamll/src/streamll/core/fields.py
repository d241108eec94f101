"""Completion text in, deltas of output fields out: one parser per adapter, no I/O, no opinion on chunk size.

An adapter reads a completion once it is whole; a parser here reads it while it grows, and says of each piece
of text, as soon as that is certain, which field it belongs to. What makes the stream worth trusting: all that
was said of a `str` field, joined, is what the adapter's own `parse` returns, wherever the chunks are cut.

Text that is not certain yet waits: the beginning of what may be a marker (a header, an escape, a tag), and
whitespace, which adapters strip when nothing follows it. Some things only the end can tell: a later JSON key
of the same name wins, a second XML element makes a list, and how `json_repair` reads JSON that is not quite
JSON depends on all of it. There the parser reads the whole completion as the adapter does, and says what is
missing or, if something said was wrong, starts the field again (`reset`).
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from json import JSONDecoder
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
    """Text whose trailing whitespace waits for something to follow it."""

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
        certain = body
        if self._waiting:
            certain = "".join((*self._waiting, body))
            self._waiting = []
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
    """`[[ ## name ## ]]` at the start of a line ends one field and opens the next; a name counts once."""

    def __init__(self, fields: Mapping[str, bool]) -> None:
        self._fields = fields
        self._seen: set[str] = set()
        self._field: str | None = None
        self._is_raw = False
        self._text = _Trimmed(drop_leading=True)
        self._ready: list[str] = []
        self._deltas: list[Delta] = []
        self._after_return = False
        self._start_line()

    def feed(self, chunk: str) -> list[Delta]:
        """Return what `chunk` makes certain. At most one unfinished header and whitespace wait."""
        if not self._may_be_header and chunk.isprintable():  # most chunks: line breaks are not printable
            if self._field is None or not (certain := self._text.add(chunk)):
                return []
            return [Delta(self._field, certain, self._is_raw)]
        if self._after_return:
            chunk, self._after_return = chunk.removeprefix("\n"), not chunk
        if chunk:
            self._after_return = chunk.endswith("\r")
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
        self._is_raw = not self._fields.get(name)
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
        self._start_line()

    def _start_line(self) -> None:
        self._after_header = False
        self._may_be_header = True
        self._in_name = False
        self._indent = 0
        self._head: list[str] = []

    def _add(self, text: str) -> None:
        if self._field is not None and (certain := self._text.add(text)):
            self._ready.append(certain)

    def _flush(self) -> None:
        if self._ready and self._field is not None:
            self._deltas.append(Delta(self._field, "".join(self._ready), self._is_raw))
        self._ready = []

    def _take(self) -> list[Delta]:
        self._flush()
        deltas, self._deltas = self._deltas, []
        return deltas


class _Emitted:
    """The deltas of one feed, and all that was said of each field, to hold against what the adapter reads."""

    def __init__(self, fields: Mapping[str, bool]) -> None:
        self._fields = fields
        self._said: defaultdict[str, list[str]] = defaultdict(list)
        self._deltas: list[Delta] = []

    def say(self, field: str, text: str) -> None:
        if text:
            self._said[field].append(text)
            self._deltas.append(Delta._make((field, text, not self._fields[field], False)))  # half of Delta()

    def settle(self, field: str, text: str) -> None:
        """Make `text` the whole of what was said of `field`."""
        said = "".join(self._said[field])
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
_CONTROL = re.compile(r"[\0-\x1f]")
_READ_ALIKE = re.compile(r"(?:[^\\„]|\\(?:[^/fu]|u(?![dD][89a-fA-F])))*+")
_CUT_ESCAPE = re.compile(rf"\\(?:u[0-9a-fA-F]{{0,3}})?|{_HIGH}{_CUT_LOW}")
_SPACE = re.compile(r"[ \t\n\r]*")
_SCALAR = re.compile(r"[^,}\s]*")
_STRUCTURE = re.compile(r'[^"\[\]{}]*')
_JSON = JSONDecoder(strict=False)  # json_repair accepts line breaks in strings
_DEPTH = {"{": 1, "[": 1, "}": -1, "]": -1}
_CONTAINER = re.compile(r"\[|/\*|^[ \t]*\(", re.MULTILINE)
_COMMENT = re.compile(r"#|//")
_FIRST_OBJECT = regex.compile(r"\{(?:[^{}]|(?R))*\}", regex.DOTALL)


class JsonParser:
    """The members of the completion's first object. A step reads what is due and chooses the step after it.

    Bent JSON is what `json` refuses and `json_repair` reads: here, line breaks and the like within strings.
    """

    def __init__(self, fields: Mapping[str, bool]) -> None:
        self._fields = fields
        self._chunks: list[str] = []
        self._cut = ""
        self._step: Callable[[str, int], int] = self._prose
        self._key = ""
        self._text = _Trimmed(drop_leading=False)
        self._source: list[str] = []
        self._depth = 0
        self._is_bent = False
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
            texts = [field for field, is_text in self._fields.items() if is_text]
            for field, text in _read_texts(texts, "".join(self._chunks)).items():
                self._emitted.settle(field, text)
        return self._emitted.take()

    def _prose(self, text: str, at: int) -> int:
        found = text.find("{", at)
        if found < 0:
            return len(text)
        # An array, tuple or comment that began before the brace may swallow it: the end will tell.
        prose = "".join(self._chunks[:-1]) + text[:found]
        line = prose[prose.rfind("\n") + 1 :]
        misleads = _CONTAINER.search(prose) or _COMMENT.search(line)
        self._step = self._ignore if misleads else self._before_key
        return found + 1

    def _before_key(self, text: str, at: int) -> int:
        return self._expect(text, at, {'"': self._in_key, "}": self._ignore})

    def _after_key(self, text: str, at: int) -> int:
        return self._expect(text, at, {":": self._before_value})

    def _after_value(self, text: str, at: int) -> int:
        at += len(_group(_SPACE, text, at))
        if text[at : at + 1] in (",", "}"):
            space = self._text.release()
            if not (self._is_bent and space.endswith("\n")):  # json_repair strips a text that ends so
                self._emitted.say(self._key, space)
        return self._expect(text, at, {",": self._before_key, "}": self._ignore})

    def _expect(self, text: str, at: int, steps: Mapping[str, Callable[[str, int], int]]) -> int:
        at += len(_group(_SPACE, text, at))
        if at < len(text):
            self._step = steps.get(text[at], self._ignore)
        return at + 1

    def _in_key(self, text: str, at: int) -> int:
        body = self._body(text, at)
        end = at + len(body)
        self._source.append(body)
        if not text.startswith('"', end):
            return self._wait(text, end)
        self._key = _decode("".join(self._source))
        self._source = []
        self._step = self._after_key
        return end + 1

    def _before_value(self, text: str, at: int) -> int:
        at += len(_group(_SPACE, text, at))
        if at == len(text):
            return at
        if self._key in self._fields:
            self._emitted.settle(self._key, "")
        if text[at] != '"':
            self._step = self._in_structure if text[at] in "{[" else self._in_scalar
            return at
        if self._fields.get(self._key):
            self._step = self._in_text
        else:
            self._step = self._in_string
            self._add_source('"')
        return at + 1

    def _in_text(self, text: str, at: int) -> int:
        body = self._body(text, at)
        end = at + len(body)
        if self._is_bent:
            alike = _group(_READ_ALIKE, body, 0)
            if len(alike) < len(body):
                self._step = self._ignore
                body, end = alike, len(text)
        if "\\" in body:
            body = _decode(body)
        self._emitted.say(self._key, self._text.add(body))
        if end == len(text):
            return end
        if text[end] != '"':
            return self._wait(text, end)
        self._step = self._after_value
        return end + 1

    def _in_string(self, text: str, at: int) -> int:
        body = self._body(text, at)
        end = at + len(body)
        if not text.startswith('"', end):
            self._add_source(body)
            return self._wait(text, end)
        self._add_source(body + '"')
        self._step = self._in_structure
        if not self._depth:
            self._end_value()
        return end + 1

    def _body(self, text: str, at: int) -> str:
        """Return the whole characters and escapes of a string from `at` on."""
        body = _group(_STRING_BODY, text, at) if '"' in text or "\\" in text else text[at:]
        if not self._is_bent and not body.isprintable():
            self._is_bent = _CONTROL.search(body) is not None
        return body

    def _in_structure(self, text: str, at: int) -> int:
        end = at + len(_group(_STRUCTURE, text, at))
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
        end = at + len(_group(_SCALAR, text, at))
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
            text = str(_JSON.decode(source))
        except (ValueError, RecursionError):
            self._step = self._ignore
        else:
            if self._fields.get(self._key):
                self._emitted.settle(self._key, text)

    def _wait(self, text: str, at: int) -> int:
        """Keep an escape the next chunk may complete; nothing else can end a string's body but its quote."""
        if at < len(text):
            self._cut = text[at:]
            if not _CUT_ESCAPE.fullmatch(self._cut):
                self._step = self._ignore
        return len(text)

    def _ignore(self, text: str, at: int) -> int:
        return len(text)


def _group(pattern: re.Pattern[str], text: str, at: int) -> str:
    match = pattern.match(text, at)
    assert match  # each of these patterns matches the empty string
    return match[0]


def _decode(body: str) -> str:
    return _JSON.raw_decode(f'"{body}"')[0]


def _read_texts(fields: Sequence[str], completion: str) -> Mapping[str, str]:
    """Read `completion` as `JSONAdapter.parse` does, a missing field as empty; nothing when it refuses."""
    try:
        read: object = json_repair.loads(completion)
        if not isinstance(read, dict) and (found := _FIRST_OBJECT.search(completion)):
            read = json_repair.loads(found[0])
        if isinstance(read, dict):
            return {field: str(read.get(field, "")) for field in fields}
    except Exception:  # noqa: BLE001 - json_repair's own, and the adapter fails the same way
        pass
    return {}


_LONG_TOKEN = 1024


class XmlParser:
    """The children of the root are the fields, as in `XMLAdapter`. Expat itself says what is markup."""

    def __init__(self, fields: Mapping[str, bool]) -> None:
        self._fields = fields
        self._emitted = _Emitted(fields)
        self._elements: dict[str, list[_Element]] = {}
        self._open: _Element | None = None
        self._depth = 0
        self._unread = 0
        self._ended = False
        # Deferring, expat is late with a short token that was cut; not deferring, quadratic in a long one.
        self._defers = True
        self._expat = expat.ParserCreate(namespace_separator="}")
        self._expat.buffer_text = True
        self._expat.StartElementHandler = self._start
        self._expat.EndElementHandler = self._end
        self._expat.CharacterDataHandler = self._data
        self._parse("<dspy_root>")

    def feed(self, chunk: str) -> list[Delta]:
        """Return the text `chunk` completes. At most one unfinished tag or entity and whitespace wait."""
        self._parse(chunk)
        return self._emitted.take()

    def close(self) -> list[Delta]:
        """Return each field that the completion has more than once: the adapter makes it a list."""
        self._parse("</dspy_root>", final=True)
        if not self._ended:
            self._ended = True
            for field, elements in self._elements.items():
                if self._fields[field] and len(elements) > 1 and not elements[0].has_children:
                    self._emitted.settle(field, str([element.text.strip() for element in elements]))
        return self._emitted.take()

    def _parse(self, text: str, *, final: bool = False) -> None:
        if self._ended:
            return
        self._unread += len(text)
        if self._defers != (self._unread > _LONG_TOKEN):
            self._defers = not self._defers
            self._expat.SetReparseDeferralEnabled(self._defers)
        try:
            self._expat.Parse(text, final)
        except (expat.ExpatError, UnicodeEncodeError, RecursionError):
            self._ended = True

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._unread = 0
        self._depth += 1
        if self._open is not None:
            self._open.start(tag, attributes)
        elif self._depth == 2:  # the root is the adapter's own
            self._start_field(attributes.get("key", tag) if tag == "entry" else tag)

    def _start_field(self, name: str) -> None:
        if name in self._fields:
            elements = self._elements.setdefault(name, [])
            self._open = _Element(name, self._emitted, is_first=not elements)
            elements.append(self._open)

    def _data(self, text: str) -> None:
        self._unread = 0
        if self._open is not None:
            self._open.data(text)

    def _end(self, tag: str) -> None:
        self._unread = 0
        self._depth -= 1
        if self._open is None:
            return
        if self._depth > 1:
            self._open.end(tag)
        else:
            self._open.close()
            self._open = None


class _Element:
    """What the adapter makes of a field's element: its stripped text or, if it has children, all it holds."""

    def __init__(self, field: str, emitted: _Emitted, *, is_first: bool) -> None:
        self._field = field
        self._emitted = emitted
        self._is_first = self._streams = is_first
        self._trimmed = _Trimmed(drop_leading=True)
        self._builder = ElementTree.TreeBuilder()
        self._root = self._builder.start(field, {})
        self._tag_is_open = False
        self.has_children = False

    @property
    def text(self) -> str:
        """The text before the first child."""
        return self._root.text or ""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        names = {_qualified(name): value for name, value in attributes.items()}
        self._builder.start(_qualified(tag), names)
        if self._is_first and not self.has_children:
            self._emitted.settle(self._field, self.text)
        self.has_children = True
        # Which tag declares a namespace depends on the whole child, so the field goes on when it is closed.
        self._streams &= not any("}" in name for name in (tag, *names))
        if self._streams:
            self._say(ElementTree.tostring(ElementTree.Element(tag, names), "unicode").removesuffix(" />"))
            self._tag_is_open = True

    def data(self, text: str) -> None:
        self._builder.data(text)
        if self._streams:
            self._say(escape(text) if self.has_children else self._trimmed.add(text))

    def end(self, tag: str) -> None:
        self._builder.end(_qualified(tag))
        if self._tag_is_open:
            self._tag_is_open = False
            self._say(" />")
        elif self._streams:
            self._say(f"</{tag}>")

    def close(self) -> None:
        self._builder.end(self._field)
        if self._is_first:
            children = [ElementTree.tostring(child, "unicode") for child in self._root]
            self._emitted.settle(
                self._field, "".join((self.text, *children)) if children else self.text.strip()
            )

    def _say(self, text: str) -> None:
        self._emitted.say(self._field, ">" + text if self._tag_is_open else text)
        self._tag_is_open = False


def _qualified(name: str) -> str:
    return "{" + name if "}" in name else name
