"""Words of a specification as Python literals: whatever they hold, they are text and stay text."""

import unicodedata
from collections.abc import Iterator, Sequence
from inspect import cleandoc

import libcst as cst

WIDTH = 110
"""Columns of a line."""

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_QUOTES = '"""'
_NO_WIDTH = ("Mn", "Me", "Cf")


def columns(text: str) -> int:
    """Return how many columns `text` takes on one line."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def literal(text: str) -> cst.SimpleString:
    """Return `text` as a literal in the quotes that need fewer escapes, as formatters choose them."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    return cst.SimpleString(quote + _escaped(text).replace(quote, "\\" + quote) + quote)


def pieces(text: str, room: int) -> Iterator[cst.SimpleString]:
    """Yield literals of at most `room` columns that make up `text` when written one after another.

    They are cut before a space where there is one, and never inside an escape.
    """
    while text:
        end = _longest(text, room)
        space = text.rfind(" ", 1, end + 1)
        cut = end if end == len(text) or space < 1 else space
        yield literal(text[:cut])
        text = text[cut:]


def docstring(text: str, *, indent: int) -> tuple[cst.SimpleStatementLine, ...]:
    """Return the statement that documents a module, class or function; none when there is nothing to say.

    Lines are wrapped at `WIDTH`, so a space may become a line break. Nothing else changes.
    """
    written = text.replace("\r\n", "\n").replace("\t", "    ").strip()
    said = cleandoc("\n".join(line.rstrip() for line in written.split("\n")))
    if not said:
        return ()
    begins, ends = said.startswith('"'), said.endswith('"')  # which takes a backslash each
    lines = list(_wrapped(said, indent, first=len(_QUOTES) + begins))
    if len(lines) == 1:
        lines = list(_wrapped(said, indent, first=2 * len(_QUOTES) + begins + ends))
    return (cst.SimpleStatementLine([cst.Expr(cst.SimpleString(_quoted(lines, " " * indent)))]),)


def _quoted(lines: Sequence[str], margin: str) -> str:
    """Return lines in triple quotes, those at the end on a line of their own when there are several."""
    first, *rest = lines
    if first.startswith('"'):  # a formatter would put a space before it
        first = "\\" + first
    if not rest and first.endswith('"') and _backslashes(first[:-1]) % 2 == 0:
        first = first[:-1] + '\\"'
    body = [first, *(margin + line if line else "" for line in rest), *([margin] if rest else [])]
    return _QUOTES + "\n".join(body) + _QUOTES


def _backslashes(text: str) -> int:
    """Return how many there are at the end."""
    return len(text) - len(text.rstrip("\\"))


def _columns(character: str) -> int:
    if unicodedata.category(character) in _NO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _escaped(text: str) -> str:
    return text if text.isprintable() and "\\" not in text else "".join(map(_character, text))


def _character(character: str) -> str:
    """Return a character, escaped when it cannot be seen: controls, bidi marks, surrogates, odd spaces."""
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    form = "\\x{:02x}" if code < 0x100 else "\\u{:04x}" if code < 0x10000 else "\\U{:08x}"
    return form.format(code)


def _longest(text: str, room: int) -> int:
    """Return how many characters of `text` a literal of `room` columns holds; at least one."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if columns(literal(text[:middle]).value) <= room:
            low = middle
        else:
            high = middle - 1
    return low


def _wrapped(text: str, indent: int, *, first: int) -> Iterator[str]:
    """Yield the lines of a docstring, escaped; the first one shares its line with `first` quotes."""
    room = WIDTH - indent - first
    for line in text.split("\n"):
        words = _documented(line.rstrip()).split(" ")
        margin = " " * next((number for number, word in enumerate(words) if word), 0)
        yield from _filled(words, margin, room)
        room = WIDTH - indent


def _filled(words: list[str], margin: str, room: int) -> Iterator[str]:
    """Yield `words` in lines of `room` columns; a longer word has a line of its own."""
    line = words[0]
    for word in words[1:]:
        if line.strip() and columns(line) + 1 + columns(word) > room and word:
            yield line.rstrip()
            line = margin + word
        else:
            line += " " + word
    yield line.rstrip()


def _documented(line: str) -> str:
    """Escape a line for triple quotes: no run of quotes in it can end them."""
    return _escaped(line).replace('""', '\\"\\"')
