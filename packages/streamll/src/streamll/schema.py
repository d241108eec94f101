"""The wire format for other languages: the JSON Schema of an event, and an AsyncAPI of the transports.

Both are made from `Event` itself, so they cannot say anything else than the code does.
"""

import inspect
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import cast

import msgspec

from streamll.core.events import VERSION, Event, JsonValue
from streamll.transports.base import DEFAULT_TARGET

type Json = dict[str, JsonValue]

_TITLE = f"streamll event, version {VERSION}"


def event_schema() -> Json:
    """Return the JSON Schema (draft 2020-12) of one event.

    It holds what a reader may rely on. Fields it does not name are allowed, as are types it never heard of.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:streamll:event:{VERSION}",
        "$comment": f"Printed by `streamll schema`, streamll {version('streamll')}.",
        **_event(),
    }


def asyncapi() -> Json:
    """Return the AsyncAPI 3.0 document of the transports with a server: where events lie, and what they are.

    Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0
    """
    channels = cast("Json", {name: _channel(name, **about) for name, about in _CHANNELS.items()})
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "streamll",
            "version": version("streamll"),
            "description": "The events of DSPy programs, as a reader in any language finds them. "
            f"With another target its name replaces `{DEFAULT_TARGET}`, and `streamll` in subjects of NATS.",
        },
        "defaultContentType": "application/json",
        "servers": cast("JsonValue", _SERVERS),
        "channels": channels,
        "operations": {
            f"receiveFrom{name.capitalize()}": {
                "action": "receive",
                "channel": _ref("channels", name),
                "messages": [_ref("channels", name, "messages", "event")],
            }
            for name in channels
        },
        "components": {"messages": {"event": _message()}, "schemas": {"Event": _event()}},
    }


# --- an event -----------------------------------------------------------------------------------------------


def _event() -> Json:
    _, components = msgspec.json.schema_components([Event])
    schema = cast("Json", components["Event"])
    fields = cast("dict[str, Json]", schema["properties"])
    for name, said in _said().items():
        fields[name] = {"description": said, **fields[name], **_STRICTER.get(name, {})}
    summary = cast("str", inspect.getdoc(Event)).partition("\n")[0]
    return schema | {"title": _TITLE, "description": summary, "additionalProperties": True}


_STRICTER: Mapping[str, Json] = {
    "sequence": {"minimum": 0},
    "timestamp": {"format": "date-time"},
    "data": {"additionalProperties": True},
    "version": {"const": VERSION},
}
"""What is true of fields beyond their Python types."""


def _said() -> dict[str, str]:
    """Return what the docstring of `Event` says of each field."""
    attributes = cast("str", inspect.getdoc(Event)).partition("Attributes:\n")[2]
    return dict(re.findall(r"^    (\w+): (.+)$", attributes, re.MULTILINE))


# --- the transports -----------------------------------------------------------------------------------------

_SERVERS: Mapping[str, Json] = {
    "redis": {"host": "redis.example.com:6379", "protocol": "redis"},
    "rabbitmq": {"host": "rabbitmq.example.com:5672", "protocol": "amqp", "protocolVersion": "0-9-1"},
    "nats": {"host": "nats.example.com:4222", "protocol": "nats"},
}

_EXCHANGE: Json = {
    "name": DEFAULT_TARGET,
    "type": "topic",
    "durable": True,
    "autoDelete": False,
    "vhost": "/",
}

_CHANNELS: Mapping[str, Json] = {
    "redis": {
        "address": DEFAULT_TARGET,
        "description": "A stream of everything; each entry has one field, `event`: the message. "
        f"The events of one execution are also in the stream `{{{DEFAULT_TARGET}}}:x:<execution_id>`, braces "
        "included, where entry `<sequence + 1>-0` is the event of that sequence.",
    },
    "rabbitmq": {
        "address": "{event_type}.{name}",
        "description": f"A topic exchange, `{DEFAULT_TARGET}`: bind a queue of your own to it. "
        "A stream queue of the same name keeps everything; consume it with `x-stream-offset`.",
        "parameters": {
            "event_type": {"description": "As in the event; `token.#` binds to all tokens."},
            "name": {
                "description": "`module_name`, or else `operation`; it may hold dots itself. "
                "An event with neither has its type alone as the routing key."
            },
        },
        "bindings": {"amqp": {"is": "routingKey", "exchange": _EXCHANGE, "bindingVersion": "0.3.0"}},
    },
    "nats": {
        "address": "streamll.{program}.{execution_id}",
        "description": f"Subjects of the JetStream stream `{DEFAULT_TARGET}`. An event above the server's "
        "`max_payload` is an empty message, whose header `Streamll-Parts` lists the sequences of its parts.",
        "parameters": {
            "program": {"description": "The program's class; what a subject cannot hold is written `=2E`."},
            "execution_id": {"description": "As in the event."},
        },
    },
}


def _channel(name: str, **about: JsonValue) -> Json:
    messages: Json = {"event": _ref("components", "messages", "event")}
    return {**about, "servers": [_ref("servers", name)], "messages": messages}


def _message() -> Json:
    return {
        "name": "event",
        "title": _TITLE,
        "contentType": "application/json",
        "payload": _ref("components", "schemas", "Event"),
    }


def _ref(*path: str) -> Json:
    return {"$ref": "/".join(("#", *path))}
