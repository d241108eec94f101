"""Bounds: what `ast` can tell before LibCST, whose parser dies of deep brackets, is given a source."""

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import libcst as cst

from mkspy.check.report import BOTH, Profile, Rule
from mkspy.check.text import Broken
from mkspy.check.tree import Tree

type Shape = Mapping[str, int]


class Bounds(NamedTuple):
    """How deep and how many nodes of syntax a source may have, and how many strings in a row."""

    depth: int
    nodes: int
    strings: int


BOUNDS: dict[Profile, Bounds] = {"candidate": Bounds(60, 6_000, 60), "project": Bounds(150, 150_000, 250)}

RULES = (
    Rule(
        "syntax",
        "bounds",
        "A source is Python, as the running interpreter reads it.",
        profiles=BOTH,
        example="def forward(self, question)",
    ),
    Rule(
        "too-deep",
        "bounds",
        "A candidate nests at most 60 levels of syntax, a file of a project 150.",
        profiles=BOTH,
    ),
    Rule(
        "too-many",
        "bounds",
        "A candidate has at most 6,000 nodes of syntax, which hang together simply.",
        profiles=BOTH,
    ),
    Rule("two-readings", "bounds", "Python and LibCST read the same program.", profiles=BOTH),
)


def examine(text: str, profile: Profile) -> tuple[Broken | None, Shape]:
    """Return what keeps a text from being parsed, if anything does, and what Python sees in it."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        return _syntax(text, error), {}
    except (RecursionError, MemoryError):
        hint = "split the expression"
        return Broken("too-deep", "nested so deep that Python does not read it", 0, hint), {}
    except ValueError as error:
        return Broken("syntax", f"not Python: {error}", 0), {}
    broken, shape = _measured(text, tree, BOUNDS[profile])
    return broken or _concatenated(text, BOUNDS[profile]) or _compiled(text, tree), shape


def _syntax(text: str, error: SyntaxError) -> Broken:
    lines = text.split("\n")
    before = sum(len(line) + 1 for line in lines[: max((error.lineno or 1) - 1, 0)])
    offset = min(before + max((error.offset or 1) - 1, 0), len(text))
    return Broken("syntax", f"not Python: {str(error.msg)[:200]}", offset)


def _measured(text: str, tree: ast.Module, bounds: Bounds) -> tuple[Broken | None, Shape]:
    counted: Counter[type[ast.AST]] = Counter()
    stack: list[tuple[ast.AST, int]] = [(tree, 1)]
    nodes = 0
    while stack:
        node, depth = stack.pop()
        nodes += 1
        counted[type(node)] += 1
        below = depth + _levels(node)
        if below > bounds.depth:
            message = f"nested deeper than {bounds.depth} levels"
            return Broken("too-deep", message, _offset(text, node), "split the expression or block"), {}
        if nodes > bounds.nodes:
            return Broken("too-many", f"more than {bounds.nodes:,} nodes of syntax", 0, "split the file"), {}
        children = ast.iter_child_nodes(node)
        stack += [(child, below) for child in children if not isinstance(child, _CONTEXT)]
    return None, {name: sum(counted[kind] for kind in kinds) for name, kinds in _SHAPE.items()}


def _offset(text: str, node: ast.AST) -> int:
    """Return where the line of a node begins."""
    return sum(len(line) + 1 for line in text.split("\n")[: max(getattr(node, "lineno", 1) - 1, 0)])


def _levels(node: ast.AST) -> int:
    """Return how many levels LibCST makes of a node: what is flat in `ast` can be nested there."""
    match node:
        case ast.BoolOp(values=values):
            return len(values)
        case ast.alias(name=name):
            return name.count(".") + 1
        case ast.ImportFrom(module=str(module)):
            return module.count(".") + 1
        case _:
            return 1


def _longest_concatenation(text: str) -> int:
    """Return how many strings follow each other at most; Python sees one string, LibCST nests them."""
    longest = run = inside = 0
    for token in tokenize.generate_tokens(io.StringIO(text, newline="").readline):
        if not inside and token.type in (tokenize.STRING, tokenize.FSTRING_START):
            run += 1
            longest = max(longest, run)
        elif not inside and token.type not in (tokenize.NL, tokenize.COMMENT):
            run = 0
        inside += (token.type == tokenize.FSTRING_START) - (token.type == tokenize.FSTRING_END)
    return longest


def _concatenated(text: str, bounds: Bounds) -> Broken | None:
    if text.count("'") + text.count('"') <= 2 * bounds.strings:
        return None
    if _longest_concatenation(text) <= bounds.strings:
        return None
    return Broken("too-deep", f"more than {bounds.strings} strings in a row", 0, "write one string")


_CONTEXT = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop)
_SHAPE: dict[str, tuple[type[ast.AST], ...]] = {
    "calls": (ast.Call,),
    "attributes": (ast.Attribute,),
    "imports": (ast.Import, ast.ImportFrom),
    "functions": (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda),
    "classes": (ast.ClassDef,),
}
_CST: dict[str, tuple[type[cst.CSTNode], ...]] = {
    "calls": (cst.Call,),
    "attributes": (cst.Attribute,),
    "imports": (cst.Import, cst.ImportFrom),
    "functions": (cst.FunctionDef, cst.Lambda),
    "classes": (cst.ClassDef,),
}


def parsed(text: str) -> cst.Module | Broken:
    """Return the tree of a text that Python reads, or why LibCST does not."""
    try:
        return cst.parse_module(text)
    except cst.ParserSyntaxError as error:
        lines = text.split("\n")
        offset = sum(len(line) + 1 for line in lines[: max(error.raw_line - 1, 0)]) + error.raw_column
        message = "Python reads this, but LibCST does not"
        return Broken("two-readings", message, min(offset, len(text)), "write it more plainly")


def compare(shape: Shape, tree: Tree) -> Iterator[Broken]:
    """Yield where LibCST sees another program than Python, which is the one that would run."""
    for name, kinds in _CST.items():
        seen = sum(len(tree.nodes.get(kind, ())) for kind in kinds)
        if seen != shape.get(name):
            message = f"Python sees {shape.get(name)} {name} here, and LibCST {seen}"
            yield Broken("two-readings", message, 0, "write the program more plainly")


def _compiled(text: str, tree: ast.Module) -> Broken | None:
    """LibCST takes at least ten things CPython refuses, a `return` at module level among them."""
    try:
        compile(tree, "<checked>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return _syntax(text, error)
    except (RecursionError, MemoryError, ValueError, OverflowError) as error:
        return Broken("syntax", f"not Python: {type(error).__name__}", 0)
    return None
