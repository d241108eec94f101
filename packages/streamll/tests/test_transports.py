"""What every transport promises, by one suite over all of them."""

import asyncio
import threading
from asyncio import timeout
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
from logs import all_of, event, new_execution, new_name, run_of, sequences, taken
from streamll import Event
from streamll.core.events import decode
from streamll.errors import EventsExpired
from streamll.eventlog import EventLog
from streamll.transports import Retention, sqlite
from streamll.transports.base import Backend, DeadLetter, Delivery, Group, Start


async def deliveries(
    backend: Backend,
    number: int,
    start: Start = "earliest",
    group: Group | None = None,
    *,
    settle: bool = True,
) -> list[Delivery]:
    """Return the next `number` deliveries to one follower."""
    got: list[Delivery] = []
    async with timeout(20), backend.follow(start, group) as subscription:
        while len(got) < number:
            got += await subscription.next()
        if settle:
            await subscription.settle(got)
    return got


def events_in(got: Sequence[Delivery]) -> list[Event]:
    return [decode(delivery.body) for delivery in got]


# --- reading an execution -----------------------------------------------------------------------------------


async def test_what_was_appended_is_read_unchanged(log: EventLog) -> None:
    events = run_of(5, conversation_id="conv_123")

    log.append(events)

    async with timeout(20):
        assert await all_of(log.read(events[0].execution_id)) == events


async def test_a_reader_resumes_from_every_cut_point(log: EventLog) -> None:
    events = run_of(12)
    log.append(events)

    for cut in range(-1, len(events) - 1):
        async with timeout(20):
            got = await all_of(log.read(events[0].execution_id, after=cut))
        assert got == events[cut + 1 :]


async def test_a_reader_may_come_first_join_late_or_follow(log: EventLog, url: str, target: str) -> None:
    events = run_of(20)
    execution = events[0].execution_id
    early = asyncio.create_task(all_of(log.read(execution)))
    await asyncio.sleep(0)
    log.append(events[:8])
    late = asyncio.create_task(all_of(EventLog(url, target).read(execution)))

    for one in events[8:]:
        await asyncio.to_thread(log.append, [one])

    async with timeout(20):
        assert await early == await late == events
        assert await all_of(EventLog(url, target).read(execution)) == events


async def test_a_live_reader_gets_events_before_the_end(log: EventLog) -> None:
    events = run_of(3)
    async with timeout(20), aclosing(log.read(events[0].execution_id)) as reader:
        for one in events[:-1]:
            await asyncio.to_thread(log.append, [one])
            assert await anext(reader) == one


async def test_executions_do_not_mix(log: EventLog) -> None:
    first, second = run_of(10), run_of(10)

    for pair in zip(first, second, strict=True):
        log.append(pair)

    async with timeout(20):
        assert await all_of(log.read(first[0].execution_id)) == first
        assert await all_of(log.read(second[0].execution_id)) == second


async def test_an_execution_may_have_holes_that_a_filter_left(log: EventLog) -> None:
    events = [one for one in run_of(10) if one.sequence % 3]

    log.append(events)

    async with timeout(20):
        assert await all_of(log.read(events[0].execution_id, after=4)) == [
            e for e in events if e.sequence > 4
        ]


async def test_appending_again_makes_no_duplicate_for_a_reader(log: EventLog) -> None:
    events = run_of(10)
    log.append(events[:7])

    log.append(events[3:])
    log.append(events)

    async with timeout(20):
        assert await all_of(log.read(events[0].execution_id)) == events


async def test_text_of_any_kind_and_size_arrives(log: EventLog) -> None:
    execution = new_execution()
    texts = ["naïve 漢字 🦉", '\x00\x1b[2J\n\r\t"\\', "x" * 1_000_000, "\u2028\ufeff", ""]
    events = [event(execution, n, token=text, token_index=n, field="ä ö") for n, text in enumerate(texts)]
    events.append(event(execution, len(texts), "execution_end"))

    log.append(events)

    async with timeout(30):
        assert await all_of(log.read(execution)) == events


async def test_ten_thousand_events_of_one_millisecond_keep_their_order(log: EventLog) -> None:
    events = run_of(9_998)

    for start in range(0, len(events), 1_000):
        log.append(events[start : start + 1_000])

    async with timeout(60):
        assert sequences(await all_of(log.read(events[0].execution_id))) == list(range(10_000))
        assert sequences(await all_of(log.read(events[0].execution_id, after=5_000))) == [
            *range(5_001, 10_000)
        ]


async def test_names_may_hold_anything(url: str) -> None:
    log = EventLog(url, f"{new_name()}.a-b:c d*>é")
    execution = f"run/é *>.{new_name()}"
    events = run_of(3, execution)

    log.append(events)

    async with timeout(20):
        assert await all_of(log.read(execution)) == events
        assert [one.execution_id for one in await log.executions()] == [execution]


async def test_a_reader_that_has_everything_ends_at_once(log: EventLog) -> None:
    events = run_of(3)
    log.append(events)

    async with timeout(20):
        assert await all_of(log.read(events[0].execution_id, after=events[-1].sequence)) == []


async def test_a_reader_that_asks_for_more_than_comes_is_told_of_the_end(log: EventLog) -> None:
    events = run_of(6)
    log.append(events[:4])
    async with timeout(20), aclosing(log.batches(events[0].execution_id, after=10**15)) as reader:
        assert await anext(reader) == []  # it reads now
        await asyncio.to_thread(log.append, events[4:])
        assert [batch async for batch in reader if batch] == []


async def test_a_reader_that_comes_first_and_asks_for_too_much_is_told_too(log: EventLog) -> None:
    events = run_of(3)
    async with timeout(20):
        reading = asyncio.create_task(all_of(log.read(events[0].execution_id, after=7)))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(log.append, events)
        assert await reading == []


# --- following everything -----------------------------------------------------------------------------------


async def test_every_lone_follower_sees_everything(log: EventLog) -> None:
    events = run_of(30)
    log.append(events)

    for _ in range(2):
        assert events_in(await deliveries(log.backend, len(events))) == events


async def test_latest_is_what_is_stored_after_the_follower_came(log: EventLog) -> None:
    before, after = run_of(5), run_of(5)
    log.append(before)

    async with timeout(20), log.backend.follow("latest", None) as subscription:
        await asyncio.to_thread(log.append, after)
        got = events_in(await subscription.next())
        while len(got) < len(after):
            got += events_in(await subscription.next())

    assert got == after


async def test_latest_on_a_log_that_is_not_there_yet_is_everything(log: EventLog) -> None:
    events = run_of(5)

    async with timeout(20), log.backend.follow("latest", None) as subscription:
        await asyncio.to_thread(log.append, events)
        got = events_in(await subscription.next())
        while len(got) < len(events):
            got += events_in(await subscription.next())

    assert got == events


async def test_a_follower_goes_on_from_any_cursor(log: EventLog) -> None:
    events = run_of(10)
    log.append(events)
    got = await deliveries(log.backend, len(events))

    for place in range(len(got) - 1):
        rest = await deliveries(log.backend, len(got) - place - 1, got[place].cursor)
        assert events_in(rest) == events[place + 1 :]


async def test_the_subscription_knows_its_own_cursor(log: EventLog) -> None:
    events = run_of(10)
    log.append(events[:6])
    async with timeout(20), log.backend.follow("earliest", None) as subscription:
        got: list[Delivery] = []
        while len(got) < 6:
            got += await subscription.next()
        cursor = subscription.cursor

    log.append(events[6:])

    assert cursor is not None
    assert events_in(await deliveries(log.backend, len(events) - 6, cursor)) == events[6:]


async def test_a_follower_begins_at_a_moment(log: EventLog) -> None:
    log.append(run_of(5))
    await asyncio.sleep(0.05)
    moment = datetime.now(UTC)
    await asyncio.sleep(0.05)
    after = run_of(5)
    log.append(after)

    got = events_in(await deliveries(log.backend, len(after), moment))

    assert got[-len(after) :] == after  # RabbitMQ seeks to the chunk that holds the moment
    assert [one for one in got if one.timestamp >= moment] == after


# --- groups -------------------------------------------------------------------------------------------------


def member(name: str, *, group: str = "g", claim_after: float = 60) -> Group:
    return Group(group, name, timedelta(seconds=claim_after))


async def test_a_group_hands_each_event_to_one_member(log: EventLog) -> None:
    events = run_of(200)
    log.append(events[:1])
    got: dict[str, list[Event]] = {"a": [], "b": []}
    everything = asyncio.Event()

    async def work(name: str) -> None:
        async with log.backend.follow("earliest", member(name)) as subscription:
            while True:
                batch = await subscription.next()
                got[name] += events_in(batch)
                await subscription.settle(batch)
                if sum(map(len, got.values())) == len(events):
                    everything.set()
                await asyncio.sleep(0.002)

    workers = [asyncio.create_task(work(name)) for name in got]
    for one in events[1:]:
        await asyncio.to_thread(log.append, [one])
    async with timeout(30):
        await everything.wait()
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)

    handled = sorted(one.sequence for events in got.values() for one in events)
    assert handled == list(range(len(events)))
    assert all(got.values())


async def test_a_group_goes_on_where_it_was(log: EventLog) -> None:
    events = run_of(20)
    log.append(events)
    first = await deliveries(log.backend, len(events), "earliest", member("a"))
    more = run_of(3)

    log.append(more)

    assert events_in(first) == events
    assert events_in(await deliveries(log.backend, len(more), "earliest", member("b"))) == more


async def test_a_new_group_may_begin_with_the_latest(log: EventLog) -> None:
    before, after = run_of(5), run_of(5)
    log.append(before)

    async with timeout(20), log.backend.follow("latest", member("a")) as subscription:
        await asyncio.to_thread(log.append, after)
        got = events_in(await subscription.next())
        while len(got) < len(after):
            got += events_in(await subscription.next())

    assert got == after


async def test_what_a_member_did_not_settle_goes_to_another(log: EventLog) -> None:
    events = run_of(4)
    log.append(events)
    left = await deliveries(log.backend, len(events), "earliest", member("a", claim_after=0.3), settle=False)

    again = await deliveries(log.backend, len(events), "earliest", member("b", claim_after=0.3))

    assert sorted(sequences(events_in(again))) == sequences(events_in(left)) == sequences(events)
    assert {one.attempts for one in left} == {1}
    assert {one.attempts for one in again} == {2}


async def test_what_is_given_back_goes_to_another_at_once(log: EventLog) -> None:
    log.append(run_of(2))
    async with timeout(20), log.backend.follow("earliest", member("a")) as subscription:
        got: list[Delivery] = []
        while len(got) < 4:
            got += await subscription.next()
        await subscription.settle(got[:1])
        await subscription.release(got[1:])

        again = events_in(await deliveries(log.backend, 3, "earliest", member("b")))

    assert sorted(sequences(again)) == [1, 2, 3]


async def test_what_a_member_renews_stays_with_it(log: EventLog) -> None:
    log.append(run_of(0))
    async with timeout(20), log.backend.follow("earliest", member("a", claim_after=0.5)) as subscription:
        got: list[Delivery] = []
        while len(got) < 2:
            got += await subscription.next()
        other = asyncio.create_task(deliveries(log.backend, 1, "earliest", member("b", claim_after=0.5)))
        for _ in range(8):
            await asyncio.sleep(0.15)
            await subscription.renew(got)
        assert not other.done()
        await subscription.settle(got)
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)


async def test_groups_do_not_disturb_each_other(log: EventLog) -> None:
    events = run_of(10)
    log.append(events)

    for name in ("g1", "g2"):
        assert events_in(await deliveries(log.backend, 12, "earliest", member("a", group=name))) == events


async def test_dead_letters_are_kept(log: EventLog) -> None:
    letters = [
        DeadLetter(
            body=f"no event {number}",
            error="ValueError: no",
            attempts=3,
            cursor=str(number),
            group="g",
            timestamp=datetime.now(UTC),
        )
        for number in range(3)
    ]

    for letter in letters:
        await log.backend.bury(letter)

    assert list(await log.dead_letters()) == letters[::-1]
    assert list(await log.dead_letters(1)) == letters[2:]
    assert await log.executions() == []


# --- listing ------------------------------------------------------------------------------------------------


async def test_executions_are_listed_newest_first(log: EventLog) -> None:
    done = run_of(5, conversation_id="conv_1")
    failed = [*run_of(2, ended=False), event("x", 0)][:-1]
    failed.append(event(failed[0].execution_id, 3, "execution_error"))
    going = run_of(7, ended=False, conversation_id="conv_3")
    for events in (done, failed, going):
        log.append(events)
        await asyncio.sleep(0.005)

    listed = await log.executions()

    assert [one.execution_id for one in listed] == [e[0].execution_id for e in (going, failed, done)]
    assert [one.status for one in listed] == ["running", "error", "ok"]
    assert [one.events for one in listed] == [8, 4, 7]
    assert [one.context for one in listed] == [
        {"conversation_id": "conv_3"},
        {},
        {"conversation_id": "conv_1"},
    ]
    assert {one.program for one in listed} == {"QA"}
    assert listed[2].started == done[0].timestamp
    assert listed[2].seconds == (done[-1].timestamp - done[0].timestamp).total_seconds()
    assert [one.execution_id for one in await log.executions(1)] == [going[0].execution_id]


async def test_a_log_that_is_not_there_is_empty(log: EventLog) -> None:
    assert list(await log.executions()) == []
    assert list(await log.dead_letters()) == []


# --- many writers -------------------------------------------------------------------------------------------


async def test_eight_threads_of_two_hundred_executions_lose_nothing(
    log: EventLog, url: str, target: str
) -> None:
    runs = [[run_of(4) for _ in range(200)] for _ in range(8)]

    def write(mine: list[list[Event]]) -> None:
        own = EventLog(url, target)
        for events in mine:
            own.append(events[:3])
            own.append(events[3:])
        own.close()

    threads = [threading.Thread(target=write, args=(mine,)) for mine in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)

    got: dict[str, list[int]] = {}
    for one in events_in(await deliveries(log.backend, 8 * 200 * 6)):
        got.setdefault(one.execution_id, []).append(one.sequence)
    assert len(got) == 8 * 200
    assert set(map(tuple, got.values())) == {tuple(range(6))}
    async with timeout(20):
        sample = runs[3][77]
        assert await all_of(log.read(sample[0].execution_id)) == sample


# --- expiry -------------------------------------------------------------------------------------------------

# RabbitMQ's streams cut whole segments by themselves, finished or not: test_rabbitmq.py says what holds.


@pytest.fixture
def sparing(url: str) -> str:
    """A place whose retention looks at executions."""
    if url.startswith("amqp"):
        pytest.skip("RabbitMQ cuts by segment")
    return url


async def gone(log: EventLog, execution_id: str, *, after: int = -1) -> EventsExpired:
    """Append until the execution has been cut, and return what its reader is told."""
    async with timeout(30):
        while True:
            await asyncio.to_thread(log.append, run_of(50))
            try:
                async with aclosing(log.read(execution_id, after=after)) as reader:
                    await anext(reader)
            except EventsExpired as error:
                return error
            await asyncio.sleep(0.05)


LIMITS = [Retention(events=300), Retention(bytes=75_000), Retention(age=timedelta(seconds=1))]


@pytest.mark.parametrize("limit", LIMITS)
async def test_retention_cuts_what_ended_first_and_says_so(
    sparing: str, target: str, limit: Retention
) -> None:
    log = EventLog(sparing, target, retention=limit)
    going, done = run_of(10, ended=False), run_of(10)
    log.append(going)
    log.append(done)

    error = await gone(log, done[0].execution_id)

    assert done[0].execution_id in str(error)
    async with timeout(20), aclosing(log.read(going[0].execution_id)) as reader:
        assert await taken(reader, len(going)) == going
    last = run_of(3)
    log.append(last)
    async with timeout(20):
        assert await all_of(log.read(last[0].execution_id)) == last


async def test_a_follower_that_asks_for_what_was_cut_is_told_where_to_go_on(
    sparing: str, target: str
) -> None:
    log = EventLog(sparing, target, retention=Retention(events=300))
    done = run_of(10)
    log.append(done)
    cursor = (await deliveries(log.backend, 1))[0].cursor
    await gone(log, done[0].execution_id)

    with pytest.raises(EventsExpired) as told:
        await deliveries(log.backend, 1, cursor)

    assert isinstance(told.value.available, str)
    assert await deliveries(log.backend, 1, told.value.available)
    assert await deliveries(log.backend, 1, "earliest")


async def test_what_was_abandoned_is_cut_too(sparing: str, target: str) -> None:
    limit = Retention(age=timedelta(seconds=0.5), abandoned=timedelta(seconds=1))
    log = EventLog(sparing, target, retention=limit)
    killed = run_of(10, ended=False)
    log.append(killed)

    assert killed[0].execution_id in str(await gone(log, killed[0].execution_id))


async def test_nothing_is_cut_within_the_limits(log: EventLog) -> None:
    done = run_of(10)
    log.append(done)

    for _ in range(5):
        log.append(run_of(50))

    async with timeout(20):
        assert await all_of(log.read(done[0].execution_id)) == done
    assert len(await log.executions()) == 6


async def test_a_group_whose_place_was_cut_is_told_once_and_goes_on(sparing: str, target: str) -> None:
    log = EventLog(sparing, target, retention=Retention(events=300))
    done = run_of(10)
    log.append(done)
    await deliveries(log.backend, len(done), "earliest", member("a"))
    lost = run_of(10)
    log.append(lost)
    await gone(log, lost[0].execution_id)

    if log.url.startswith("nats"):
        pytest.skip("a JetStream consumer passes what was cut by itself")
    with pytest.raises(EventsExpired):
        await deliveries(log.backend, 1, "earliest", member("a"))

    assert await deliveries(log.backend, 1, "earliest", member("a"))


# --- SQLite -------------------------------------------------------------------------------------------------


async def test_a_busy_neighbour_wakes_nobody_all_the_time(tmp_path: Path) -> None:
    quiet, busy = (EventLog(f"sqlite:///{tmp_path}/events.db", name) for name in ("quiet", "busy"))
    events = run_of(400)
    with patch.object(sqlite, "_page", wraps=sqlite._page) as looks:
        reading = asyncio.create_task(all_of(quiet.read("nobody")))
        for one in events[:-1]:
            await asyncio.to_thread(busy.append, [one])
        reading.cancel()

    assert looks.call_count < 100
