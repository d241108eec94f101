"""Text: what can be wrong with a source before any parser sees it."""

import io
import re
import tokenize
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from mkspy.check.report import BOTH, Finding, Profile, Rule

MAX_BYTES: dict[Profile, int] = {"candidate": 32 * 1024, "project": 512 * 1024}

_COOKIE = re.compile(r"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)", re.ASCII)
_UTF_8 = {"utf-8", "utf8", "utf_8"}
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b\u000e-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f"
    "\u2028\u2029\u2060-\u206f\u2800\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb]|\r(?!\n)"
)
_ASTRAL_TAGS = range(0xE0000, 0xE01F0)

RULES = (
    Rule("not-text", "text", "A source is UTF-8.", profiles=BOTH),
    Rule("too-long", "text", "A candidate has at most 32 KB, a file of a project 512 KB.", profiles=BOTH),
    Rule(
        "encoding",
        "text",
        "A source declares no encoding but UTF-8.",
        profiles=BOTH,
        example="# -*- coding: utf-7 -*-",
    ),
    Rule("bidi", "text", "No character changes the direction of the text.", profiles=BOTH),
    Rule("invisible", "text", "No control character, byte order mark or invisible character."),
    Rule("lookalike", "text", "Names are ASCII, because Python reads several spellings as one."),
)


class Broken(NamedTuple):
    """What a stage before the tree yields: a rule, one sentence, an offset into the text, what to do."""

    rule: str
    message: str
    offset: int = 0
    hint: str = ""


def decode(source: str | bytes) -> tuple[str, Broken | None]:
    """Return the text of a source, without a byte order mark where that is harmless."""
    try:
        text = source.decode("utf-8") if isinstance(source, bytes) else source
        text.encode("utf-8")
    except UnicodeDecodeError as error:
        return "", Broken("not-text", f"byte {error.start} is not UTF-8", 0, "save the file as UTF-8")
    except UnicodeEncodeError as error:
        return "", Broken("not-text", f"character {error.start} is half of one", 0, "save the file as UTF-8")
    return text, None


def examine(text: str, profile: Profile) -> Iterator[Broken]:
    """Yield what is wrong with a text, cheapest first."""
    limit = MAX_BYTES[profile]
    size = len(text.encode("utf-8"))
    if size > limit:
        yield Broken("too-long", f"{size:,} bytes; at most {limit:,} are read", 0, "split the file")
        return
    yield from _cookies(text)
    yield from _characters(text, profile)


def _cookies(text: str) -> Iterator[Broken]:
    offset = 0
    for line in re.split(r"\r\n|\r|\n", text, maxsplit=2)[:2]:
        found = _COOKIE.match(line)
        if found and found[1].lower() not in _UTF_8:
            yield Broken(
                "encoding",
                f"declares the encoding {found[1]!r}",
                offset,
                "remove the line; Python reads UTF-8",
            )
        offset += len(line) + 1


def _characters(text: str, profile: Profile) -> Iterator[Broken]:
    for found in _BIDI.finditer(text):
        yield Broken(
            "bidi",
            f"{_named(found[0])} shows the code in another order than it runs",
            found.start(),
            "remove it",
        )
        break
    if profile == "project" or (text.isascii() and not _INVISIBLE.search(text)):
        return
    odd = next((m for m in _INVISIBLE.finditer(text)), None)
    tag = next((at for at, char in enumerate(text) if ord(char) in _ASTRAL_TAGS), None)
    at = odd.start() if odd else tag
    if at is not None:
        yield Broken(
            "invisible", f"{_named(text[at])} cannot be seen", at, "remove it, or write it as an escape"
        )


def names(text: str) -> Iterator[Broken]:
    """Yield the first name that is not ASCII; the text must be one that Python reads."""
    if text.isascii():
        return
    starts = [0, *(found.end() for found in re.finditer("\n", text))]
    for token in tokenize.generate_tokens(io.StringIO(text, newline="").readline):
        if token.type == tokenize.NAME and not token.string.isascii():
            plain = unicodedata.normalize("NFKC", token.string)
            said = f"Python reads it as `{plain}`" if plain != token.string else "it could pass for another"
            offset = starts[min(token.start[0], len(starts)) - 1] + token.start[1]
            yield Broken(
                "lookalike", f"the name `{token.string}` is not ASCII; {said}", offset, "write it in ASCII"
            )
            return


def _named(char: str) -> str:
    return f"U+{ord(char):04X} {unicodedata.name(char, '')}".strip()


def position(text: str, offset: int) -> tuple[int, int]:
    """Return line and column of an offset, both from 1."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def finding(text: str, broken: Broken) -> Finding:
    """Return what a stage before the tree found as a finding."""
    line, column = position(text, broken.offset)
    return Finding(broken.rule, "error", broken.message, line, column, broken.hint)
