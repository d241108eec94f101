"""Types: which fit where, and that no notation loses anything."""

import datetime
import enum
from typing import Annotated, Any, Optional, Union

import dspy
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mkspy.errors import BadType
from mkspy.types import (
    AUDIO,
    BOOLEAN,
    CODE,
    DATE,
    DATETIME,
    FILE,
    HISTORY,
    IMAGE,
    INTEGER,
    JSON,
    NULL,
    NUMBER,
    PRIMITIVES,
    TEXT,
    Field,
    List,
    Literal,
    Primitive,
    Record,
    Tuple,
    Type,
    can_be_missing,
    from_json_schema,
    from_python,
    is_subtype,
    meet,
    misfit,
    optional,
    parse,
    parts,
    records_of,
    shape,
    to_json_schema,
    to_python,
    to_text,
    union,
    why_not,
)
from mkspy.types import Union as UnionType
from pydantic import BaseModel
from strategies import primitives, types, values, wider

LINE = Record("Line", (Field("sku", TEXT), Field("count", INTEGER, "How many.", 1)), "A line.")
POINT = Record("Point", (Field("x", NUMBER), Field("y", NUMBER)))
POINT_3D = Record("Point3", (Field("y", INTEGER), Field("x", NUMBER), Field("z", NUMBER)))


# --- subtyping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        ('"a"', "text"),
        ('"a"', '"a" | "b"'),
        ('"b" | "a"', '"a" | "b"'),
        ("3 | 4", "integer"),
        ("3", "number"),
        ("true", "boolean"),
        ('"a" | 3', "text | integer"),
        ("integer", "number"),
        ("text", "text | null"),
        ("null", "text | null"),
        ("text | null", "integer | null | text"),
        ("list[integer]", "list[number | null]"),
        ("list[text] | list[integer]", "list[text | integer]"),
        ('tuple["a", integer]', "tuple[text, number]"),
        ("Point3", "Point"),
        ("Line", "json"),
        ("list[tuple[text, null]]", "json"),
        ("boolean", "json | date"),
    ],
)
def test_a_type_fits_where_all_its_values_do(narrow: str, wide: str) -> None:
    a, b = (parse(text, {"Point": POINT, "Point3": POINT_3D, "Line": LINE}) for text in (narrow, wide))

    assert is_subtype(a, b)
    assert not is_subtype(b, a) or a == b
    assert why_not(a, b) == ""


@pytest.mark.parametrize(
    ("given", "wanted", "because"),
    [
        ("text", '"a"', 'text does not fit "a"'),
        ('"a" | "c"', '"a" | "b"', '"c" is not among the values'),
        ("true", "integer", "true does not fit integer"),
        ("1", "boolean", "1 does not fit boolean"),
        ("boolean", "number", "boolean does not fit number"),
        ("number", "integer", "number does not fit integer"),
        ("text | null", "text", "it can be null"),
        ("list[text | null]", "list[text]", "it can be null"),
        ("text", "list[text]", "text does not fit list[text]"),
        ("tuple[text]", "tuple[text, text]", "it has 1 items, not 2"),
        ("tuple[text, text]", "list[text]", "does not fit"),
        ("Point", "Point3", "Point.y is number, not integer"),
        ("Line", "Point", "Line has no field x"),
        ("code", "text", "code does not fit text"),
        ("date", "json", "date does not fit json"),
        ("json", "text", "json does not fit text"),
    ],
)
def test_a_type_that_does_not_fit_says_why(given: str, wanted: str, because: str) -> None:
    a, b = (parse(text, {"Point": POINT, "Point3": POINT_3D, "Line": LINE}) for text in (given, wanted))

    assert not is_subtype(a, b)
    assert because in why_not(a, b)


def test_a_record_is_another_one_by_its_fields_and_not_by_its_name() -> None:
    narrow = Record("Place", (Field("x", Literal((1, 2))), Field("y", NUMBER)))

    assert is_subtype(narrow, POINT)
    assert why_not(POINT, narrow) == "Point does not fit Place: Point.x is number, not 1 | 2"


@given(types())
def test_every_type_fits_itself(type: Type) -> None:
    assert is_subtype(type, type)


@settings(max_examples=60)
@given(types(), st.data())
def test_what_fits_something_fits_whatever_that_fits(type: Type, data: st.DataObject) -> None:
    middle = data.draw(wider(type))
    wide = data.draw(wider(middle))

    assert is_subtype(type, middle)
    assert is_subtype(middle, wide)
    assert is_subtype(type, wide)


@settings(max_examples=60)
@given(types(3), types(3), types(3))
def test_subtyping_is_transitive_and_antisymmetric_for_any_types(a: Type, b: Type, c: Type) -> None:
    several = [a, b, c, optional(a), union(a, b), union(b, c), union(c, b, a), shape(a)]

    for x in several:
        for y in several:
            if is_subtype(x, y):
                assert not is_subtype(y, x) or shape(x) == shape(y)
                assert all(is_subtype(x, z) for z in several if is_subtype(y, z))


@settings(max_examples=60)
@given(types(), st.data())
def test_a_value_of_a_type_is_one_of_every_wider_type(type: Type, data: st.DataObject) -> None:
    wide = data.draw(wider(type))

    assert misfit(data.draw(values(type)), wide) == ""


@settings(max_examples=60)
@given(types(3), types(3), st.data())
def test_what_two_types_have_in_common_fits_both(a: Type, b: Type, data: st.DataObject) -> None:
    x, y = data.draw(wider(a)), data.draw(st.one_of(wider(a), st.just(b)))

    common = meet(x, y)

    assert common is None or (is_subtype(common, x) and is_subtype(common, y))
    assert (common is None) == (meet(y, x) is None)


def test_two_unions_have_in_common_what_both_can_be() -> None:
    assert meet(union(TEXT, INTEGER), union(TEXT, BOOLEAN)) == TEXT
    assert meet(List(union(TEXT, NULL)), List(Literal(("a", 1)))) == List(Literal(("a",)))
    assert meet(Tuple((NUMBER, TEXT)), Tuple((INTEGER, TEXT))) == Tuple((INTEGER, TEXT))
    assert meet(Tuple((optional(TEXT), NUMBER)), Tuple((TEXT, optional(NUMBER)))) == Tuple((TEXT, NUMBER))
    assert meet(Tuple((TEXT,)), Tuple((INTEGER,))) is None
    assert meet(List(TEXT), List(INTEGER)) is None
    assert meet(TEXT, DATE) is None
    assert meet(Literal(("a",)), Literal(("b",))) is None


# --- unions -------------------------------------------------------------------------------------------------


def test_a_union_is_flat_and_says_nothing_twice() -> None:
    assert union(TEXT, union(TEXT, NULL)) == optional(TEXT)
    assert union(INTEGER, NUMBER) == NUMBER
    assert union(Literal(("a",)), TEXT) == TEXT
    assert union(Literal(("a",)), NULL, Literal(("b",))) == union(NULL, Literal(("b", "a")))
    assert union(TEXT) == TEXT


@given(st.lists(types(2), min_size=1, max_size=4), st.randoms())
def test_the_order_of_options_makes_no_difference(options: list[Type], random: Any) -> None:
    shuffled = random.sample(options, len(options))

    assert union(*options) == union(*shuffled)
    assert hash(union(*options)) == hash(union(*shuffled))


def test_a_union_that_was_not_made_by_union_is_refused() -> None:
    with pytest.raises(BadType, match=r"union\(\.\.\.\)"):
        UnionType((INTEGER, NUMBER))
    with pytest.raises(BadType, match="at least one"):
        union()


def test_literals_are_equal_by_values_and_their_types() -> None:
    assert Literal(("a", "b")) == Literal(("b", "a", "b"))
    assert Literal((1,)) != Literal((True,))
    assert Literal((1, True)).values == (1, True)
    assert Literal(("a",)) != "a"
    assert union(TEXT, NULL) != "a"


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Literal(()), "at least one value"),
        (lambda: Literal((1.5,)), "not 1.5"),  # pyright: ignore[reportArgumentType]
        (lambda: Literal(("\ud800",)), "a literal has half of a surrogate"),
        (lambda: Literal((2**63,)), "64 bits"),
        (lambda: Tuple(()), "at least one item"),
        (lambda: Primitive("string"), "'string' is no primitive"),
        (lambda: Record("Line", ()), "has no field"),
        (lambda: Record("Line", (Field("a", TEXT), Field("a", TEXT))), "two fields 'a'"),
        (lambda: Record("Literal", (Field("a", TEXT),)), "'Literal' means something"),
        (lambda: Field("copy", TEXT), "means something in DSPy"),
        (lambda: Field("model_dump", TEXT), "'model_dump' means something"),
        (lambda: Field("two words", TEXT), "letters, digits and underscores"),
        (lambda: Field("\uff45val", TEXT), "letters, digits"),
        (lambda: Field("class", TEXT), "a word of Python's own"),
        (lambda: Field("a", TEXT, "\udfff"), "the description of 'a'"),
        (lambda: Field("a", INTEGER, default=1.5), "1.5 is not integer"),
        (
            lambda: records_of([LINE, Record("Line", (Field("a", TEXT),))]),
            "two different records are named 'Line'",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(make: Any, problem: str) -> None:
    with pytest.raises(BadType, match=problem):
        make()


# --- the notation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "type"),
    [
        *PRIMITIVES.items(),
        ("str", TEXT),
        ("float", NUMBER),
        ("int", INTEGER),
        ("bool", BOOLEAN),
        ("None", NULL),
        ("Any", JSON),
        ("dict", JSON),
        ("dict[str, Any]", JSON),
        ("Dict[str, int]", JSON),
        ("list", List(JSON)),
        ("datetime.date", DATE),
        ("datetime.datetime", DATETIME),
        ("dspy.Image", IMAGE),
        ("dspy.Audio", AUDIO),
        ("dspy.File", FILE),
        ("dspy.History", HISTORY),
        ("dspy.Code", CODE),
        ('dspy.Code["python"]', CODE),
        ('"billing" | "shipping"', Literal(("billing", "shipping"))),
        ("'single'", Literal(("single",))),
        ('Literal["a", -1, True]', Literal(("a", -1, True))),
        ('typing.Literal["a", None]', optional(Literal(("a",)))),
        ("true | false", Literal((True, False))),
        ("text | null", optional(TEXT)),
        ("optional[integer]", optional(INTEGER)),
        ("Optional[int]", optional(INTEGER)),
        ("Union[str, int, None]", union(TEXT, INTEGER, NULL)),
        ("tuple[text, integer]", Tuple((TEXT, INTEGER))),
        ("tuple[int, ...]", List(INTEGER)),
        ("List[Line]", List(LINE)),
        ("collections.abc.Sequence[str]", List(TEXT)),
        ('Annotated[str, "a word"]', TEXT),
        ("  list[\n  text ]", List(TEXT)),
    ],
)
def test_the_notation_of_specs_and_of_python_is_read(text: str, type: Type) -> None:
    assert parse(text, {"Line": LINE}) == type


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("txt", "did you mean 'text'"),
        ("string", "did you mean 'text'"),
        ("Lin", "did you mean 'Line'"),
        ("list[object_]", "column 6"),
        ("wat", "there are text, number"),
        ("list[", "never closed"),
        ("", "is no type"),
        ("text text", "invalid syntax"),
        ("open('x')", "is no type"),
        ("text if true else text", "is no type"),
        ("[text]", "is no type"),
        ("1.5", "no literal"),
        ("-true", "no literal"),
        ('Literal["a", text]', "no literal"),
        ("list[text, text]", r"list\[\.\.\.\]"),
        ("text[integer]", "is no type"),
        ("(1)[text]", "no name of a type"),
        ("\x00", "is no type"),
        ("\ud800", "is no type"),
        ("list[" * 60 + "text" + "]" * 60, "20 levels"),
        ("(" * 400 + "text" + ")" * 400, "is no type"),
        ("text" * 30_000, "120000 characters"),
    ],
)
def test_text_that_names_no_type_is_refused_at_its_place(text: str, problem: str) -> None:
    with pytest.raises(BadType, match=problem):
        parse(text, {"Line": LINE})


def test_a_thousand_labels_are_one_type() -> None:
    type = Literal(tuple(f"label {number}" for number in range(1_000)))

    assert parse(to_text(type)) == type


@given(types())
def test_the_notation_of_a_type_is_read_back_as_it_was(type: Type) -> None:
    assert parse(to_text(type), records_of([type])) == type


PIECES = (
    "text",
    "list",
    "[",
    "]",
    "|",
    '"a"',
    "1",
    "-",
    ",",
    " ",
    "null",
    "Literal",
    "optional",
    "(",
    ")",
    ".",
    "\n",
    "*",
)


@given(st.text(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_any_text_is_a_type_or_a_bad_type(text: str) -> None:
    try:
        found = parse(text)
    except BadType:
        return
    assert parse(to_text(found)) == found


# --- Python and JSON Schema ---------------------------------------------------------------------------------


@settings(max_examples=60)
@given(types())
def test_an_annotation_is_read_back_as_it_was(type: Type) -> None:
    assert from_python(to_python(type)) == type


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Order(BaseModel):
    """An order."""

    number: str
    count: int = 1


class Hidden(BaseModel):
    made: datetime.date = datetime.date(2026, 1, 1)


class Knot(BaseModel):
    inner: "Knot | None" = None


type Alias = list[str]


@pytest.mark.parametrize(
    ("annotation", "type"),
    [
        (dict[str, int], JSON),
        (list, List(JSON)),
        (tuple[int, ...], List(INTEGER)),
        (Optional[str], optional(TEXT)),  # noqa: UP045 - people write it
        (Union[int, str], union(INTEGER, TEXT)),  # noqa: UP007 - and this
        (Annotated[str, "a word"], TEXT),
        (Alias, List(TEXT)),
        (Colour, Literal(("red", "blue"))),
        (None, NULL),
        (dspy.Code["java"], CODE),
        (datetime.date | None, optional(DATE)),
        (Order, Record("Order", (Field("number", TEXT), Field("count", INTEGER, default=1)), "An order.")),
    ],
)
def test_annotations_as_people_write_them_are_read(annotation: Any, type: Type) -> None:
    assert from_python(annotation) == type


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (bytes, "no type for"),
        (set[str], "no type for"),
        (Knot, "contain itself"),
        (3, "is no type"),
        (dspy.Tool, "no type for"),
        (enum.Enum("Odd", {"A": 1.5}), "no literal"),
        (Hidden, "the default of 'made'"),
    ],
)
def test_annotations_that_specs_have_no_type_for_are_refused(annotation: Any, problem: str) -> None:
    with pytest.raises(BadType, match=problem):
        from_python(annotation)


def test_a_record_is_a_pydantic_model_with_its_words_and_defaults() -> None:
    model = to_python(LINE)

    assert issubclass(model, BaseModel)
    assert (model.__name__, model.__doc__) == ("Line", "A line.")
    assert model(sku="a").count == 1
    assert model.model_fields["count"].description == "How many."


@given(types())
def test_a_json_schema_is_read_back_as_it_was(type: Type) -> None:
    assert from_json_schema(to_json_schema(type)) == type


@settings(max_examples=60)
@given(types(3), st.data())
def test_a_value_of_a_type_is_valid_by_its_json_schema(type: Type, data: st.DataObject) -> None:
    schema = to_json_schema(type)

    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(data.draw(values(type)), schema, cls=jsonschema.Draft202012Validator)


def test_the_json_schema_that_pydantic_writes_is_read() -> None:
    found = from_json_schema(Order.model_json_schema())

    assert found == from_python(Order)


@pytest.mark.parametrize(
    ("schema", "type"),
    [
        ({}, JSON),
        ({"type": "object"}, JSON),
        ({"type": ["string", "null"]}, optional(TEXT)),
        ({"const": "a"}, Literal(("a",))),
        ({"enum": ["a", None]}, optional(Literal(("a",)))),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, union(INTEGER, TEXT)),
        ({"allOf": [{"type": "boolean"}]}, BOOLEAN),
        ({"type": "string", "format": "date"}, DATE),
        ({"type": "array", "items": True}, List(JSON)),
        ({"type": "array"}, List(JSON)),
        ({"$ref": "#/$defs/P", "$defs": {"P": {"properties": {"a": True}, "type": "object"}}},
         Record("P", (Field("a", JSON, default=None),))),
    ],
)  # fmt: skip
def test_json_schemas_as_people_write_them_are_read(schema: Any, type: Type) -> None:
    assert from_json_schema(schema) == type


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "object", "properties": {"a": {}}}, "without a name"),
        ({"$ref": "#/$defs/Nobody"}, "not among"),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, "contains itself"),
        ({"type": "array", "items": {"type": "function"}}, "#/items"),
        ({"type": "array", "items": False}, "no schema"),
        ({"enum": [1.5]}, "#/enum"),
    ],
)
def test_json_schemas_that_specs_have_no_type_for_are_refused(schema: Any, problem: str) -> None:
    with pytest.raises(BadType, match=problem):
        from_json_schema(schema)


# --- values -------------------------------------------------------------------------------------------------


@given(types(), st.data())
def test_a_value_of_a_type_fits_it(type: Type, data: st.DataObject) -> None:
    assert misfit(data.draw(values(type)), type) == ""


@pytest.mark.parametrize(
    ("value", "type", "problem"),
    [
        (1, "text", "1 is not text"),
        (True, "integer", "True is not integer"),
        (float("nan"), "number", "nan is not number"),
        (2**63, "integer", "is not integer"),
        (1.5, "integer", "1.5 is not integer"),
        ("1.3.2026", "date", "is not date"),
        ("tomorrow", "datetime", "is not datetime"),
        (1, '"a" | true', 'is not "a" | true'),
        (None, "text | integer", "None is not text | integer"),
        (["a", 1], "list[text]", r"\[1\]: 1 is not text"),
        ("a", "list[text]", "is not list"),
        (["a"], "tuple[text, text]", "is not tuple"),
        (["a", 1], "tuple[text, text]", r"\[1\]: 1 is not text"),
        ({"sku": 1}, "Line", "sku: 1 is not text"),
        ({}, "Line", "the field 'sku' of Line is missing"),
        ({"sku": "a", "price": 1}, "Line", "Line has no field 'price'; it has sku, count"),
        ([{"sku": 1}], "list[Line]", r"\[0\].sku: 1 is not text"),
        ("a", "Line", "is not Line"),
        ([], "history", "is not history"),
        ({"messages": ["a"]}, "history", "is not history"),
        ({"a": object()}, "json", "is not json"),
        ("\ud800", "text", "is not text"),
    ],
)
def test_a_value_that_does_not_fit_is_told_by_its_place(value: object, type: str, problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        assert misfit(value, parse(type, {"Line": LINE})) == ""


def test_values_that_may_be_null_can_be_left_out() -> None:
    note = Record("Note", (Field("text_of", TEXT), Field("due", optional(DATE))))

    assert misfit({"text_of": "a"}, note) == ""
    assert can_be_missing(optional(TEXT))
    assert not can_be_missing(TEXT)


def test_json_that_is_nested_without_end_is_no_json() -> None:
    value: Any = []
    for _ in range(500):
        value = [value]

    assert misfit(value, JSON)


@given(types())
def test_a_type_is_made_of_its_parts(type: Type) -> None:
    assert all(is_subtype(part, part) for part in parts(type))
    assert hash(type) == hash(parse(to_text(type), records_of([type])))


@given(primitives())
def test_there_is_one_primitive_of_each_name(type: Primitive) -> None:
    assert PRIMITIVES[type.name] == type == Primitive(type.name)
