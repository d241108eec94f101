"""A connection of nats-py that listens: to an inbox which JetStream is told of, and to plain subjects."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, closing, suppress

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from streamll.transports._nats_place import Place
from streamll.transports._nats_wire import Wire


@asynccontextmanager
async def listening[T](
    place: Place, prepare: Callable[[Wire, str], T], *subjects: str
) -> AsyncGenerator[tuple["Feed", T]]:
    """Listen to `subjects`, and to an inbox that `prepare` tells the server of."""
    wire = await asyncio.to_thread(Wire, place)  # says better than nats-py what is wrong
    feed = Feed(place)
    try:
        await feed.connect(*subjects)
        yield feed, await asyncio.to_thread(_prepared, prepare, wire, feed.inbox)
    finally:
        await feed.close()


def _prepared[T](prepare: Callable[[Wire, str], T], wire: Wire, inbox: str) -> T:
    with closing(wire):
        return prepare(wire, inbox)


class Feed:
    """What a connection of nats-py hears, until it hears nothing for too long."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._client = Client()
        self._heard: list[Msg] = []
        self._some = asyncio.Event()
        self._error: Exception | None = None
        self.inbox = self._client.new_inbox()

    async def connect(self, *subjects: str) -> None:
        """Listen to the inbox and to `subjects`."""
        place, credentials = self._place, self._place.credentials()
        with place.errors():
            async with asyncio.timeout(place.seconds):
                await self._client.connect(
                    f"nats://{place.authority}",
                    user=credentials.get("user"),
                    password=credentials.get("pass"),
                    token=credentials.get("auth_token"),
                    error_cb=self._on_error,
                    closed_cb=self._on_close,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=max(1, int(place.seconds)),
                )
                for subject in (self.inbox, *subjects):
                    await self._client.subscribe(
                        subject, cb=self._on_message, pending_msgs_limit=0, pending_bytes_limit=0
                    )
                await self._client.flush()

    async def _on_message(self, message: Msg) -> None:
        self._heard.append(message)
        self._some.set()

    async def _on_error(self, error: Exception) -> None:
        self._error = error
        self._some.set()

    async def _on_close(self) -> None:
        self._error = self._error or nats.errors.ConnectionClosedError()
        self._some.set()

    async def close(self) -> None:
        try:
            with suppress(nats.errors.Error, OSError):
                async with asyncio.timeout(1):
                    await self._client.close()
        finally:  # nats-py leaves its socket open when it is cancelled here, as at the end of a loop
            transport = self._client._transport  # pyright: ignore[reportPrivateUsage]
            if transport is not None:
                transport.close()

    async def say(self, messages: Iterable[tuple[str, bytes]], reply: str = "") -> None:
        """Publish."""
        with self._place.errors():
            for subject, body in messages:
                await self._client.publish(subject, body, reply)

    async def flush(self) -> None:
        """Wait until the server has what was said."""
        with self._place.errors():
            await self._client.flush(max(1, int(self._place.seconds)))

    async def take(self) -> Sequence[Msg]:
        """Wait for messages, and return those there are, at least one."""
        while True:
            with self._place.errors():
                await self._wait()
            heard, self._heard = self._heard, []
            messages = [one for one in heard if status_of(one) != "100"]
            if len(messages) < len(heard):  # heartbeats, and questions whether we keep up
                await self.say((one.reply, b"") for one in heard if one.reply and status_of(one) == "100")
            if messages:
                return messages

    async def _wait(self) -> None:
        if not self._heard and self._error is None:
            self._some.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._place.seconds):
                    await self._some.wait()
        if not self._heard:
            await asyncio.sleep(0.1)  # a loop that was blocked meets its timers before its sockets
        if not self._heard:
            raise self._error or TimeoutError


def status_of(message: Msg) -> str | None:
    return message.headers.get("Status") if message.headers and not message.data else None
