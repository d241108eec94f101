"""A run's events as server-sent event frames: made once, on streamll's thread, shared by all who watch."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager, suppress
from time import perf_counter
from typing import Any, Protocol

import dspy
import streamll
from dspy.utils.callback import BaseCallback
from fastapi import Response
from starlette.types import Receive, Scope, Send
from streamll.core.events import JsonValue
from streamll.frames import HEADERS, KEEP_ALIVE, MEDIA_TYPE, frame, prediction_frame

RETRY = b"retry: 1000\n\n"
"""What a stream begins with: how many milliseconds an EventSource waits before it connects again."""
STRAIGHT = "dspy_cli.send"
"""In an ASGI scope: sends the body of a response past everything between its endpoint and our guard."""
WINDOW_FRAMES = 4096
WINDOW_BYTES = 2 * 1024 * 1024
_CHUNK = 256

type Show = Callable[[streamll.Event], streamll.Event]
type Give = Callable[[bytes, int], Coroutine[Any, Any, None]]
"""Sends frames, joined, to a viewer; and how many they are."""


class Behind(Exception):
    """A viewer asked for frames that are no longer here, only in the log."""


class Tap:
    """Gives frames to a viewer past their generator: one who has seen the rest costs a write and no wake-up.

    A response opens it once it has begun. Until then, and while its client does not keep up, frames come from
    the generator.
    """

    def __init__(self) -> None:
        self._give: Give | None = None
        self._giving: asyncio.Task[None] | None = None

    def open(self, give: Give) -> None:
        """From now on frames may go to `give`."""
        self._give = give

    @property
    def is_open(self) -> bool:
        """Whether it takes frames."""
        return self._give is not None

    def take(self, frames: bytes, count: int) -> bool:
        """Send frames at once; False when that has to wait for the client, or the client is gone."""
        assert self._give is not None
        # Eager: what a client can take is sent without the loop.
        giving = asyncio.Task(self._give(frames, count), loop=asyncio.get_running_loop(), eager_start=True)
        if giving.done() and not giving.cancelled() and giving.exception() is None:
            return True
        self._giving = giving
        return False

    async def taken(self) -> None:
        """Wait for the client to have taken what it was sent last. Raises what sending it raised."""
        giving, self._giving = self._giving, None
        if giving is not None:
            await giving


class StreamingCallback(BaseCallback):
    """Captures every event of one run, in order, from any thread, for viewers on the event loop.

    A viewer has a cursor and no queue: one that stalls costs nothing, and is served from the log when it has
    fallen behind the window that is kept here. Subclass it and add DSPy callback methods (`on_tool_end`, ...)
    to see the calls as well; those are registered in `dspy.context` only, so that each fires once.

    Args:
        run_id: Only events of this execution; None is one that `attached` names.
        after: Frames up to this sequence are not here, but in the log.
        show: What viewers get of an event.
    """

    def __init__(
        self, run_id: str | None = None, *, after: int = -1, show: Show = lambda event: event
    ) -> None:
        self.run_id = run_id
        self.last: streamll.Event | None = None
        self.first_token: float | None = None
        self.ended = False
        self.floor = after
        self._show = show
        self._loop = asyncio.get_running_loop()
        self._frames: list[bytes] = []
        self._sequences: list[int] = []
        self._bytes = 0
        self._outputs: JsonValue = None
        self._returned = False
        self._waiting: list[asyncio.Future[None]] = []
        self._taps: dict[Tap, asyncio.Future[int]] = {}
        self._at_beat: int | None = None
        self._asked = -1
        self._wanted = asyncio.Event()

    @contextmanager
    def attached(self) -> Generator[None]:
        """Capture the program called inside the `with`."""
        with streamll.execution(self.run_id, sinks=[self]) as execution, self.observing():
            self.run_id = execution.id
            yield

    @contextmanager
    def observing(self) -> Generator[None]:
        """Have DSPy call the methods that a subclass added; without any, DSPy has no callback to serve."""
        if type(self) is StreamingCallback:
            yield
            return
        with dspy.context(callbacks=[*dspy.settings.callbacks, self]):
            yield

    # --- on streamll's thread ---

    def put(self, events: Sequence[streamll.Event]) -> None:
        """Frame `events` and hand them to the loop: one wake-up a burst."""
        own = [self._show(event) for event in events if event.execution_id == self.run_id]
        if own:
            frames = [frame(event) for event in own]
            with suppress(RuntimeError):  # the loop is closed: nobody watches
                self._loop.call_soon_threadsafe(self.add, own, frames)

    # --- on the loop ---

    @property
    def newest(self) -> int:
        """Sequence of the last frame there is."""
        return self._sequences[-1] if self._sequences else self.floor

    def add(self, events: Sequence[streamll.Event], frames: Sequence[bytes]) -> None:
        """Take the next events, framed."""
        if self.ended:
            return
        self.last = events[-1]
        if self.first_token is None and any(event.event_type == "token" for event in events):
            self.first_token = perf_counter()
        self._append([event.sequence for event in events], frames)
        self._end_if_over()

    def returned(self, outputs: JsonValue) -> None:
        """Take what the program returned, which follows its last event."""
        self._outputs, self._returned = outputs, True
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self.last is None or not self.last.is_last or self.ended:
            return
        if self.last.event_type == "execution_error":
            self.end()
        elif self._returned:
            sequence = self.newest + 1
            self._append([sequence], [prediction_frame(sequence, self._outputs)])
            self.end()

    def end(self) -> None:
        """Say that nothing follows."""
        self.ended = True
        self._close_taps()
        self.wake()

    def _append(self, sequences: Sequence[int], frames: Sequence[bytes]) -> None:
        if len(frames) > _CHUNK:
            self._close_taps()  # so many come in chunks
        self._sequences.extend(sequences)
        self._frames.extend(frames)
        self._bytes += sum(map(len, frames))
        if len(self._frames) > 2 * WINDOW_FRAMES or (self._bytes > WINDOW_BYTES and len(self._frames) > 1):
            self._let_go()
        if self._taps:
            self._give(_joined(frames), len(frames))
        self.wake()

    def _let_go(self) -> None:
        """Forget the older half of the frames."""
        half = len(self._frames) // 2
        self.floor = self._sequences[half - 1]
        self._bytes -= sum(map(len, self._frames[:half]))
        del self._frames[:half], self._sequences[:half]

    def _give(self, frames: bytes, count: int) -> None:
        """Send frames to all who have seen everything before them."""
        for tap in list(self._taps):
            if not tap.take(frames, count):
                self._close(tap)
        self._is_asked_for(self.newest)

    def _close_taps(self) -> None:
        for tap in list(self._taps):
            self._close(tap)

    def _close(self, tap: Tap) -> None:
        """Leave a viewer to its generator."""
        left = self._taps.pop(tap)
        if not left.done():
            left.set_result(self.newest)

    async def pour(self, tap: Tap) -> int:
        """Give all frames that come to `tap`, whose viewer has seen the rest.

        Returns:
            The sequence of the last frame given, as soon as something else is to be done.
        """
        left = self._taps[tap] = self._loop.create_future()
        try:
            after = await left
        finally:
            self._taps.pop(tap, None)
        await tap.taken()
        return after

    def wake(self) -> None:
        """Let every waiting viewer look; one that finds nothing has been idle."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def beat(self) -> None:
        """Have every viewer send a sign of life if none had anything else to send since the last beat."""
        if self.newest == self._at_beat:
            self._give(KEEP_ALIVE, 0)
            self.wake()
        self._at_beat = self.newest

    @property
    def viewers(self) -> int:
        """How many wait for the next frame."""
        return len(self._waiting) + len(self._taps)

    def since(self, after: int) -> tuple[int, Sequence[bytes]]:
        """Return frames after the sequence `after`, a bounded number, and the sequence of the last of them.

        Raises:
            Behind: They are gone from here.
        """
        self._is_asked_for(after)
        if after >= self.newest:
            return after, ()
        if after < self.floor:
            raise Behind
        start = bisect_right(self._sequences, after)
        end = min(start + _CHUNK, len(self._frames))
        return self._sequences[end - 1], self._frames[start:end]

    def _is_asked_for(self, after: int) -> None:
        if after > self._asked:
            self._asked = after
            self._wanted.set()

    async def wanted(self) -> None:
        """Wait while a whole window is here that no viewer has asked for: no need to read on."""
        while self.newest - self._asked > WINDOW_FRAMES:
            self._wanted.clear()
            await self._wanted.wait()

    def changed(self) -> asyncio.Future[None]:
        """Return what is done at the next `wake`. No coroutine: each frame would pay for one a viewer."""
        future = self._loop.create_future()
        self._waiting.append(future)
        return future


type Stored = Callable[[int], AsyncGenerator[tuple[int, bytes]]]
"""Frames of a run after a sequence, from its log, each with its own sequence."""


async def event_stream_generator(
    callback: StreamingCallback, after: int = -1, *, stored: Stored | None = None, tap: Tap | None = None
) -> AsyncGenerator[bytes]:
    """Yield the frames of a run after the sequence `after` as they come, several at a time when there are.

    Ends after the last one. A wake-up without any yields a keep-alive. To filter or change events, give the
    callback a `show`.

    Args:
        callback: Of the run.
        after: The last sequence already seen; -1 is none.
        stored: Where frames are that the callback no longer has.
        tap: While it is open, gets what comes, in place of a yield.

    Raises:
        Behind: There is no `stored`, and frames after `after` are no longer in the callback's window.
    """
    while True:
        try:
            after, frames = callback.since(after)
        except Behind:
            if stored is None:
                raise
            floor = callback.floor
            async with aclosing(stored(after)) as older:
                async for after, one in older:
                    yield one
                    if after >= floor:
                        break
            after = max(after, floor)
            continue
        if frames:
            yield _joined(frames)
        elif callback.ended:
            return
        elif tap is not None and tap.is_open and after == callback.newest:  # a cursor may be ahead
            after = await callback.pour(tap)
        else:
            await callback.changed()
            if callback.newest <= after and not callback.ended:
                yield KEEP_ALIVE


def _joined(frames: Sequence[bytes]) -> bytes:
    return frames[0] if len(frames) == 1 else b"".join(frames)


class Watching(Protocol):
    """Who counts viewers; `Metrics` is one."""

    def viewer(self) -> AbstractContextManager[object]: ...
    def delivered(self, count: int) -> None: ...


class EventStream(Response):
    """A response of frames, without Starlette's task group: one task sends, one sees the client leave.

    Args:
        frames: Its body.
        observer: Is told of the viewer, and of what it gets.
        tap: Of `frames`.
        headers: More of them.
        on_leave: Called when the client goes away.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        frames: AsyncGenerator[bytes],
        *,
        observer: Watching,
        tap: Tap | None = None,
        headers: dict[str, str] | None = None,
        on_leave: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(headers={**HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._chunks = frames
        self._observer = observer
        self._tap = tap
        self._on_leave = on_leave or (lambda: None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Each a task of its own: waking one that awaits through all middleware costs more than its frame.
        sending = asyncio.create_task(self._send(send, scope.get(STRAIGHT, send)))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            with self._observer.viewer():
                await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.wait([sending])
            await self._chunks.aclose()
        if sending.cancelled() or isinstance(sending.exception(), OSError):
            self._on_leave()
        else:
            sending.result()

    async def _send(self, send: Send, straight: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await straight({"type": "http.response.body", "body": RETRY, "more_body": True})

        async def give(frames: bytes, count: int) -> None:
            await straight({"type": "http.response.body", "body": frames, "more_body": True})
            self._observer.delivered(count)

        if self._tap is not None:
            self._tap.open(give)
        async for chunk in self._chunks:
            await give(chunk, chunk.count(b"\nevent: "))
        await straight({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def parse_last_event_id(given: str | None) -> int:
    """Return the sequence that a `Last-Event-ID` names, -1 for none. Anything else is none of ours: -1."""
    return int(given) if given and given.isascii() and given.isdecimal() and len(given) < 16 else -1
