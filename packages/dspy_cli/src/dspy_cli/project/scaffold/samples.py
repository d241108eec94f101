"""A value for each type, as source: what a generated test gives a program, and has its model answer."""

from collections.abc import Callable, Mapping, Sequence

from dspy_cli.project.scaffold.source import constant
from dspy_cli.project.signature import Argument, Type

_VALUES: Mapping[str, str] = {
    "str": '"text"',
    "int": "1",
    "float": "0.5",
    "bool": "True",
    "None": "None",
    "Any": '"text"',
    "date": "dt.date(2026, 1, 31)",
    "datetime": "dt.datetime(2026, 1, 31, 12, 30)",
    "time": "dt.time(12, 30)",
    "timedelta": "dt.timedelta(minutes=5)",
    "dspy.Audio": 'dspy.Audio(data="UklGRg==", audio_format="wav")',
    "dspy.Code": 'dspy.Code(code="print(1)")',
    "dspy.File": 'dspy.File(file_id="file-1")',
    "dspy.History": "dspy.History(messages=[])",
    "dspy.Image": 'dspy.Image("https://example.com/a.png")',
}


def sample(of: Type) -> str:
    """Return the source of a value of a type."""
    return _COMPOSED[of.name](of.arguments) if of.name in _COMPOSED else _VALUES[of.name]


def _list(arguments: Sequence[Argument]) -> str:
    return f"[{_of(arguments)}]"


def _set(arguments: Sequence[Argument]) -> str:
    return f"{{{_of(arguments)}}}"


def _dict(arguments: Sequence[Argument]) -> str:
    return f"{{{_of(arguments)}: {_of(arguments[1:])}}}"


def _tuple(arguments: Sequence[Argument]) -> str:
    values = [_of([each]) for each in arguments if each != Type("...")] or [_of(())]
    return f"({', '.join(values)}{',' * (len(values) == 1)})"


def _of(arguments: Sequence[Argument]) -> str:
    """Return a value of the first argument; constants are their own."""
    first = next(iter(arguments), Type("str"))
    return sample(first) if isinstance(first, Type) else constant(first)


_COMPOSED: Mapping[str, Callable[[Sequence[Argument]], str]] = {
    "list": _list,
    "set": _set,
    "dict": _dict,
    "tuple": _tuple,
    **dict.fromkeys(("Optional", "Union", "|", "Literal"), _of),
}
