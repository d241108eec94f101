"""Signatures in one line: what is understood, and where the finger points when it is not."""

import datetime
import warnings
from contextlib import suppress
from typing import Any, Literal

import dspy
import pytest
from dspy_cli.errors import BadSignature
from dspy_cli.project.arguments import python_type
from dspy_cli.project.scaffold.source import type_source
from dspy_cli.project.signature import ARGUMENTS, RESERVED_FIELDS, Type, parse
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter


def types(text: str) -> dict[str, str]:
    """Return the source of each field's type."""
    signature = parse(text)
    return {field.name: type_source(field.type) for field in (*signature.inputs, *signature.outputs)}


def test_sides_and_order_are_kept() -> None:
    signature = parse(" b , a: int->d:str, c ")

    assert [field.name for field in signature.inputs] == ["b", "a"]
    assert [field.name for field in signature.outputs] == ["d", "c"]


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("str", "str"),
        ("Optional[str]", "str | None"),
        ("Union[int, str, None]", "int | str | None"),
        ("str|None", "str | None"),
        ("typing.List[int]", None),
        ("List[int]", "list[int]"),
        ("list", "list[Any]"),
        ("dict", "dict[str, Any]"),
        ("dict[str, list[int]]", "dict[str, list[int]]"),
        ("tuple[int, ...]", "tuple[int, ...]"),
        (
            "Literal['a',\"b's\",'say \"hi\"', -1, True, None]",
            'Literal["a", "b\'s", \'say "hi"\', -1, True, None]',
        ),
        ("typing.Literal['a']", 'Literal["a"]'),
        (r"Literal['it\'s', 'a\\b']", r"""Literal["it's", "a\\b"]"""),
        ("Literal['a -> b, [c]: d']", 'Literal["a -> b, [c]: d"]'),
        ("date", "dt.date"),
        ("datetime.datetime", "dt.datetime"),
        ("list[dspy.Image]", "list[dspy.Image]"),
        ("Any", "Any"),
    ],
)
def test_a_type_is_written_as_todays_python(text: str, source: str | None) -> None:
    if source is None:
        with pytest.raises(BadSignature, match="did you mean list"):
            parse(f"a -> b: {text}")
    else:
        assert {"a": "str", "b": source} == types(f"a -> b: {text}")


@pytest.mark.parametrize(
    ("text", "column", "problem"),
    [
        ("", 0, "expected the name of an input"),
        ("question answer", 9, "expected ',', ':' or '->', not 'answer'"),
        ("question", 8, "expected '->' between the inputs and the outputs"),
        ("a -> b -> c", 7, "a second '->'; a signature has one"),
        ("a ->", 4, "expected the name of an output"),
        ("-> a", 0, "expected the name of an input"),
        ("a, -> b", 3, "expected the name of an input, not '->'"),
        ("a, a -> b", 3, "a second input 'a'"),
        ("a -> b, b", 8, "a second output 'b'"),
        ("a -> a", 5, "'a' is an input already; outputs need other names"),
        ("a -> class", 5, "'class' is a word of Python"),
        ("a -> 3d", 5, "'3d' is not a name: it begins with a digit"),
        ("a -> b.c", 5, "'b.c' has a dot in it; a field is one name"),
        ("_a -> b", 0, "'_a' begins with an underscore"),
        ("a -> json", 5, "'json' is reserved: DSPy or Python uses it"),
        ("self -> a", 0, "'self' is reserved: DSPy or Python uses it"),
        ("a -> model_x", 5, "'model_x' is reserved: DSPy or Python uses it"),
        ("\ufb01 -> a", 0, "'\ufb01' is read as another name by Python"),
        ("question -> answer: Lit['a'", 20, "unknown type 'Lit'; did you mean Literal?"),
        ("a -> b: string", 8, "unknown type 'string'; did you mean str?"),
        ("a -> b: Image", 8, "unknown type 'Image'; did you mean dspy.Image?"),
        ("a -> b: optional[int]", 8, "unknown type 'optional'; did you mean Optional?"),
        ("a -> b: list[str", 12, "this bracket is never closed"),
        ("a -> b: list[str]]", 17, "expected ',', ':' or '->', not ']'"),
        ("a -> b: list[]", 13, "expected a type, such as str or list[str], not ']'"),
        ("a -> b: list[int, str]", 8, "list takes 0 or 1 in brackets, not 2"),
        ("a -> b: dict[str]", 8, "dict takes 0 or 2 in brackets, not 1"),
        ("a -> b: Literal", 8, "Literal takes 1 or more in brackets, not 0"),
        ("a -> b: int[3]", 12, "expected a type, such as str or list[str], not '3'"),
        ("a -> b: Literal['x", 16, "this quotation mark is never closed"),
        ("a -> b: Literal[x]", 16, "expected a constant, such as 'a', 1 or True, not 'x'"),
        ("a -> b: Literal[1.5]", 16, "expected a constant, such as 'a', 1 or True, not '1.5'"),
        (r"a -> b: Literal['\x41']", 17, "expected \\\\, \\' or \\\" after a backslash"),
        ("a -> b:", 7, "expected a type, such as str or list[str], not the end"),
        ("a -> b: None", 8, "None is no type of its own; did you mean str | None?"),
        ("a -> b = 3", 7, "expected ',', ':' or '->', not '='"),
        ("a;b -> c", 1, "expected ',', ':' or '->', not ';'"),
    ],
)
def test_a_wrong_signature_is_refused_with_a_pointer_at_the_place(
    text: str, column: int, problem: str
) -> None:
    with pytest.raises(BadSignature) as refused:
        parse(text)

    assert (column, problem) == (refused.value.column, refused.value.problem)
    *_, shown, pointer = str(refused.value).split("\n")
    assert f"  {text}" == shown
    assert f"  {' ' * column}^ {problem}" == pointer


@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').system('x')",
        "os.path",
        "dspy.settings",
        "dspy.LM",
        "list[exec('x')]",
        "Literal[f'{x}']",
        "Literal['a'.upper()]",
        "(lambda: 1)()",
        "[x for x in y]",
        "str if True else int",
        "dspy.Image.from_url",
    ],
)
def test_code_in_a_type_is_refused(code: str) -> None:
    with pytest.raises(BadSignature):
        parse(f"a -> b: {code}")


def test_the_pointer_stands_under_a_wide_character_and_in_a_window_of_a_long_line() -> None:
    with pytest.raises(BadSignature) as wide:
        parse("日本 -> b: Lit")
    with pytest.raises(BadSignature) as long:
        parse(f"{'x' * 500} -> y: foo, {'z' * 500}")

    assert str(wide.value).split("\n")[-1].index("^") == 2 + 4 + len(" -> b: ")
    shown, pointer = str(long.value).split("\n")[-2:]
    assert shown[pointer.index("^") :].startswith("foo")
    assert len(shown) < 110


def test_a_terminal_is_not_controlled_by_what_is_shown() -> None:
    with pytest.raises(BadSignature) as refused:
        parse("a\x1b[31m -> b")

    assert "\x1b" not in str(refused.value)


def test_brackets_without_end_are_refused() -> None:
    with pytest.raises(BadSignature, match="more than 20 brackets inside each other"):
        parse(f"a -> b: {'list[' * 5000}")


def test_every_name_that_dspy_has_a_use_for_is_reserved() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of attributes that pydantic is going to remove
        used = {*dir(dspy.Signature), *dir(type(dspy.Signature))}

    assert {name for name in used if not name.startswith(("_", "model_"))} <= RESERVED_FIELDS


@pytest.mark.parametrize("name", ["date", "time", "datetime", "type", "match", "input", "items", "id"])
def test_everyday_names_are_free(name: str) -> None:
    assert {"a": "str", name: "dt.date"} == types(f"a -> {name}: date")


# --- properties ---------------------------------------------------------------------------------------------

constants = st.text() | st.integers(-(10**17), 10**17) | st.booleans() | st.none()
plain = st.sampled_from(sorted(name for name, counts in ARGUMENTS.items() if 0 in counts and name != "None"))
literals = st.lists(constants, min_size=1, max_size=3).map(lambda values: Type("Literal", tuple(values)))
all_types = st.recursive(
    plain.map(Type) | literals,
    lambda inner: (
        inner.map(lambda one: Type("list", (one,)))
        | inner.map(lambda one: Type("Optional", (one,)))
        | st.tuples(inner, inner).map(lambda two: Type("dict", two))
        | st.tuples(inner, inner).map(lambda two: Type("|", two))
    ),
    max_leaves=4,
)


def written(of: Any) -> str:
    """Return a type as a person would type it."""
    if isinstance(of, str):
        escaped = of.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    if not isinstance(of, Type):
        return repr(of)
    if of.name == "|":
        return " | ".join(map(written, of.arguments))
    return f"{of.name}[{', '.join(map(written, of.arguments))}]" if of.arguments else of.name


@given(all_types.filter(lambda of: of.name != "|"))
def test_what_was_written_is_what_is_read(of: Type) -> None:
    read = parse(f"a -> b: {written(of)}").outputs[0].type

    assert written(read) == written(of)


@given(all_types)
def test_the_source_of_a_type_is_that_type(of: Type) -> None:
    scope = {"dspy": dspy, "dt": datetime, "Literal": Literal, "Any": Any}

    evaluated = eval(type_source(of), scope)  # of a type that the test made

    assert schema_of(evaluated) == schema_of(python_type(of))


def schema_of(of: Any) -> object:
    return TypeAdapter(of).json_schema()


@given(st.text() | st.from_regex(r"[a-c \[\],:|'\"\\>\-.1]{0,30}"))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(BadSignature):
        signature = parse(text)
        assert signature.inputs
        assert signature.outputs
