"""What runs a program of the valid corpus: an adapter that fills in every output by its type."""

import asyncio
import enum
import importlib.util
import re
import sys
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import dspy
import pydantic
from scripted import lm

CORPUS = Path(__file__).parent / "corpus"
_RUN = re.compile(r"# (a?)run: (.+)")
_PLAIN = {str: "finish", int: 1, float: 0.5, bool: True, Any: {}, type(None): None}


def sources(kind: str) -> list[Path]:
    """Return the files of one corpus: attacks, invalid, valid or candidates."""
    return sorted((CORPUS / kind).glob("*.py"))


def expected(path: Path) -> str:
    """Return the rule that the first line of an attack or an invalid program names."""
    first = path.read_bytes().split(b"\n")[0].decode()
    assert first.startswith("# expect: "), path
    return first.removeprefix("# expect: ").strip()


def value(annotation: Any) -> Any:
    """Return some value of a type."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "finish" if "finish" in args else args[0]
    if origin in (Union, types.UnionType):
        return value(args[0])
    if origin is list:
        return [value(args[0]), value(args[0])]
    if origin is tuple:
        return tuple(value(one) for one in args)
    if origin is dict or annotation is dict:
        return {}
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return next(iter(annotation))
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        fields = annotation.model_fields.items()
        return annotation.model_construct(**{name: value(field.annotation) for name, field in fields})
    return _PLAIN.get(annotation)


class Filled(dspy.ChatAdapter):
    """Answers every signature with values of the types of its outputs."""

    def __call__(
        self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any
    ) -> list[dict[str, Any]]:
        given = {name: value(field.annotation) for name, field in signature.output_fields.items()}
        return [given] * int(lm_kwargs.get("n") or 1)

    async def acall(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        return self(lm, lm_kwargs, signature, demos, inputs)


def run(path: Path) -> object:
    """Import a program, and do what its first line says after `# run:` or `# arun:`."""
    name = f"corpus_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    said = _RUN.match(path.read_text())
    try:
        with dspy.context(lm=lm("-"), adapter=Filled(), trace=[]):
            spec.loader.exec_module(module)
            made = eval(said[2], vars(module)) if said else None
            return asyncio.run(made) if said and said[1] else made
    finally:
        del sys.modules[name]
