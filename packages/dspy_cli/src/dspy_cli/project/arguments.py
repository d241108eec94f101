"""The inputs of a program as words of a command line, and the types they are of."""

import datetime
import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TextIO, Union

import dspy
from pydantic import TypeAdapter, ValidationError

from dspy_cli.errors import BadInput
from dspy_cli.project.scaffold.source import type_source
from dspy_cli.project.signature import Argument, Field, Signature, Type

_TYPES: Mapping[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "None": None,
    "Any": Any,
    "list": list,
    "set": set,
    "dict": dict,
    "tuple": tuple,
    "...": ...,
    "date": datetime.date,
    "datetime": datetime.datetime,
    "time": datetime.time,
    "timedelta": datetime.timedelta,
    "dspy.Audio": dspy.Audio,
    "dspy.Code": dspy.Code,
    "dspy.File": dspy.File,
    "dspy.History": dspy.History,
    "dspy.Image": dspy.Image,
}
_FILES = frozenset({"dspy.Audio", "dspy.File", "dspy.Image"})


def python_type(of: Type) -> Any:
    """Return the type itself."""
    arguments = tuple(map(_argument, of.arguments))
    match of.name:
        case "Literal":
            return Literal[arguments]
        case "|" | "Union":
            return Union[arguments]  # noqa: UP007 - of as many as there are
        case "Optional":
            return arguments[0] | None
        case name:
            return _TYPES[name][arguments] if arguments else _TYPES[name]


def _argument(argument: Argument) -> Any:
    return python_type(argument) if isinstance(argument, Type) else argument


def inputs(signature: Signature, words: Sequence[str], stdin: TextIO) -> dict[str, object]:
    """Return the value of each input, from `name=value` words; one that is missing comes from `stdin`.

    `name=@file` is what is in a file, `name=@@text` is text that begins with @. Other types than `str` are
    read as JSON, or as plain text where that fits.

    Raises:
        BadInput: A word is no input, one is missing, or a value is not of its type.
    """
    texts = _texts(signature, words)
    missing = [field.name for field in signature.inputs if field.name not in texts]
    if len(missing) == 1 and not stdin.isatty() and (text := stdin.read().removesuffix("\n")):
        texts[missing.pop()] = f"@{text}" if text.startswith("@") else text
    if missing:
        raise BadInput(f"{', '.join(missing)}: expected a value. {_example(signature)}")
    return {field.name: _value(field, texts[field.name]) for field in signature.inputs}


def _texts(signature: Signature, words: Sequence[str]) -> dict[str, str]:
    names = [field.name for field in signature.inputs]
    texts = dict[str, str]()
    for word in words:
        name, is_given, text = word.partition("=")
        if not is_given:
            raise BadInput(f"{word!r:.80} is not name=value. {_example(signature)}")
        if name not in names:
            raise BadInput(
                f"{name!r:.80} is not an input; expected {', '.join(names)}. {_example(signature)}"
            )
        if name in texts:
            raise BadInput(f"{name} is given twice; expected one value. {_example(signature)}")
        texts[name] = text
    return texts


def _example(signature: Signature) -> str:
    values = " ".join(f'{field.name}="..."' for field in signature.inputs)
    return f"For example: dspy-cli run {shlex.quote(signature.text)} {values}"


def _value(field: Field, text: str) -> object:
    try:
        if text.startswith("@") and not text.startswith("@@"):
            return _from_file(field.type, Path(text[1:]))
        return _from_text(field.type, text[1:] if text.startswith("@@") else text)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"]
    except OSError as error:
        problem = f"{error.strerror}; text that begins with @ is written {field.name}=@{text}"
    except (ValueError, TypeError) as error:
        problem = str(error)
    expected = type_source(field.type).replace("dt.", "")
    raise BadInput(f"{field.name}={text!r:.80} is not {expected}: {problem}")


def _from_file(of: Type, path: Path) -> object:
    if of.name in _FILES:
        path.stat()
        return _TYPES[of.name].from_path(str(path))
    return _from_text(of, path.read_text("utf-8"))


def _from_text(of: Type, text: str) -> object:
    if of.name == "str":
        return text
    if of.name == "dspy.Image":
        return dspy.Image(text)
    adapter = TypeAdapter[object](python_type(of))
    string = json.dumps(text)
    # Strictly: "2026" would else be a date, in seconds since 1970.
    try:
        return adapter.validate_json(text.lower() if of.name == "bool" else text, strict=True)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            return adapter.validate_json(string, strict=True)
        with suppress(ValidationError):
            return adapter.validate_json(string, strict=True)
        raise
