"""No text of a task becomes code: with other texts the same program comes out, but for its strings."""

import ast
from collections.abc import Sequence
from inspect import cleandoc

import libcst as cst
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mkspy.errors import BadSpec
from mkspy.generate import generate
from mkspy.generate.syntax import dotted, name
from mkspy.generate.text import WIDTH, columns, docstring, literal, pieces
from mkspy.spec import Chain, Classify, Extract, Field, Map, Step, Task, Tool
from mkspy.types import TEXT, List, Literal, Record, parse
from strategies import HOSTILE

ATTACKS = (
    *HOSTILE,
    '"""\nimport os\nos.system("true")\n"""',
    '\\"""',
    "\\",
    '")\nprint(1)\n("',
    "# noqa",
    "\N{BULLET}",
    "\\N{BULLET}",
    "\\x00",
    "'; import os #",
    "{__import__('os')}",
    "\u2029",
    "\x1f",
    "\x85",
    "\f",
    "word " * 40,
    "x" * 200,
    '"' * 7,
    '\\"' * 3,
)


def texts() -> st.SearchStrategy[str]:
    letters = st.characters(exclude_categories=["Cs"])
    return st.lists(st.sampled_from(ATTACKS) | st.text(letters, max_size=5), max_size=8).map("".join)


def worded() -> st.SearchStrategy[str]:
    return texts().filter(str.strip)


def task_with(said: Sequence[str], labels: Sequence[str]) -> Task:
    """Return a task with a text at every place that has one."""
    description, record_said, field_said, asked, wished, start, constraint, default = said
    line = Record("Line", (Field("sku", TEXT, field_said, default),), record_said)
    message = Field("message", TEXT, field_said)
    tell = Step("tell", (Field("item", line),), (Field("told", TEXT, wished),))
    process = Chain(
        Classify("sort", (message,), tuple(labels), "team", instructions=asked),
        Extract("read", (message,), line, "lines", True, asked),
        Map("each", tell, ("item", "lines"), (("told", "several"),)),
        Tool("search", (message,), Field("found", List(TEXT)), wished),
    )
    hint, note = Field("hint", Literal(tuple(labels)), default=labels[0]), Field("note", TEXT, default=start)
    outputs = tuple(Field(each.name, each.type, wished) for each in process.outputs)
    return Task("work", description, (message, hint, note), outputs, process, constraints=(constraint,))


def shape(source: str) -> str:
    """Return a file's syntax tree with every string emptied."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


@settings(max_examples=60)
@given(st.lists(worded(), min_size=8, max_size=8), st.lists(worded(), min_size=3, max_size=3, unique=True))
def test_texts_change_strings_and_nothing_else(said: list[str], labels: list[str]) -> None:
    plain = generate(task_with(["Say so."] * 8, ["a", "b", "c"]))

    source = generate(task_with(said, labels))

    assert shape(source) == shape(plain)
    source.encode()
    compile(source, "program.py", "exec")


@given(texts())
def test_a_literal_says_what_it_was_given(text: str) -> None:
    assert ast.literal_eval(literal(text).value) == text
    assert "\n" not in literal(text).value


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\x00", "\u202e", "\u2028", "\ufeff", "\xa0"])
def test_what_cannot_be_seen_is_escaped(text: str) -> None:
    written = literal(text).value

    assert written.isascii()
    assert ast.literal_eval(written) == text


@given(texts().filter(bool), st.integers(20, WIDTH))
def test_pieces_make_up_the_text_and_have_room(text: str, room: int) -> None:
    parts = [part.value for part in pieces(text, room)]

    assert "".join(map(ast.literal_eval, parts)) == text
    assert all(columns(part) <= room for part in parts)


@given(worded(), st.sampled_from([0, 4, 8]))
def test_a_docstring_is_the_text_but_for_line_breaks(text: str, indent: int) -> None:
    statement = docstring(text, indent=indent)

    said = ast.get_docstring(ast.parse("".join(map(code_of, statement)))) or ""

    assert said.split() == cleandoc(text).split()


def code_of(statement: cst.SimpleStatementLine) -> str:
    return cst.Module([statement]).code


def test_a_docstring_keeps_within_the_lines_when_its_words_do() -> None:
    (statement,) = docstring("word " * 100, indent=4)

    assert all(columns(line) <= WIDTH for line in ("    " + code_of(statement)).splitlines())


@pytest.mark.parametrize("text", ["a b", "a-b", "1a", "", "a\n", "class", "a;b", "\uff41", "é", "a.b"])
def test_what_is_no_identifier_is_refused(text: str) -> None:
    with pytest.raises(BadSpec, match="is no identifier"):
        name(text)


def test_each_part_of_a_module_path_is_an_identifier() -> None:
    assert code_of(cst.SimpleStatementLine([cst.Expr(dotted("a.b.c"))])) == "a.b.c\n"
    with pytest.raises(BadSpec):
        dotted("a.b;c")


def test_a_file_with_more_than_ascii_says_so_to_the_linter() -> None:
    spec = Task(
        "work", "Sort the customer\u2019s message.", (Field("a", TEXT),), (Field("b", parse("text")),)
    )

    assert generate(spec).splitlines()[1] == "# ruff: noqa: RUF001, RUF002, RUF100"
