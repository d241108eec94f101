"""`sse`: one call of a program as server-sent events, ready for any ASGI framework's streaming response."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, cast

import dspy

from streamll.core.events import Event, JsonValue, ResultEvent, encode
from streamll.core.values import jsonable
from streamll.live import stream

logger = logging.getLogger("streamll")

MEDIA_TYPE = "text/event-stream"
HEADERS: Mapping[str, str] = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
"""What a response of frames is sent with, so that nothing on the way stores, packs or holds it back."""
KEEP_ALIVE = b": keep-alive\n\n"
KEEP_ALIVE_SECONDS = 15.0

_BREAKS = str.maketrans(dict.fromkeys("\r\n\0", " "))


def frame(event: Event) -> bytes:
    """Return `event` as one server-sent event: `id` is its sequence, `data` its wire form on one line.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    return framed(event.sequence, event.event_type, encode(event))


def framed(sequence: int, name: str, data: bytes) -> bytes:
    """Return a server-sent event; `data` is one line. No name can end the line it is on."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (sequence, name.translate(_BREAKS).encode(), data)


def prediction_frame(sequence: int, outputs: JsonValue) -> bytes:
    """Return the frame after the last event: what the program returned."""
    return framed(sequence, "prediction", json.dumps({"outputs": outputs}, separators=(",", ":")).encode())


async def sse(program: dspy.Module, /, **inputs: Any) -> AsyncGenerator[bytes]:
    """Run `program(**inputs)` and yield a server-sent event for each event of it, then `event: prediction`.

    The frames are bytes: `StreamingResponse(sse(program, question=q), media_type="text/event-stream")`. A
    program that raises ends its stream with `event: execution_error`. While nothing happens a comment is sent
    every 15 s. A client that goes away stops the program at its next call or token.

    Raises:
        NotAProgram: `program` is no `dspy.Module`.
    """
    async with aclosing(stream(program, **inputs)) as events:
        following = asyncio.ensure_future(anext(events))
        try:
            while True:
                await asyncio.wait([following], timeout=KEEP_ALIVE_SECONDS)
                if not following.done():
                    yield KEEP_ALIVE
                    continue
                event = following.result()
                yield frame(event)
                if isinstance(event, ResultEvent):
                    yield prediction_frame(event.sequence + 1, outputs(event.prediction))
                following = asyncio.ensure_future(anext(events))
        except StopAsyncIteration:
            return
        except Exception as error:  # noqa: BLE001 - the program's own, which its last event tells of
            logger.info("a streamed program raised %s", type(error).__name__)
        finally:
            following.cancel()
            await asyncio.wait([following])


def outputs(prediction: object) -> JsonValue:
    """Return what a program returned as JSON: the fields of a `dspy.Prediction`, any other value as it is."""
    return jsonable(
        cast("Any", prediction).toDict() if isinstance(prediction, dspy.Prediction) else prediction
    )
