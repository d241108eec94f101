"""The documents of the wire format: that they say what the events are."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dspy
import pytest
import streamll
from click.testing import CliRunner
from conftest import Seen
from jsonschema import Draft202012Validator, ValidationError
from logs import event, new_execution
from scripted import chat, lm
from streamll import cli
from streamll.core.events import Event, decode, encode

PAGE = Path(__file__).parents[3] / "docs/wire-format.md"


def printed(*options: str) -> dict[str, Any]:
    shown = CliRunner().invoke(cli.main, ["schema", *options])
    assert shown.exit_code == 0, shown.output
    return json.loads(shown.stdout)


def check(body: object) -> None:
    checker = Draft202012Validator.FORMAT_CHECKER
    Draft202012Validator(printed(), format_checker=checker).validate(body)


def wire(**changes: Any) -> dict[str, Any]:
    return json.loads(encode(event(new_execution(), 0))) | changes


# --- the schema ---------------------------------------------------------------------------------------------


def search(query: str) -> str:
    """Look something up."""
    return f"about {query}"


class Everything(dspy.Module):
    """Makes events of most kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.search = dspy.Tool(search)
        self.respond = dspy.Predict("question, context -> answer, why")

    def forward(self, question: str) -> Any:
        with streamll.trace("retrieval", k=3) as step:
            found = self.search(query=question)
            step.emit("found", nested={"list": [1, 2.5, None, True, "ö"]})
        return self.respond(question=question, context=found)


def test_events_of_every_type_fit_the_schema(seen: Seen) -> None:
    model = lm(chat(answer="Paris, of course"), '{"answer": "Paris", "why": "It is."}', thinking="well")
    with dspy.context(lm=model), streamll.set_context(conversation_id="conv_123"):
        Everything()(question="?")
    with dspy.context(lm=lm(ValueError("no such model"))), pytest.raises(Exception, match="no such model"):
        Everything()(question="?")

    types = set(seen.types())

    for one in seen:
        check(json.loads(encode(one)))
    spans = {"execution", "module", "lm", "tool", "trace", "adapter_format", "adapter_parse"}
    ends = {f"{span}_{moment}" for span in spans for moment in ("start", "end")}
    assert types >= ends | {"execution_error", "lm_error", "token", "stream_reset", "reasoning", "found"}


def test_a_later_writer_may_add_fields_and_types() -> None:
    check(wire(event_type="not_yet_invented", color="blue", data={"anything": [{"goes": None}]}))


def test_what_is_not_needed_may_be_missing() -> None:
    needed = ("event_id", "execution_id", "sequence", "timestamp", "event_type")

    check({name: wire()[name] for name in needed})


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence": -1},
        {"sequence": "1"},
        {"event_type": None},
        {"data": []},
        {"tags": "a"},
        {"version": 2},
    ],
    ids=str,
)
def test_what_is_no_event_does_not_fit(changes: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError):
        check(wire(**changes))


def test_the_schema_is_one_and_describes_every_field() -> None:
    document = printed()

    Draft202012Validator.check_schema(document)
    assert list(document["properties"]) == list(Event.__struct_fields__)
    assert all(field["description"] for field in document["properties"].values())
    assert (document["$id"], document["title"]) == ("urn:streamll:event:1", "streamll event, version 1")


# --- the AsyncAPI document ----------------------------------------------------------------------------------


def references(node: object) -> Iterator[str]:
    match node:
        case {"$ref": str(path)}:
            yield path
        case dict():
            for value in node.values():
                yield from references(value)
        case list():
            for value in node:
                yield from references(value)
        case _:
            pass


def resolved(document: Any, path: str) -> Any:
    for name in path.removeprefix("#/").split("/"):
        document = document[name]
    return document


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = printed("--asyncapi")

    paths = list(references(document))

    assert len(paths) > 10
    assert all(resolved(document, path) for path in paths)


def test_every_operation_receives_the_event_of_the_schema() -> None:
    document = printed("--asyncapi")
    schema = {name: value for name, value in printed().items() if not name.startswith("$")}

    for operation in document["operations"].values():
        assert operation["action"] == "receive"
        (path,) = references(operation["messages"])
        message = resolved(document, resolved(document, path)["$ref"])
        assert resolved(document, message["payload"]["$ref"]) == schema


def test_the_channels_are_those_of_the_three_servers() -> None:
    document = printed("--asyncapi")

    assert document["asyncapi"].startswith("3.")
    assert {name: channel["address"] for name, channel in document["channels"].items()} == {
        "redis": "streamll_events",
        "rabbitmq": "{event_type}.{name}",
        "nats": "streamll.{program}.{execution_id}",
    }
    assert document["channels"]["rabbitmq"]["bindings"]["amqp"]["exchange"]["type"] == "topic"
    for name, channel in document["channels"].items():
        assert channel["servers"] == [{"$ref": f"#/servers/{name}"}]
        assert set(channel.get("parameters", {})) == set(re.findall(r"{(\w+)}", channel["address"]))


# --- the page -----------------------------------------------------------------------------------------------


def test_the_page_has_a_row_for_every_field() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", PAGE.read_text(), re.MULTILINE)

    assert [name for name, _ in rows] == list(Event.__struct_fields__)


def test_the_examples_of_the_page_are_events_byte_for_byte() -> None:
    blocks = re.findall(r"^```json\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]

    assert len(lines) > 5
    for line in lines:
        check(json.loads(line))
        assert encode(decode(line)).decode() == line
