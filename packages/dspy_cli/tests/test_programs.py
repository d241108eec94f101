"""What a program takes and gives over HTTP."""

import dataclasses
import datetime
import enum
import json
import math
import re
import typing
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal, Optional, TypedDict
from uuid import UUID

import dspy
import jsonschema
import pytest
import streamll
from dspy_cli.errors import BadProgram
from dspy_cli.project.programs import RESERVED, Program, program
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel, ValidationError, field_serializer
from scripted import chat, lm

MARKUP = "CUSTOM-TYPE"
PNG = "data:image/png;base64,iVBORw0KGgo="


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Page(BaseModel):
    """A page of a book."""

    image: dspy.Image
    caption: str = ""


class Tree(BaseModel):
    label: str
    image: dspy.Image | None = None
    children: list["Tree"] = []


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Score(TypedDict):
    value: float


class QA(dspy.Signature):
    """Answer in one sentence."""

    question: str = dspy.InputField(desc="What to ask", min_length=2)
    language: str | None = dspy.InputField()
    limit: int = dspy.InputField(default=3)
    answer: str = dspy.OutputField(desc="One sentence")


def serving(forward: Callable[..., object], **attributes: object) -> Program:
    """Return a program whose `forward` is `forward`."""
    return program(type("Served", (dspy.Module,), {"forward": forward, **attributes}))


def accepts(served: Program, **body: object) -> dict[str, object]:
    return served.inputs(served.request.model_validate(body))


def refuses(served: Program, **body: object) -> str:
    with pytest.raises(ValidationError) as caught:
        served.request.model_validate(body)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in caught.value.errors())


def fields(schema: dict[str, Any]) -> list[str]:
    return list(schema["properties"])


# --- Requests -----------------------------------------------------------------------------------------------


def test_a_default_makes_an_input_optional_and_is_kept() -> None:
    def forward(self: object, question: str, k: int = 3) -> None: ...

    served = serving(forward)

    assert accepts(served, question="why?") == {"question": "why?", "k": 3}
    assert served.input_schema()["required"] == ["question"]
    assert served.input_schema()["properties"]["k"] == {"default": 3, "title": "K", "type": "integer"}


@pytest.mark.parametrize("annotation", [str | None, Optional["Mood"], "Optional[str]"], ids=repr)
def test_what_may_be_none_may_be_left_out(annotation: object) -> None:
    def forward(self: object, language) -> None: ...

    forward.__annotations__["language"] = annotation

    assert accepts(serving(forward)) == {"language": None}


type Words = str | None


def test_an_alias_of_types_is_what_it_stands_for() -> None:
    def forward(self: object, words: Words, photos: list[Album] = []) -> None: ...  # noqa: B006

    inputs = accepts(serving(forward), photos=[[PNG]])

    assert inputs == {"words": None, "photos": [[dspy.Image(PNG)]]}


type Album = list[dspy.Image]


def test_an_image_that_was_built_already_is_taken() -> None:
    def forward(self: object, photo: dspy.Image) -> None: ...

    assert accepts(serving(forward), photo=dspy.Image(PNG)) == {"photo": dspy.Image(PNG)}


def test_a_default_of_none_lets_none_in() -> None:
    def forward(self: object, language: str = None) -> None: ...  # noqa: RUF013

    assert accepts(serving(forward), language=None) == {"language": None}


def test_python_values_are_built() -> None:
    def forward(
        self: object,
        mood: Mood,
        kind: Literal["a", "b"],
        tags: list[str],
        counts: dict[str, int],
        day: datetime.date,
        at: datetime.datetime,
        pair: tuple[int, str],
        page: Page,
    ) -> None: ...

    inputs = accepts(
        serving(forward),
        mood="good",
        kind="b",
        tags=["x"],
        counts={"n": 1},
        day="2026-11-20",
        at="2026-11-20T10:00:00Z",
        pair=[1, "x"],
        page={"image": PNG},
    )

    assert inputs["mood"] is Mood.GOOD
    assert inputs["day"] == datetime.date(2026, 11, 20)
    assert inputs["at"] == datetime.datetime(2026, 11, 20, 10, tzinfo=datetime.UTC)
    assert inputs["pair"] == (1, "x")
    assert isinstance(page := inputs["page"], Page)
    assert page.image.url == PNG


@pytest.mark.parametrize("extra", ["self", "signature", "config", "demos", "lm", "_trace", "other"])
def test_a_key_that_is_no_input_is_refused(extra: str) -> None:
    for served in (program(dspy.Predict(QA)), program(dspy.ReAct(QA, tools=[]))):
        assert "Extra inputs are not permitted" in refuses(served, question="why?", **{extra: 1})


def test_an_untyped_input_has_the_type_of_the_signatures_field() -> None:
    class Ask(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer = dspy.ChainOfThought(QA)

        def forward(self, question, notes):
            return self.answer(question=question)

    served = program(Ask)

    assert served.input_schema()["properties"]["question"] == {
        "description": "What to ask",
        "minLength": 2,
        "title": "Question",
        "type": "string",
    }
    assert served.input_schema()["properties"]["notes"] == {"title": "Notes"}
    assert accepts(served, question="why?", notes=[1])["notes"] == [1]


def test_keyword_arguments_are_the_inputs_of_the_first_signature() -> None:
    class Two(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = [dspy.Predict("a: int, b -> c"), dspy.Predict("c -> d")]

        def forward(self, **kwargs: object) -> None: ...

    assert fields(program(Two).input_schema()) == ["a", "b"]
    assert program(Two).input_schema()["required"] == ["a", "b"]


def test_keyword_arguments_beside_a_named_input_may_be_left_out() -> None:
    class Both(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer = dspy.Predict("context, question -> answer")

        def forward(self, question: str, **kwargs: object) -> None: ...

    assert accepts(program(Both), question="why?") == {"question": "why?"}
    assert accepts(program(Both), question="why?", context="x") == {"question": "why?", "context": "x"}


STRATEGIES = [
    dspy.Predict(QA),
    dspy.ChainOfThought(QA),
    dspy.ReAct(QA, tools=[]),
    dspy.BestOfN(module=dspy.ChainOfThought(QA), N=2, reward_fn=lambda *_: 1.0, threshold=1.0),
    dspy.Refine(module=dspy.Predict(QA), N=2, reward_fn=lambda *_: 1.0, threshold=1.0),
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def test_a_strategy_is_served_by_its_signature(strategy: dspy.Module) -> None:
    served = program(strategy)

    assert served.kind == type(strategy).__name__
    assert served.description == "Answer in one sentence."
    assert accepts(served, question="why?") == {"question": "why?", "language": None, "limit": 3}
    assert served.input_schema()["required"] == ["question"]
    assert served.output_schema()["properties"]["answer"]["description"] == "One sentence"


def test_a_strategy_around_a_module_has_the_inputs_of_the_module() -> None:
    class Ask(dspy.Module):
        def forward(self, question: str, k: int = 3) -> None: ...

    best = dspy.BestOfN(module=Ask(), N=2, reward_fn=lambda *_: 1.0, threshold=1.0)

    assert fields(program(best).input_schema()) == ["question", "k"]


def test_a_strategy_that_takes_more_than_its_signature_is_refused() -> None:
    with pytest.warns(DeprecationWarning, match="prefix"):
        compare = dspy.MultiChainComparison("question -> answer")

    with pytest.raises(BadProgram, match="MultiChainComparison takes more than its signature; wrap it"):
        program(compare)


def test_a_module_may_know_its_parent() -> None:
    class Child(dspy.Module):
        def forward(self, question: str) -> None: ...

    parent, child = Child(), Child()
    parent.child, child.parent, child.answer = child, parent, dspy.Predict(QA)  # pyright: ignore

    assert program(parent).kind == "Predict"
    assert program(parent).description == "Answer in one sentence."


def test_a_module_that_extends_a_strategy_is_served_by_its_signature() -> None:
    class Ask(dspy.ChainOfThought):
        """Ask away."""

        def __init__(self) -> None:
            super().__init__(QA)

    served = program(Ask)

    assert (served.kind, served.description, served.is_async) == ("ChainOfThought", "Ask away.", False)
    assert fields(served.input_schema()) == ["question", "language", "limit"]
    assert fields(served.output_schema()) == ["reasoning", "answer"]


def test_an_instrumented_module_has_the_same_interface() -> None:
    class Ask(dspy.Module):
        def forward(self, question: str, k: int = 3) -> None: ...

    plain = program(Ask).input_schema()

    assert program(streamll.instrument(Ask)).input_schema() == plain


def test_an_async_program_has_the_inputs_of_its_aforward() -> None:
    class Ask(dspy.Module):
        def forward(self, question: str) -> None: ...
        async def aforward(self, question: str, k: int) -> None: ...

    assert program(Ask).is_async
    assert fields(program(Ask).input_schema()) == ["question", "k"]


def test_an_annotation_only_type_checkers_know_is_any() -> None:
    def forward(self: object, thing: "Nowhere") -> "Nowhere": ...  # noqa: F821 # pyright: ignore

    assert accepts(serving(forward), thing=[1, {}]) == {"thing": [1, {}]}


def test_an_annotation_as_text_is_its_type() -> None:
    def forward(self: object, page: "list[Page]") -> None: ...

    assert "page.0.image" in refuses(serving(forward), page=[{"image": "x"}])


@pytest.mark.parametrize("name", ["copy", "json", "schema", "model_config", "model_fields", "validate", "_x"])
def test_an_input_may_have_a_name_pydantic_uses(name: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def forward(self, {name}: int): ...", scope)
    served = serving(scope["forward"])

    assert accepts(served, **{name: 1}) == {name: 1}
    assert fields(served.input_schema()) == [name]


def test_what_json_cannot_carry_needs_a_default_which_is_then_used() -> None:
    def fine(self: object, question: str, log: Callable[[str], None] = print) -> None: ...
    def wrong(self: object, log: Callable[[str], None]) -> None: ...

    assert accepts(serving(fine), question="why?") == {"question": "why?"}
    with pytest.raises(BadProgram, match=r"'log' is a .*Callable.*, which JSON cannot carry"):
        serving(wrong)


@pytest.mark.parametrize("default", [math.nan, object(), dspy.Image(PNG), [dspy.Image(PNG)]])
def test_a_default_json_cannot_tell_is_left_to_the_program(default: object) -> None:
    def forward(self: object, x: Any = default) -> None: ...

    served = serving(forward)

    assert accepts(served) == {}
    assert json.dumps(served.input_schema(), allow_nan=False)
    assert "default" not in served.input_schema()["properties"]["x"]


def test_a_default_that_is_a_list_is_not_shared() -> None:
    def forward(self: object, tags: list[str] = []) -> None: ...  # noqa: B006

    served = serving(forward)
    typing.cast("list[str]", accepts(served)["tags"]).append("x")

    assert accepts(served) == {"tags": []}


@pytest.mark.parametrize("given", [PNG, "https://example.com/a.png", f" {PNG}\n"])
@pytest.mark.parametrize("form", ["text", "object"])
def test_an_image_is_a_url(given: str, form: str) -> None:
    def forward(self: object, photo: dspy.Image, more: list[dspy.Image] | None = None) -> None: ...

    body = given if form == "text" else {"url": given}
    inputs = accepts(serving(forward), photo=body, more=[body])

    assert isinstance(photo := inputs["photo"], dspy.Image)
    assert photo.url == given.strip()
    assert inputs["more"] == [photo]


@pytest.mark.parametrize(
    "given",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "pyproject.toml",
        "http://169.254.169.254/latest",
        {"url": "/etc/passwd"},
        {"url": PNG, "download": True},
        {"url": {"url": "/etc/passwd"}},
        b"x".hex(),
        7,
        None,
        [],
    ],
)
def test_no_image_is_read_from_this_machine(given: object) -> None:
    def one(self: object, photo: dspy.Image) -> None: ...
    def nested(self: object, photo: Page) -> None: ...
    def deep(self: object, photo: dict[str, list[Page | None]]) -> None: ...

    assert "photo" in refuses(serving(one), photo=given)
    assert "photo" in refuses(serving(nested), photo={"image": given})
    assert "photo" in refuses(serving(deep), photo={"x": [{"image": given}]})


def test_dspys_types_have_a_form_in_json() -> None:
    def forward(
        self: object,
        history: dspy.History,
        code: dspy.Code["python"],  # noqa: F821 # pyright: ignore
        sound: dspy.Audio,
        file: dspy.File,
        thought: dspy.Reasoning,
    ) -> None: ...

    served = serving(forward)
    inputs = accepts(
        served,
        history={"messages": [{"question": "a", "answer": "b"}]},
        code="```python\nx = 1\n```",
        sound="data:audio/wav;base64,AAAA",
        file="data:application/pdf;base64,AAAA",
        thought="because",
    )

    assert inputs["history"] == dspy.History(messages=[{"question": "a", "answer": "b"}])
    assert typing.cast("dspy.Code", inputs["code"]).code == "x = 1"
    assert typing.cast("dspy.Audio", inputs["sound"]).audio_format == "wav"
    assert typing.cast("dspy.File", inputs["file"]).file_data == "data:application/pdf;base64,AAAA"
    assert typing.cast("dspy.Reasoning", inputs["thought"]).content == "because"
    assert "sound" in refuses(served, sound="/etc/passwd")
    assert "file" in refuses(served, file="/etc/passwd")


def test_a_form_with_an_image_says_so_in_its_schema() -> None:
    def forward(self: object, photo: dspy.Image, page: Page) -> None: ...

    schema = serving(forward).input_schema()

    assert schema["properties"]["photo"]["format"] == "image"
    assert schema["properties"]["photo"]["title"] == "Photo"
    assert schema["$defs"]["Page"]["properties"]["image"]["format"] == "image"
    assert schema["$defs"]["Page"]["description"] == "A page of a book."


def test_a_model_that_contains_itself_can_be_an_input() -> None:
    def forward(self: object, tree: Tree) -> None: ...

    tree = accepts(serving(forward), tree={"label": "a", "children": [{"label": "b"}]})["tree"]

    assert isinstance(tree, Tree)
    assert tree.children[0].label == "b"


def test_enums_and_literals_are_choices_in_the_schema() -> None:
    def forward(self: object, mood: Mood = Mood.BAD, kind: Literal["a", "b"] = "a") -> None: ...

    schema = serving(forward).input_schema()

    assert schema["$defs"]["Mood"]["enum"] == ["good", "bad"]
    assert schema["properties"]["mood"]["default"] == "bad"
    assert schema["properties"]["kind"]["enum"] == ["a", "b"]


def test_a_schema_holds_nothing_dspy_adds_to_each_field() -> None:
    schema = json.dumps(program(dspy.ChainOfThought("question -> answer")).input_schema())

    assert "${" not in schema
    assert "prefix" not in schema
    assert "__dspy_field_type" not in schema
    assert program(dspy.Predict("question -> answer")).description == ""


def annotations() -> st.SearchStrategy[Any]:
    leaves: list[Any] = [
        str, int, float, bool, Any, Mood, Page, Tree, Point, Score, datetime.date, datetime.timedelta,
        UUID, Decimal, bytes, dspy.Image, dspy.History, dspy.Code, dspy.Audio, dspy.File, dspy.Reasoning,
        Literal["a", 1, None], None,
    ]  # fmt: skip
    return st.recursive(
        st.sampled_from(leaves),
        lambda inner: st.one_of(
            inner.map(lambda each: list[each]),
            inner.map(lambda each: dict[str, each]),
            inner.map(lambda each: tuple[each, ...]),
            inner.map(lambda each: typing.Annotated[each, Field(description="x")]),
            st.tuples(inner, inner).map(lambda pair: typing.Union[pair]),  # noqa: UP007
        ),
        max_leaves=4,
    )


@settings(max_examples=50)  # each makes models, which is slow
@given(takes=annotations(), gives=annotations(), optional=st.booleans())
def test_any_annotations_make_schemas_that_are_valid(takes: Any, gives: Any, optional: bool) -> None:
    def required(self: object, x) -> None: ...
    def defaulted(self: object, x=None) -> None: ...

    forward = defaulted if optional else required
    forward.__annotations__ |= {"x": takes, "return": gives}
    served = serving(forward)

    for schema in (served.input_schema(), served.output_schema()):
        jsonschema.Draft202012Validator.check_schema(json.loads(json.dumps(schema, allow_nan=False)))
        assert MARKUP not in json.dumps(schema)
    assert ("x" not in served.input_schema().get("required", ())) >= optional


# --- Programs -----------------------------------------------------------------------------------------------


def test_a_plain_predict_is_not_watched_by_default() -> None:
    class Ask(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer = dspy.Predict(QA)

        def forward(self, question: str) -> None: ...

    class Agent(Ask):
        def __init__(self) -> None:
            super().__init__()
            self.look = {"up": dspy.ReAct(QA, tools=[])}

    assert [program(each).streams for each in (Ask, Agent, dspy.ChainOfThought(QA))] == [False, True, True]
    assert program(Agent).kind == "Module"


def test_a_program_is_described_by_its_own_docstring() -> None:
    class Ask(dspy.Module):
        """Ask.

        And be answered.
        """

        def forward(self) -> None: ...

    class Bare(dspy.Module):
        def forward(self) -> None: ...

    assert program(Ask).description == "Ask.\n\nAnd be answered."
    assert program(Bare).description == ""


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_path_of_the_server_is_no_name(name: str) -> None:
    with pytest.raises(BadProgram, match=f"the server needs /{re.escape(name)} for itself"):
        program(dspy.Predict(QA), name=name)


@pytest.mark.parametrize("name", ["a b", "a/b", "../x", "class", "1a", "a-b", "<script>"])
def test_a_name_must_be_an_identifier(name: str) -> None:
    with pytest.raises(BadProgram, match="is no name; expected a Python identifier"):
        program(dspy.Predict(QA), name=name)


def test_a_module_without_forward_is_refused() -> None:
    with pytest.raises(BadProgram, match="Idle has no `forward`"):
        program(type("Idle", (dspy.Module,), {}))


def test_a_positional_only_input_is_refused() -> None:
    def forward(self: object, question: str, /) -> None: ...

    with pytest.raises(BadProgram, match="'question' is positional-only"):
        serving(forward)


def test_a_gateway_is_made_once_and_must_be_one() -> None:
    from dspy_cli.gateways.api import APIGateway

    class Hook(APIGateway):
        path = "/hook"

    def forward(self: object) -> None: ...

    assert isinstance(serving(forward, gateway=Hook).gateway, Hook)
    assert serving(forward).gateway is None
    with pytest.raises(BadProgram, match="`gateway` is 3; expected a subclass"):
        serving(forward, gateway=3)


# --- Responses ----------------------------------------------------------------------------------------------


def gives(annotation: object, *strategies: dspy.Module) -> dict[str, Any]:
    class Served(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = list(strategies)

        def forward(self) -> object: ...

    Served.forward.__annotations__["return"] = annotation
    return program(Served).output_schema()


def test_a_prediction_has_the_outputs_of_the_last_strategy_and_maybe_more() -> None:
    schema = gives(dspy.Prediction, dspy.Predict("a -> b"), dspy.ReAct("b -> score: int", tools=[]))

    assert fields(schema) == ["trajectory", "reasoning", "score"]
    assert schema["additionalProperties"] is True
    assert "required" not in schema


def test_a_strategy_promises_its_outputs() -> None:
    schema = program(dspy.ChainOfThought(QA)).output_schema()

    assert schema["required"] == ["reasoning", "answer"]


def test_an_annotated_record_is_the_response() -> None:
    assert fields(gives(Page)) == ["image", "caption"]
    assert gives(Page)["properties"]["image"]["format"] == "image"
    assert gives(Point)["$ref"] == "#/$defs/Point"
    assert gives(RootModel[list[int]])["required"] == ["output"]
    assert gives(dspy.Image)["properties"]["output"] == {
        "format": "image",
        "title": "Output",
        "type": "string",
    }
    assert gives(list[Mood])["properties"]["output"]["items"] == {"$ref": "#/$defs/Mood"}
    assert gives(Page | dspy.Prediction | None)["additionalProperties"] is True
    assert gives(Callable[[], None])["properties"]["output"] == {"title": "Output"}


ASK = program(dspy.Predict(QA))
START, END = "<<CUSTOM-TYPE-START-IDENTIFIER>>", "<<CUSTOM-TYPE-END-IDENTIFIER>>"
SOUND = dspy.Audio(data="AAAA", audio_format="wav")
CALL = {"name": "count", "args": {"x": [1]}}
FILE = dspy.File(file_data="data:,x", filename="x")
CALLS = dspy.ToolCalls.from_dict_list([{"name": "count", "args": {"x": [1]}}])


def test_what_the_model_answers_fits_the_response_schema() -> None:
    served = program(dspy.ChainOfThought("question -> answer: int, tags: list[str]"))

    with dspy.context(lm=lm(chat(reasoning="r", answer="42", tags='["a"]'))):
        prediction = served.module(**accepts(served, question="why?"))
    outputs = served.outputs(prediction)

    assert outputs == {"reasoning": "r", "answer": 42, "tags": ["a"]}
    jsonschema.validate(outputs, served.output_schema())


class _Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __getattr__(self, name: str) -> object:
        raise AttributeError(name) if name.startswith("_") else ValueError(name)


class _Cyclic(BaseModel):
    next: Any = None


class _Media(BaseModel):
    sound: dspy.Audio
    file: dspy.File
    calls: dspy.ToolCalls


class _Unserializable(BaseModel):
    x: int = 1

    @field_serializer("x")
    def _refuse(self, _: int) -> int:
        raise RuntimeError


def _cycle() -> list[object]:
    items: list[object] = [1]
    items.append(items)
    return items


def _cyclic_model() -> _Cyclic:
    node = _Cyclic()
    node.next = node
    return node


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("text", {"output": "text"}),
        (None, {"output": None}),
        ([1, (2,)], {"output": [1, [2]]}),
        ({"a": {1}, 2: deque([3])}, {"a": [1], "2": [3]}),
        (dspy.Example(a=1).with_inputs("a"), {"a": 1}),
        (Point(1, 2), {"x": 1, "y": 2}),
        (Page(image=dspy.Image(PNG), caption="c"), {"image": PNG, "caption": "c"}),
        (RootModel[list[int]]([1]), {"output": [1]}),
        (dspy.Image(PNG), {"output": PNG}),
        (dspy.Code(code="x"), {"output": "x"}),
        (dspy.Reasoning(content="r"), {"output": "r"}),
        (SOUND, {"output": "data:audio/wav;base64,AAAA"}),
        (CALLS, {"output": {"tool_calls": [CALL]}}),
        (FILE, {"output": {"file_data": "data:,x", "filename": "x"}}),
        (
            {"t": f"{FILE} {dspy.Code(code='y')}"},
            {"t": '{"file_data": "data:,x", "filename": "x"} code=\'y\''},
        ),
        (
            _Media(sound=SOUND, file=FILE, calls=CALLS),
            {
                "sound": "data:audio/wav;base64,AAAA",
                "file": {"file_data": "data:,x", "filename": "x"},
                "calls": {"tool_calls": [CALL]},
            },
        ),
        (_Unserializable(), {"x": 1}),
        ({"n": 10**5_000}, {"n": hex(10**5_000)}),
        ({"t": f"{START}[1]{END}, {START}x{END}, {START}[{{}}]{END}"}, {"t": "1, x, {}"}),
        ({"t": f"{START}7{END}{START}[]{END}"}, {"t": "7"}),
        ({"t": f'{START}[{{"type": "text", "text": "a"}}]{END}'}, {"t": "a"}),
        ({"h": dspy.History(messages=[{"i": dspy.Image(PNG)}])}, {"h": {"messages": [{"i": PNG}]}}),
        ({"t": f"see {dspy.Image(PNG)}!"}, {"t": f"see {PNG}!"}),
        ({"t": "<<CUSTOM-TYPE-START-IDENTIFIER>>[not json"}, {"t": "[not json"}),
        ({"m": Mood.GOOD, "d": datetime.date(2026, 1, 2)}, {"m": "good", "d": "2026-01-02"}),
        ({"s": datetime.timedelta(hours=1), "u": UUID(int=1)}, {"s": "PT1H", "u": str(UUID(int=1))}),
        ({"n": math.nan, "i": -math.inf, "big": 2**64}, {"n": "nan", "i": "-inf", "big": str(2**64)}),
        ({"b": b"hi"}, {"b": "data:application/octet-stream;base64,aGk="}),
        ({"e": ValueError("x")}, {"e": {"type": "ValueError", "message": "x"}}),
        ({"c": _cycle()}, {"c": [1, "<cycle: list>"]}),
        ({"c": _cyclic_model()}, {"c": {"next": "<cycle: _Cyclic>"}}),
        ({"x": _Hostile()}, {"x": "<_Hostile: unreadable, ValueError>"}),
        ({"s": "\ud800"}, {"s": "?"}),
        ({"k": Page}, {"k": f"{__name__}.Page"}),
        (
            dspy.Prediction.from_completions([{"a": 1}, {"a": 2}]),
            {"a": 1, "completions": [{"a": 1}, {"a": 2}]},
        ),
    ],
)
def test_what_a_program_returns_is_json(returned: object, expected: object) -> None:
    assert ASK.outputs(returned) == expected


def test_arrays_are_lists() -> None:
    numpy = pytest.importorskip("numpy")

    assert ASK.outputs({"a": numpy.array([[1, 2]]), "n": numpy.float32(0.5)}) == {"a": [[1, 2]], "n": 0.5}


def test_a_prediction_is_given_whole() -> None:
    rows = list(range(50_000))

    assert ASK.outputs(dspy.Prediction(rows=rows, text="x" * 2_000_000)) == {
        "rows": rows,
        "text": "x" * 2_000_000,
    }


HAZARDS: list[object] = [
    *(math.nan, -math.inf, 2**70, b"\xff", "\ud800", 1j, object, print, ValueError("x"), Mood.GOOD),
    *(dspy.Image(PNG), dspy.Code(code="x"), SOUND, FILE, CALLS, f"see {dspy.Image(PNG)}", START, END),
    *(_cycle(), _cyclic_model(), Page(image=dspy.Image(PNG)), _Unserializable(), {None: Mood, Mood.BAD: 1}),
]


def returned() -> st.SearchStrategy[Any]:
    keys = st.text(max_size=3) | st.integers() | st.sampled_from(list(Mood)) | st.none()
    usual = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes() | st.decimals()
    )
    return st.recursive(
        st.sampled_from(HAZARDS) | st.builds(_Hostile) | usual,
        lambda inner: st.one_of(
            st.lists(inner) | st.lists(inner).map(tuple),
            st.dictionaries(keys, inner),
            st.dictionaries(st.text("abc", min_size=1), inner).map(lambda found: dspy.Prediction(**found)),
            inner.map(lambda each: Point(each, each)),
            inner.map(lambda each: _Cyclic(next=each)),
            inner.map(lambda each: dspy.History(messages=[{"x": each}])),
        ),
        max_leaves=8,
    )


@given(returned())
def test_whatever_a_program_returns_is_an_honest_json_object(value: object) -> None:
    outputs = ASK.outputs(value)

    text = json.dumps(outputs, allow_nan=False, ensure_ascii=False)
    assert json.loads(text.encode()) == outputs
    assert MARKUP not in text


@given(st.recursive(st.integers(-(2**63) + 1, 2**63 - 1) | st.text("ab") | st.none(), st.lists, max_leaves=9))
def test_what_is_json_already_is_unchanged(value: object) -> None:
    assert ASK.outputs({"x": value}) == {"x": value}


def test_nesting_without_end_is_cut_and_said() -> None:
    value: object = 0
    for _ in range(5_000):
        value = [value]

    assert "nested deeper than" in json.dumps(ASK.outputs(value))
