"""Read a signature such as `text -> label: Literal['a', 'b'], score: float`; nothing in it is ever run.

signature = fields "->" fields
fields    = field {"," field}
field     = name [":" type]
type      = one {"|" one}
one       = name ["[" argument {"," argument} "]"]
"""

import difflib
import keyword
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple, NoReturn

from rich.cells import cell_len

from dspy_cli.errors import BadSignature

type Constant = str | int | bool | None
type Argument = Type | Constant


class Type(NamedTuple):
    """A type by the name DSPy's users know: `list` of `str`, `Literal` of constants, `|` of several."""

    name: str
    arguments: Sequence[Argument] = ()


class Field(NamedTuple):
    """A field; `column` is where its name begins in the text."""

    name: str
    type: Type
    column: int = 0


class Signature(NamedTuple):
    inputs: Sequence[Field]
    outputs: Sequence[Field]
    text: str


_DATES = ("date", "datetime", "time", "timedelta")
_ANY_NUMBER = range(1, 1_000)

ARGUMENTS: dict[str, Sequence[int]] = {
    **dict.fromkeys(("str", "int", "float", "bool", "None", "Any"), (0,)),
    **dict.fromkeys(_DATES, (0,)),
    **{f"dspy.{name}": (0,) for name in ("Audio", "Code", "File", "History", "Image")},
    **dict.fromkeys(("list", "set"), (0, 1)),
    "dict": (0, 2),
    "tuple": (0, *_ANY_NUMBER),
    "Optional": (1,),
    "Union": _ANY_NUMBER,
    "Literal": _ANY_NUMBER,
}
"""Every type there is, and how many arguments it takes."""

_SPELLINGS = {
    **{f"dt.{name}": name for name in _DATES},
    **{f"typing.{name}": name for name in ("Any", "Literal", "Optional", "Union")},
    **{f"datetime.{name}": name for name in _DATES},
    **{name: name.lower() for name in ("List", "Dict", "Set", "Tuple")},
}
_MEANT = {
    "array": "list",
    "boolean": "bool",
    "choice": "Literal",
    "enum": "Literal",
    "integer": "int",
    "json": "dict",
    "number": "float",
    "object": "dict",
    "string": "str",
    "text": "str",
} | {name.removeprefix("dspy.").lower(): name for name in ARGUMENTS if name.startswith("dspy.")}

RESERVED_FIELDS = frozenset(
    {
        *("self", "dspy", "dt"),
        *("config", "demos", "lm", "new_signature", "signature"),
        *(
            "append",
            "append_instructions",
            "delete",
            "dump_state",
            "equals",
            "fields",
            "input_fields",
            "insert",
        ),
        *("instructions", "load_state", "mro", "output_fields", "prepend", "register", "with_instructions"),
        *("with_updated_fields",),
        *("construct", "copy", "dict", "from_orm", "json", "parse_file", "parse_obj", "parse_raw", "schema"),
        *("schema_json", "update_forward_refs", "validate"),
        *(name for name in ARGUMENTS if name.isidentifier() and name not in _DATES),
    }
)
"""Names that `dspy.Signature`, `dspy.Predict` or the generated files have a use for of their own."""

MAX_DEPTH = 20
EXAMPLE = "text -> label: Literal['a', 'b'], score: float"


def parse(text: str) -> Signature:
    """Return what `text` says.

    Raises:
        BadSignature: It is no signature. The message shows the place.
    """
    return _Parser(text).signature()


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


_TOKENS = re.compile(
    r"""(?P<space>\s+)
      | (?P<arrow>->)
      | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)
      | (?P<number>-?\d[\w.]*)
      | (?P<mark>\.\.\.|[\[\],:|])
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_CONSTANTS: dict[str, Constant] = {"True": True, "False": False, "None": None}


def _tokens(text: str) -> Iterable[_Token]:
    for match in _TOKENS.finditer(text):
        if match.lastgroup != "space":
            yield _Token(str(match.lastgroup), match[0], match.start())
    yield _Token("end", "", len(text))


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = self._depth = 0
        self._seen: dict[str, str] = {}

    def signature(self) -> Signature:
        inputs = self._fields("input")
        if self._token.kind != "arrow":
            self._fail(
                "expected '->' between the inputs and the outputs" if self._token.kind == "end" else None
            )
        self._take()
        outputs = self._fields("output")
        if self._token.kind == "arrow":
            self._fail("a second '->'; a signature has one")
        if self._token.kind != "end":
            self._fail(None)
        return Signature(inputs, outputs, self._text)

    # --- the grammar ----------------------------------------------------------------------------------------

    def _fields(self, side: str) -> Sequence[Field]:
        if self._token.kind in ("arrow", "end"):
            self._fail(f"expected the name of an {side}")
        fields = [self._field(side)]
        while self._takes(","):
            fields.append(self._field(side))
        return tuple(fields)

    def _field(self, side: str) -> Field:
        token = self._token
        if token.kind != "name":
            self._fail(_not_a_name(token, side))
        if problem := _problem(token.text) or self._twice(token.text, side):
            self._fail(problem)
        self._take()
        self._seen[token.text] = side
        return Field(token.text, self._field_type() if self._takes(":") else Type("str"), token.start)

    def _field_type(self) -> Type:
        start, of = self._token, self._type()
        if of.name == "None":
            self._fail("None is no type of its own; did you mean str | None?", start)
        return of

    def _twice(self, name: str, side: str) -> str | None:
        before = self._seen.get(name)
        return before and (
            f"a second {side} {name!r}"
            if before == side
            else f"{name!r} is an input already; outputs need other names"
        )

    def _type(self) -> Type:
        members = [self._one()]
        while self._takes("|"):
            members.append(self._one())
        return Type("|", tuple(members)) if len(members) > 1 else members[0]

    def _one(self) -> Type:
        token = self._token
        if token.kind != "name":
            self._fail(f"expected a type, such as str or list[str]{_found(token)}")
        name = _SPELLINGS.get(token.text, token.text)
        if name not in ARGUMENTS:
            self._fail(_unknown_type(token.text))
        self._take()
        arguments = self._arguments(name) if self._token.text == "[" else ()
        if len(arguments) not in ARGUMENTS[name]:
            self._fail(_wrong_count(name, len(arguments)), token)
        return Type(name, arguments)

    def _arguments(self, name: str) -> Sequence[Argument]:
        opening = self._take()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._fail(f"more than {MAX_DEPTH} brackets inside each other", opening)
        arguments = [self._argument(name)]
        while self._takes(","):
            arguments.append(self._argument(name))
        if self._token.kind == "end":
            self._fail("this bracket is never closed", opening)
        if not self._takes("]"):
            self._fail(f"expected ',' or ']'{_found(self._token)}")
        self._depth -= 1
        return tuple(arguments)

    def _argument(self, name: str) -> Argument:
        if name == "Literal":
            return self._constant()
        if name == "tuple" and self._token.text == "...":
            return Type(self._take().text)
        return self._type()

    def _constant(self) -> Constant:
        token = self._take()
        if token.kind == "string":
            return self._string(token)
        if token.kind == "number" and re.fullmatch(r"-?(?:0|[1-9]\d{0,17})", token.text, re.ASCII):
            return int(token.text)
        if token.text in _CONSTANTS:
            return _CONSTANTS[token.text]
        problem = (
            "this quotation mark is never closed"
            if token.text in ("'", '"')
            else f"expected a constant, such as 'a', 1 or True{_found(token)}"
        )
        self._fail(problem, token)

    def _string(self, token: _Token) -> str:
        if escape := re.search(r"\\[^\\'\"]", re.sub(r"\\\\", "  ", token.text)):
            self._fail("expected \\\\, \\' or \\\" after a backslash", token, escape.start())
        return re.sub(r"\\(.)", r"\1", token.text[1:-1])

    # --- tokens ---------------------------------------------------------------------------------------------

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._token
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _takes(self, mark: str) -> bool:
        taken = self._token.kind == "mark" and self._token.text == mark
        if taken:
            self._take()
        return taken

    def _fail(self, problem: str | None, token: _Token | None = None, offset: int = 0) -> NoReturn:
        token = token or self._token
        problem = problem or f"expected ',', ':' or '->'{_found(token)}"
        raise bad_signature(self._text, token.start + offset, problem)


def bad_signature(text: str, column: int, problem: str) -> BadSignature:
    """Return the error that points at `column` of `text`."""
    message = f'{text!r:.80} is no signature: expected inputs -> outputs, such as "{EXAMPLE}".'
    return BadSignature(f"{message}\n{_pointed_at(text, column, problem)}", column=column, problem=problem)


# --- what is wrong ------------------------------------------------------------------------------------------


def _found(token: _Token) -> str:
    return ", not the end" if token.kind == "end" else f", not {token.text!r:.40}"


def _not_a_name(token: _Token, side: str) -> str:
    if token.kind == "number":
        return f"{token.text!r:.40} is not a name: it begins with a digit"
    return f"expected the name of an {side}{_found(token)}"


def _problem(name: str) -> str | None:
    """Return why `name` cannot be a field's, None if it can."""
    problems = {
        f"{name!r:.40} has a dot in it; a field is one name": "." in name,
        f"{name!r:.40} is a word of Python": keyword.iskeyword(name),
        f"{name!r:.40} begins with an underscore": name.startswith("_"),
        f"{name!r:.40} is reserved: DSPy or Python uses it": name in RESERVED_FIELDS
        or name.startswith("model_"),
        f"{name!r:.40} is read as another name by Python": unicodedata.normalize("NFKC", name) != name,
    }
    return next((problem for problem, holds in problems.items() if holds), None)


def _unknown_type(name: str) -> str:
    known = {_key(one): one for one in ARGUMENTS}
    begun = [one for one in known if one.startswith(_key(name))]
    close = [*begun, *difflib.get_close_matches(_key(name), known, 1)]
    meant = _MEANT.get(name.lower()) or (known[close[0]] if close else None)
    return f"unknown type {name!r:.40}" + (
        f"; did you mean {meant}?" if meant else f"; known are {', '.join(ARGUMENTS)}"
    )


def _key(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _wrong_count(name: str, count: int) -> str:
    least, *more = ARGUMENTS[name]
    wanted = f"{least} or more" if len(more) > 1 else " or ".join(map(str, (least, *more)))
    return f"{name} takes {wanted} in brackets, not {count}"


# --- where --------------------------------------------------------------------------------------------------

_BEFORE, _AFTER = 60, 30


def _pointed_at(text: str, column: int, problem: str) -> str:
    start = max(0, column - _BEFORE)
    shown = "".join(c if c.isprintable() else " " for c in text[start : column + _AFTER])
    dots = "..." if start else ""
    return f"  {dots}{shown}\n  {' ' * cell_len(dots + shown[: column - start])}^ {problem}"
