import dataclasses
import enum
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import dspy
import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamll import Event, TokenEvent, decode, encode
from streamll.core.events import ResultEvent
from streamll.core.values import MAX_TEXT, freeze, jsonable
from streamll.errors import BadEvent, StreamllError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def event(event_type: str = "note", **data: Any) -> Event:
    kind = TokenEvent if event_type == "token" else Event
    return kind(
        event_id="e-0",
        execution_id="e",
        sequence=0,
        timestamp=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
        event_type=event_type,
        data=data,
    )


@given(json_values)
def test_what_is_encoded_decodes_to_the_same(value: Any) -> None:
    value = jsonable(value)

    assert decode(encode(event(value=value))) == event(value=value)


def test_a_token_decodes_to_a_token() -> None:
    read = decode(encode(event("token", token="Pa", token_index=3, field="answer", finish_reason="stop")))

    assert isinstance(read, TokenEvent)
    assert (read.token, read.token_index, read.field, read.finish_reason) == ("Pa", 3, "answer", "stop")


def test_an_event_is_one_line_with_every_field() -> None:
    line = encode(event(text="a\nb"))

    assert b"\n" not in line
    assert json.loads(line) == {
        "event_id": "e-0",
        "execution_id": "e",
        "sequence": 0,
        "timestamp": "2026-01-02T03:04:05.678901Z",
        "event_type": "note",
        "call_id": None,
        "parent_call_id": None,
        "module_name": None,
        "operation": None,
        "data": {"text": "a\nb"},
        "tags": [],
        "version": 1,
    }


def test_a_reader_ignores_fields_and_types_it_does_not_know() -> None:
    line = json.dumps(json.loads(encode(event("from_the_future"))) | {"colour": "red"})

    assert decode(line).event_type == "from_the_future"


@pytest.mark.parametrize("line", [b"", b"{}", b"[1]", b'{"event_id": 3}', b"\xff\xfe", "{"])
def test_bytes_that_are_no_event_are_refused_with_what_was_given(line: bytes | str) -> None:
    with pytest.raises(BadEvent, match="is not a streamll event") as caught:
        decode(line)

    assert repr(line[:80]) in str(caught.value)
    assert isinstance(caught.value, StreamllError)


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        event().sequence = 4  # pyright: ignore[reportAttributeAccessIssue]


def test_a_result_stays_in_the_process() -> None:
    end = msgspec.structs.asdict(event("execution_end"))

    assert encode(ResultEvent(**end, prediction=object())) == encode(event("execution_end"))


class Colour(enum.Enum):
    RED = "red"


class Person(pydantic.BaseModel):
    name: str


@dataclasses.dataclass
class Point:
    x: int


class Hostile:
    def __repr__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        (-math.inf, "-inf"),
        (2**70, str(2**70)),
        (b"abc", {"type": "bytes", "size": 3}),
        (Person(name="Ada"), {"name": "Ada"}),
        (Point(1), {"x": 1}),
        (Colour.RED, "red"),
        (ValueError("bad"), {"type": "ValueError", "message": "bad"}),
        (np.float32(0.5), 0.5),
        (np.arange(3), {"type": "ndarray", "shape": [3], "dtype": "int64", "head": [0, 1, 2]}),
        (dspy.Prediction(answer="yes"), {"answer": "yes"}),
        (dspy.Example(question="q"), {"question": "q"}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (Path("a/b"), "a/b"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Person, f"{__name__}.Person"),
        (len, "<builtin_function_or_method len>"),
        (Hostile(), "<Hostile: unreadable, ValueError>"),
        ({1: (1, 2), "s": {3}}, {"1": [1, 2], "s": [3]}),
        ("\ud800", "?"),
    ],
)
def test_what_is_not_json_becomes_honest_json(value: object, shown: object) -> None:
    assert jsonable(value) == shown
    msgspec.json.encode(jsonable(value))


def test_a_cycle_is_named() -> None:
    loop: list[object] = [1]
    loop.append(loop)

    assert jsonable(loop) == [1, "<cycle: list>"]
    assert jsonable(freeze({"loop": loop}))


def test_a_huge_text_keeps_its_beginning_and_says_what_is_missing() -> None:
    shown = jsonable("x" * (MAX_TEXT + 1234))

    assert isinstance(shown, str)
    assert shown.startswith("xxx")
    assert shown.endswith("… [1,234 more characters]")


def test_huge_and_deep_values_are_bounded() -> None:
    deep: object = "end"
    for _ in range(1000):
        deep = [deep]

    assert len(encode(event(deep=jsonable(deep)))) < 2_000
    assert len(encode(event(wide=jsonable(list(range(10**6)))))) < 100_000
    assert len(encode(event(much=jsonable(["x" * 10**6] * 20)))) < 5_000_000
    assert len(encode(event(keys=jsonable({str(n): n for n in range(10**5)})))) < 300_000


def test_what_is_frozen_does_not_change_later() -> None:
    given_now: dict[str, Any] = {"docs": ["a"], "prediction": dspy.Prediction(answer="x")}

    frozen = freeze(given_now)
    given_now["docs"].append("b")
    given_now["prediction"].answer = "y"

    assert jsonable(frozen) == {"docs": ["a"], "prediction": {"answer": "x"}}


@given(json_values | st.binary() | st.sets(st.fractions()) | st.datetimes() | st.complex_numbers())
def test_no_value_raises(value: object) -> None:
    msgspec.json.encode(jsonable(value))


def test_an_event_of_a_later_version_is_refused_with_advice() -> None:
    line = b'{"event_id":"x-0","execution_id":"x","sequence":0,"timestamp":"2026-01-01T00:00:00Z",'
    line += b'"event_type":"token","version":2}'

    with pytest.raises(BadEvent, match="version 2; this streamll reads 1: upgrade"):
        decode(line)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'"event_type": "token"', TokenEvent),
        (b'"event_type":"token"', TokenEvent),
        (b'"event_type":"note","data":{"event_type":"token"}', Event),
    ],
)
def test_the_type_decides_the_class_however_it_is_written(line: bytes, kind: type[Event]) -> None:
    head = b'{"event_id":"x-0","execution_id":"x","sequence":0,"timestamp":"2026-01-01T00:00:00Z",'

    assert type(decode(head + line + b"}")) is kind
    assert type(decode((head + line + b"}").decode())) is kind
