"""EventConsumer: what handlers get, and what happens when they, the message or the server fail."""

import asyncio
import os
import signal
import sys
from asyncio import timeout
from collections.abc import Callable

import pytest
from logs import event, run_of, sequences
from streamll import Event, EventConsumer
from streamll.errors import BadUrl, EventsExpired, StreamllError
from streamll.eventlog import EventLog
from streamll.transports import Retention


class Handled(list[Event]):
    """A handler that keeps what it is called with, and stops the consumer after so many."""

    def __init__(
        self, consumer: EventConsumer, number: int, *, raises: Callable[[Event], bool] | None = None
    ):
        self.consumer = consumer
        self.number = number
        self.raises = raises
        self.tries = 0

    async def __call__(self, got: Event) -> None:
        self.tries += 1
        if self.raises and self.raises(got):
            raise ValueError(f"no {got.sequence}")
        self.append(got)
        if len(self) == self.number:
            await self.consumer.stop()


async def handled(consumer: EventConsumer, number: int, pattern: str = "*", **where: object) -> list[Event]:
    """Run `consumer` until a handler of `pattern` has had `number` events."""
    seen = Handled(consumer, number)
    consumer.on(pattern, where=where or None)(seen)  # pyright: ignore[reportArgumentType]
    async with timeout(20):
        await consumer.run()
    return seen


# --- handlers -----------------------------------------------------------------------------------------------


async def test_handlers_get_the_types_they_asked_for(log: EventLog, url: str, target: str) -> None:
    events = run_of(3)
    events.insert(2, event(events[0].execution_id, 9, "lm_error"))
    events = [event(e.execution_id, n, e.event_type) for n, e in enumerate(events)]
    consumer = EventConsumer(url, target, start="earliest")
    got: dict[str, list[str]] = {"token": [], "*_error": [], "execution_*": []}
    for pattern, types in got.items():
        consumer.on(pattern)(lambda e, types=types: types.append(e.event_type))
    everything = Handled(consumer, len(events))
    consumer.on("*")(everything)
    log.append(events)

    async with timeout(20):
        await consumer.run()

    assert everything == events
    assert got == {
        "token": ["token"] * 3,
        "*_error": ["lm_error"],
        "execution_*": ["execution_start", "execution_end"],
    }


async def test_where_keeps_a_handler_to_one_conversation(log: EventLog, url: str, target: str) -> None:
    log.append(run_of(3, conversation_id="conv_1"))
    log.append(wanted := run_of(3, conversation_id="conv_123"))

    consumer = EventConsumer(url, target, start="earliest")

    assert await handled(consumer, 5, conversation_id="conv_123") == wanted


async def test_a_predicate_may_decide() -> None:
    log = EventLog("memory:predicate")
    log.append(run_of(9))
    consumer = EventConsumer("memory:predicate", start="earliest")
    seen = Handled(consumer, 4)
    consumer.on("token", where=lambda e: e.sequence % 2 == 0)(seen)

    async with timeout(20):
        await consumer.run()

    assert sequences(seen) == [2, 4, 6, 8]


async def test_tokens_are_token_events(log: EventLog, url: str, target: str) -> None:
    log.append(run_of(1))

    (token,) = await handled(EventConsumer(url, target, start="earliest"), 1, "token")

    assert (token.token, token.field) == ("t1 ", "answer")  # pyright: ignore


async def test_latest_begins_where_start_was_called(log: EventLog, url: str, target: str) -> None:
    log.append(run_of(3))
    async with EventConsumer(url, target) as consumer:
        after = run_of(3)
        await asyncio.to_thread(log.append, after)

        got = [await consumer.consume_one(timeout=20) for _ in after]

        assert got == after
        assert await consumer.consume_one(timeout=0.1) is None
    assert await consumer.consume_one() is None


async def test_events_can_be_looped_over(log: EventLog, url: str, target: str) -> None:
    events = run_of(20)
    log.append(events)
    got: list[Event] = []

    async with timeout(20):
        async for one in EventConsumer(url, target, start="earliest"):
            got.append(one)
            if one.is_last:
                break

    assert got == events


async def test_duplicates_are_handed_out_once(log: EventLog, url: str, target: str) -> None:
    events = run_of(10)
    log.append(events[:7])
    log.append(events)

    assert await handled(EventConsumer(url, target, start="earliest"), len(events)) == events


async def test_a_consumer_without_handlers_says_so() -> None:
    with pytest.raises(StreamllError, match="no handler"):
        await EventConsumer("memory:").run()


async def test_a_cursor_that_is_none_is_refused() -> None:
    with pytest.raises(BadUrl, match="latest, earliest, a moment or a cursor"):
        await EventConsumer("memory:", start="yesterday").start()


# --- handlers that fail, messages that are none -------------------------------------------------------------


@pytest.mark.parametrize("group", [None, "g"])
async def test_a_raising_handler_is_retried_then_the_event_is_a_dead_letter(
    log: EventLog, url: str, target: str, group: str | None
) -> None:
    events = run_of(4)
    log.append(events)
    consumer = EventConsumer(url, target, start="earliest", group=group, retries=2)
    seen = Handled(consumer, len(events) - 1, raises=lambda e: e.sequence == 2)
    consumer.on("*")(seen)

    async with timeout(20):
        await consumer.run()

    assert sequences(seen) == [0, 1, 3, 4, 5]
    assert seen.tries == 5 + 3
    (letter,) = await log.dead_letters()
    assert (letter.error, letter.attempts, letter.group) == ("ValueError: no 2", 3, group)
    assert f'"sequence":{events[2].sequence}' in letter.body


async def test_a_handler_that_recovers_in_time_leaves_no_dead_letter() -> None:
    log = EventLog("memory:recovers")
    log.append(run_of(1))
    consumer = EventConsumer("memory:recovers", start="earliest")
    failures = iter([True, True, False])
    seen = Handled(consumer, 3, raises=lambda e: e.sequence == 1 and next(failures))
    consumer.on("*")(seen)

    async with timeout(20):
        await consumer.run()

    assert sequences(seen) == [0, 1, 2]
    assert await log.dead_letters() == []


# --- groups -------------------------------------------------------------------------------------------------


async def test_what_was_handled_is_acknowledged_and_what_was_not_comes_again(
    log: EventLog, url: str, target: str
) -> None:
    events = run_of(10)
    log.append(events)

    first = await handled(EventConsumer(url, target, start="earliest", group="g"), 5)
    rest = await handled(EventConsumer(url, target, start="earliest", group="g"), len(events) - 5)

    assert first == events[:5]
    assert sorted(sequences(rest)) == sequences(events[5:])


async def test_an_event_in_hand_when_its_loop_breaks_comes_again(
    log: EventLog, url: str, target: str
) -> None:
    log.append(run_of(2))

    async def breaks() -> None:
        async with timeout(20), EventConsumer(url, target, start="earliest", group="g") as consumer:
            async for _ in consumer:
                raise RuntimeError("in the middle of it")

    with pytest.raises(RuntimeError):
        await breaks()

    rest = await handled(EventConsumer(url, target, start="earliest", group="g"), 4)
    assert sorted(sequences(rest)) == [0, 1, 2, 3]


async def test_a_slow_handler_keeps_what_it_holds(log: EventLog, url: str, target: str) -> None:
    log.append(run_of(1))
    slow = EventConsumer(url, target, start="earliest", group="g", claim_after=0.5)
    seen: list[int] = []
    begun = asyncio.Event()

    @slow.on("*")
    async def work(got: Event) -> None:
        await asyncio.sleep(0.6)
        begun.set()
        seen.append(got.sequence)
        if len(seen) == 3:
            await slow.stop()

    other = EventConsumer(url, target, start="earliest", group="g", claim_after=0.5)
    other.on("*")(lambda got: seen.append(-got.sequence - 100))
    async with timeout(20):
        running = asyncio.create_task(slow.run())
        await begun.wait()
        others = asyncio.create_task(other.run())
        await running
        await other.stop()
        await others

    assert seen == [0, 1, 2]


async def test_what_kills_every_consumer_ends_as_a_dead_letter() -> None:
    url = "memory:killer"
    log = EventLog(url)
    log.append(run_of(0))
    for _ in range(2):  # a member that takes and never acknowledges
        consumer = EventConsumer(url, start="earliest", group="g", claim_after=0.05)
        async with timeout(20), consumer.backend.follow("earliest", consumer._group) as subscription:  # pyright: ignore
            await subscription.next()
        await asyncio.sleep(0.1)

    survivor = EventConsumer(url, start="earliest", group="g", claim_after=0.05, max_deliveries=2)
    async with timeout(20):
        await survivor.start()
        while len(await log.dead_letters()) < 2:
            assert await survivor.consume_one(timeout=0.05) is None
    await survivor.stop()


# --- places that are gone -----------------------------------------------------------------------------------


async def test_a_consumer_is_told_once_what_retention_cut_and_can_go_on() -> None:
    url = "memory:expired"
    log = EventLog(url, retention=Retention(events=30))
    log.append(first := run_of(3))
    async with timeout(20):
        while first[0].execution_id in [one.execution_id for one in await log.executions()]:
            log.append(run_of(20))
            await asyncio.sleep(0.2)

    late = EventConsumer(url, start="1")
    with pytest.raises(EventsExpired):
        await late.start()
    await late.start()

    assert (await late.consume_one(timeout=20)) is not None
    await late.stop()


# --- ending -------------------------------------------------------------------------------------------------

SERVICE = """
import asyncio, sys, streamll
consumer = streamll.EventConsumer(sys.argv[1], start="earliest", group="g")

@consumer.on("*")
async def handle(event):
    print("begins", event.sequence, flush=True)
    await asyncio.sleep(0.3)
    print("ends", event.sequence, flush=True)

asyncio.run(consumer.run())
print("stopped")
"""


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_the_event_in_hand_be_finished(tmp_path: object, told: signal.Signals) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    log = EventLog(url)
    log.append(run_of(3))
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVICE, url, stdout=asyncio.subprocess.PIPE, env=os.environ | {"COLUMNS": "80"}
    )
    assert service.stdout
    async with timeout(30):
        assert await service.stdout.readline() == b"begins 0\n"
        service.send_signal(told)
        rest = (await service.stdout.read()).decode().split("\n")
        assert await service.wait() == 0

    assert rest[:2] == ["ends 0", "stopped"]
    again = await handled(EventConsumer(url, start="earliest", group="g"), 4)
    assert sorted(sequences(again)) == [1, 2, 3, 4]
