"""Signatures as the source writes them: strings and classes, read without running either."""

import ast
import keyword
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import libcst as cst

from mkspy.check.known import BREAKING, CALL_OPTIONS, words


class SignatureField(NamedTuple):
    """A field: its name, its annotation as text ("" is `str`), and whether a caller may leave it out."""

    name: str
    annotation: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """The fields of a signature; `open` when there may be more than the source shows."""

    inputs: tuple[SignatureField, ...] = ()
    outputs: tuple[SignatureField, ...] = ()
    open: bool = False
    name: str = ""

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of inputs and outputs."""
        return tuple(one.name for one in self.inputs), tuple(one.name for one in self.outputs)


OPEN = Signature(open=True)

TYPE_NAMES = words(
    "Annotated Any AnyStr Awaitable Callable Collection Counter DefaultDict Deque Dict FrozenSet"
    " Generator Iterable Iterator List Literal Mapping MutableMapping None NoneType Optional OrderedDict"
    " Sequence Set Text Tuple Type Union bool bytearray bytes complex dict float frozenset int list set"
    " str tuple"
)
"""What a type in a signature string may be called without being imported: builtins and `typing`."""


class BadSignature(NamedTuple):
    """What is wrong with a signature string, and what to do about it."""

    message: str
    hint: str = ""


@lru_cache(256)
def parse(text: str) -> Signature | BadSignature:
    """Return the fields of a signature string, or what is wrong with it."""
    if text.count("->") != 1:
        count = "no" if "->" not in text else f"{text.count('->')}"
        return BadSignature(
            f"signature {_clip(text)} has {count} '->'", 'write "input -> output", with one arrow'
        )
    left, right = text.split("->")
    sides = [_side(left), _side(right)]
    for name, side in zip(("input", "output"), sides, strict=True):
        if isinstance(side, BadSignature):
            return BadSignature(f"signature {_clip(text)}: the {name} side {side.message}", side.hint)
    inputs, outputs = [side for side in sides if not isinstance(side, BadSignature)]
    return Signature(inputs, outputs) if outputs else _no_output(text)


def _no_output(text: str) -> BadSignature:
    return BadSignature(f"signature {_clip(text)} has no output field", "name at least one field after '->'")


def _side(text: str) -> tuple[SignatureField, ...] | BadSignature:
    try:
        [function] = ast.parse(f"def f({text}): pass").body
        assert isinstance(function, ast.FunctionDef)
    except (SyntaxError, ValueError, RecursionError, MemoryError, AssertionError):
        return BadSignature(
            f"{_clip(text.strip())} cannot be read", 'fields are "name" or "name: type", with commas'
        )
    args = function.args
    odd = [*args.posonlyargs, *args.kwonlyargs, *filter(None, (args.vararg, args.kwarg)), *args.defaults]
    if odd or len(function.body) != 1:
        return BadSignature("has more than names and types", 'fields are "name" or "name: type", with commas')
    return tuple(SignatureField(one.arg, _annotation(one), _optional(_annotation(one))) for one in args.args)


def _annotation(arg: ast.arg) -> str:
    return ast.unparse(arg.annotation) if arg.annotation else ""


def _optional(annotation: str) -> bool:
    return "None" in annotation or "Optional" in annotation or "Any" in annotation


def problems(signature: Signature) -> Iterator[BadSignature]:
    """Yield what keeps the fields of a readable signature from being fields."""
    inputs, outputs = signature.names()
    names = inputs + outputs
    for name in sorted({one for one in names if names.count(one) > 1}):
        both = name in inputs and name in outputs
        where = "is an input and an output" if both else "is there twice"
        yield BadSignature(f"field `{name}` {where}", "give every field a name of its own")
    for name in names:
        if name.startswith("_"):
            yield BadSignature(
                f"field `{name}` begins with an underscore", f"call it `{name.lstrip('_') or 'value'}`"
            )
        elif keyword.iskeyword(name):
            yield BadSignature(f"field `{name}` is a keyword of Python", f"call it `{name}_`")
        elif name in BREAKING:
            yield BadSignature(f"field `{name}` hides what dspy.Signature needs", "choose another name")
        elif name in inputs and name in CALL_OPTIONS - {"prediction"}:
            yield BadSignature(
                f"input `{name}` is an option of every call of a predictor", "choose another name"
            )


def unknown_types(annotation: str, known: "Sequence[str] | frozenset[str]") -> Iterator[str]:
    """Yield the names in an annotation that stand for nothing; a dotted one counts by its first part."""
    yield from (name for name in _type_names(annotation) if name not in TYPE_NAMES and name not in known)


@lru_cache(512)
def _type_names(annotation: str) -> tuple[str, ...]:
    try:
        tree = ast.parse(annotation, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    names: list[str] = []
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith(("Literal", "Code")):
            stack.append(node.value)
        elif isinstance(node, ast.Name):
            names.append(node.id)
        elif not isinstance(node, ast.Attribute):  # `PIL.Image`: DSPy imports the first part itself
            stack += ast.iter_child_nodes(node)
    return tuple(names)


def source(node: cst.CSTNode | None) -> str:
    """Return the text of an expression."""
    return cst.Module(body=()).code_for_node(node) if node else ""


def _clip(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
