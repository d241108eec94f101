"""A FastStream service that reads streamll's Redis stream, without streamll's consumer.

    uv add "faststream[redis,cli]" "streamll[redis]"
    uv run faststream run examples/faststream_reader.py:app

Each entry of the stream has one field, `event`, which FastStream hands to the parameter of that name.
"""

import os

from faststream import FastStream
from faststream.redis import RedisBroker, StreamSub
from streamll import decode

broker = RedisBroker(os.environ.get("REDIS_URL", "redis://localhost:6379"))
app = FastStream(broker)
stream = StreamSub(os.environ.get("STREAMLL_TARGET", "streamll_events"), group="printer", consumer="one")


@broker.subscriber(stream=stream)
async def show(entry: dict[str, str]) -> None:
    """Print tokens as they come."""
    event = decode(entry["event"])
    if event.event_type == "token":
        print(event.data["token"], end="", flush=True)
