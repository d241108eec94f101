"""Python source from what people typed: only names that were checked, and constants written by `repr`."""

from collections.abc import Iterable, Sequence

from dspy_cli.project.signature import Argument, Field, Type

LINE_CHARACTERS = 88
"""Ruff's default."""

_WITHOUT_ARGUMENTS = {
    "list": "list[Any]",
    "set": "set[Any]",
    "dict": "dict[str, Any]",
    "tuple": "tuple[Any, ...]",
}
_DATES = frozenset({"date", "datetime", "time", "timedelta"})


def type_source(of: Type) -> str:
    """Return the type as today's Python writes it: `str | None` for `Optional[str]`."""
    arguments = [_argument_source(argument) for argument in of.arguments]
    match of.name:
        case "|" | "Union":
            return " | ".join(dict.fromkeys(arguments))
        case "Optional":
            return " | ".join(dict.fromkeys([*arguments, "None"]))
        case name if name in _DATES:
            return f"dt.{name}"
        case name if not arguments:
            return _WITHOUT_ARGUMENTS.get(name, name)
        case name:
            return f"{name}[{', '.join(arguments)}]"


def _argument_source(argument: Argument) -> str:
    return type_source(argument) if isinstance(argument, Type) else constant(argument)


def constant(value: object) -> str:
    """Return a literal for `value`, with double quotes where ruff wants them."""
    source = repr(value)
    return f'"{source[1:-1]}"' if source.startswith("'") and '"' not in source else source


def printable(text: str) -> str:
    """Return `text` with a space for every character that controls a terminal or has no UTF-8."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def docstring(text: str) -> str:
    """Return a docstring that says `text`, whatever is in it, as the first thing of a class."""
    lines = [line.strip() for line in printable(text).strip().split("\n")]
    escaped = [line.replace("\\", "\\\\").replace('"', '\\"') for line in lines]
    return '"""' + "\n".join(f"    {line}" if line else "" for line in escaped).strip() + '"""'


def imports(fields: Iterable[Field], *, types: bool = True, also: Iterable[str] = ()) -> str:
    """Return the import lines of a file that uses dspy and `fields`: their types, or only values of them."""
    names = {*also, *(name for field in fields for name in _names(field.type))}
    typing = ", ".join(sorted(names & {"Any", "Literal"} if types else ()))
    standard = ["import datetime as dt"] * bool(names & _DATES) + [f"from typing import {typing}"] * bool(
        typing
    )
    return "\n".join([*standard, *[""] * bool(standard), "import dspy"])


def import_from(module: str, name: str) -> str:
    """Return `from module import name`, as ruff leaves it."""
    line = f"from {module} import {name}"
    return line if len(line) <= LINE_CHARACTERS else f"from {module} import (\n    {name},\n)"


def _names(of: Type) -> set[str]:
    """Return every name that writing down a type takes."""
    inside = (argument for argument in of.arguments if isinstance(argument, Type))
    own = {of.name, "Any"} if not of.arguments and of.name in _WITHOUT_ARGUMENTS else {of.name}
    return own.union(*map(_names, inside))


def call(before: str, arguments: Sequence[str], after: str, *, indent: str = "        ") -> str:
    """Return `before(arguments)after` in one line, else an argument a line, as ruff leaves it."""
    line = f"{indent}{before}({', '.join(arguments)}){after}"
    if len(line) <= LINE_CHARACTERS:
        return line
    inner = "".join(f"\n{indent}    {argument}," for argument in arguments)
    return f"{indent}{before}({inner}\n{indent}){after}"
