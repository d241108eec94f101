"""What is Redis's own: keys, scripts, clusters, and what goes wrong between us and a server."""

import asyncio
import os
import select
import socket
import subprocess
import threading
import time
from asyncio import timeout
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from logs import all_of, new_name, run_of
from own_servers import OwnServer, free_port, program, redis_server
from servers import server
from streamll import Event
from streamll.core.events import decode, encode
from streamll.errors import BadUrl, EventsExpired, Refused, Unreachable
from streamll.eventlog import EventLog
from streamll.transports import Retention, open_backend
from streamll.transports.base import Delivery, Entry, Group, Subscription, Summary
from streamll.transports.redis import Backend


@pytest.fixture
def url() -> str:
    return server("redis")


@pytest.fixture
def target() -> str:
    return new_name()


@pytest.fixture
def client(url: str) -> Generator[Any]:
    with redis.Redis.from_url(url) as client:
        yield client


def entries(events: Sequence[Event]) -> list[Entry]:
    return [Entry(one, encode(one)) for one in events]


def append(url: str, target: str, events: Sequence[Event], retention: Retention | None = None) -> None:
    """Append with a writer of its own, which therefore looks at retention at once."""
    with closing(EventLog(url, target, retention=retention)) as log:
        log.append(events)


def stored(client: Any, target: str) -> list[Event]:
    """Return what a plain client finds."""
    return [decode(fields[b"event"]) for _, fields in client.xrange(target)]


async def next_of(subscription: Subscription, number: int) -> list[Delivery]:
    got: list[Delivery] = []
    async with timeout(10):
        while len(got) < number:
            got += await subscription.next()
    return got


def events_in(got: Sequence[Delivery]) -> list[Event]:
    return [decode(delivery.body) for delivery in got]


def member(name: str, *, claim_after: float = 60) -> Group:
    return Group("g", name, timedelta(seconds=claim_after))


# --- keys ---------------------------------------------------------------------------------------------------


def test_a_plain_client_reads_the_wire_form_in_the_field_event(url: str, target: str, client: Any) -> None:
    events = run_of(3)

    append(url, target, events)

    assert [fields for _, fields in client.xrange(target)] == [{b"event": encode(one)} for one in events]


@pytest.mark.parametrize("pattern", ["{}", "app{{{}}}log"])
async def test_all_keys_of_a_log_are_in_one_slot(url: str, client: Any, pattern: str) -> None:
    name = new_name()
    log = EventLog(url, pattern.format(name))
    log.append(run_of(3))
    await log.executions()

    tags = {key.split(b"{")[1].split(b"}")[0] for key in client.keys(f"*{name}*") if b"{" in key}

    assert tags == {name.encode()}


async def test_every_stream_of_an_execution_expires_by_itself(url: str, target: str, client: Any) -> None:
    done, going, kept = run_of(1), run_of(1, ended=False), run_of(1)
    append(url, target, [*done, *going], Retention(age=timedelta(days=1), abandoned=timedelta(days=7)))
    append(url, f"{target}_kept", kept, Retention(age=None))

    days = [client.ttl(f"{{{target}}}:x:{one[0].execution_id}") / 86_400 for one in (done, going)]

    assert days == pytest.approx([4, 11], abs=0.1)
    assert client.ttl(f"{{{target}_kept}}:x:{kept[0].execution_id}") == -1


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("redis://127.0.0.1:notaport", "t"),
        ("redis://127.0.0.1/?timeout=soon", "t"),
        ("redis://127.0.0.1/?timeout=0", "t"),
        ("redis://:secret@127.0.0.1/?no_such_option=1", "t"),
        ("redis://127.0.0.1", "a}b"),
        ("redis://127.0.0.1", "a{}b"),
    ],
)
def test_what_is_no_place_is_said_at_once(url: str, target: str) -> None:
    with pytest.raises(BadUrl) as told:
        open_backend(url, target)

    assert "secret" not in str(told.value)


async def test_a_cursor_of_another_backend_is_said_to_be_none(url: str, target: str) -> None:
    with pytest.raises(BadUrl, match="no place to start"):
        async with open_backend(url, target).follow("17", None):
            pass


# --- acknowledgement ----------------------------------------------------------------------------------------


@contextmanager
def losing_the_reply(port: int, *, asked: bytes = b"EVAL", said: bytes = b"") -> Generator[int]:
    """Pass one connection on to `port`, until something is asked; the answer is lost. Yield our port.

    Whoever asked hears nothing more, and is cut off when the server has answered with `said` in it.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_lose, args=(listener, port, asked, said))
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def _lose(listener: socket.socket, port: int, word: bytes, said: bytes) -> None:
    inward, _ = listener.accept()
    listener.close()
    with inward, socket.create_connection(("127.0.0.1", port)) as outward:
        asked = False
        while True:
            for source in select.select([inward, outward], [], [])[0]:
                data = source.recv(65_536)
                if not data or (asked and source is outward and said in data):
                    return
                asked = asked or word in data
                if not (asked and source is outward):
                    (outward if source is inward else inward).sendall(data)


def test_what_is_sent_again_after_a_lost_reply_is_stored_once(url: str, target: str, client: Any) -> None:
    events = run_of(20)
    with losing_the_reply(urlsplit(url).port or 6379) as port:
        writer = open_backend(f"redis://127.0.0.1:{port}", target).writer()
        with pytest.raises(Unreachable):
            writer.append(entries(events[:15]))
    assert client.xlen(target) == 15

    append(url, target, events)

    assert stored(client, target) == events


@pytest.mark.parametrize("tokens", [2, 100])
def test_a_connection_that_the_server_closed_is_made_again(
    url: str, target: str, client: Any, tokens: int
) -> None:
    events = run_of(tokens)
    writer = open_backend(f"{url}?client_name={target}", target).writer()
    writer.append(entries(events[:2]))
    (ours,) = [one["id"] for one in client.client_list() if one["name"] == target]
    client.client_kill_filter(_id=ours)

    writer.append(entries(events[2:]))

    writer.close()
    assert stored(client, target) == events


def test_a_child_leaves_the_connection_of_its_parent_alone(url: str, target: str, client: Any) -> None:
    events = run_of(4)
    writer = open_backend(url, target).writer()
    writer.append(entries(events[:2]))
    before = client.info("stats")["total_connections_received"]

    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        writer.abandon()
        os._exit(0)
    os.waitpid(child, 0)
    writer.append(entries(events[2:]))

    writer.close()
    assert client.xlen(target) == len(events)
    assert client.info("stats")["total_connections_received"] == before


def test_a_writer_that_rests_keeps_retention_going(url: str, target: str) -> None:
    events = run_of(3)
    log = EventLog(url, target, retention=Retention(age=timedelta(seconds=0.1)))
    writer = log.backend.writer()
    writer.append(entries(events))
    assert len(asyncio.run(_listed(log))) == 1
    time.sleep(0.2)

    writer.rest()

    writer.close()
    assert asyncio.run(_listed(log)) == []


async def _listed(log: EventLog) -> Sequence[Summary]:
    return await log.executions()


# --- bursts -------------------------------------------------------------------------------------------------


async def test_a_burst_whose_acknowledgement_is_lost_is_stored_and_seen_once(
    url: str, target: str, client: Any
) -> None:
    events = run_of(100)
    execution = events[0].execution_id
    with losing_the_reply(urlsplit(url).port or 6379, asked=events[-1].event_id.encode(), said=b"*") as port:
        writer = open_backend(f"redis://127.0.0.1:{port}", target).writer()
        with pytest.raises(Unreachable):
            writer.append(entries(events))
    before = client.xrange(f"{{{target}}}:x:{execution}")

    append(url, target, events)

    async with timeout(10), open_backend(url, target).follow("earliest", None) as subscription:
        assert events_in(await next_of(subscription, len(events))) == events
        assert await all_of(EventLog(url, target).read(execution)) == events
    assert client.xlen(target) == len(events)
    assert client.xrange(f"{{{target}}}:x:{execution}") == before != []


@pytest.mark.parametrize("overlap", [0, 1, 30])
def test_two_writers_of_one_execution_store_each_event_once(
    url: str, target: str, client: Any, overlap: int
) -> None:
    events = run_of(200)
    with closing(EventLog(url, target)) as one, closing(EventLog(url, target)) as other:
        one.append(events[:20])
        other.append(events[20 - overlap : 100])

        one.append(events[20:])

    assert stored(client, target) == events
    assert [one.events for one in asyncio.run(_listed(EventLog(url, target)))] == [len(events)]


def test_writers_that_race_with_the_same_events_store_each_once(url: str, target: str, client: Any) -> None:
    events = run_of(3_000)
    threads = [threading.Thread(target=append, args=(url, target, events)) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert stored(client, target) == events


def test_a_burst_that_repeats_itself_is_stored_once(url: str, target: str, client: Any) -> None:
    events = run_of(100)

    append(url, target, [*events[:60], *events[30:], *events])

    assert stored(client, target) == events


async def test_a_burst_of_many_executions_keeps_the_order_of_all(url: str, target: str, client: Any) -> None:
    runs = [run_of(20) for _ in range(300)]
    events = [one for row in zip(*runs, strict=True) for one in row]

    append(url, target, events)

    assert stored(client, target) == events
    log = EventLog(url, target)
    for run in runs[::100]:
        assert await all_of(log.read(run[0].execution_id)) == run


def test_a_burst_that_is_too_big_for_the_server_leaves_nothing_of_it(tmp_path: Path, target: str) -> None:
    events = run_of(1_000)
    with redis_server(tmp_path) as own, closing(EventLog(own.url, target)) as log:
        log.append(events[:20])
        with redis.Redis.from_url(own.url) as client:
            client.config_set("maxmemory", client.info("memory")["used_memory"] + 100_000)
            with pytest.raises(Unreachable, match="maxmemory"):
                log.append(events[20:])
            left = stored(client, target)
            client.config_set("maxmemory", 0)

            log.append(events[20:])

            assert left == events[: len(left)]
            assert stored(client, target) == events


def test_a_burst_into_a_key_of_another_type_leaves_nothing_of_it(url: str, target: str, client: Any) -> None:
    events = run_of(100)
    with closing(EventLog(url, target)) as log:
        log.append(events[:20])
        client.delete(target)
        client.set(target, "mine", ex=60)

        with pytest.raises(Refused, match="another target"):
            log.append(events[20:])

    assert client.xlen(f"{{{target}}}:x:{events[0].execution_id}") == 1


def test_who_may_not_have_transactions_stores_each_event_once(tmp_path: Path, target: str) -> None:
    events = run_of(100)
    with redis_server(tmp_path) as own, redis.Redis.from_url(own.url) as client:
        rights = ["+@all", "-@transaction"]
        client.acl_setuser("app", enabled=True, passwords=["+pw"], keys=["*"], categories=rights)
        with closing(EventLog(own.url.replace("//", "//app:pw@"), target)) as log:
            for _ in range(3):
                log.append(events)

        assert stored(client, target) == events


def test_a_server_that_hangs_in_a_burst_and_comes_back_stores_it_once(tmp_path: Path, target: str) -> None:
    events = run_of(3_000)
    with redis_server(tmp_path) as own, closing(EventLog(f"{own.url}?timeout=0.5", target)) as log:
        log.append(events[:20])
        own.pause()
        began = time.monotonic()
        with pytest.raises(Unreachable, match="in time"):
            log.append(events[20:])
        assert time.monotonic() - began < 3
        own.resume()

        log.append(events[20:])

        with redis.Redis.from_url(own.url) as client:
            assert stored(client, target) == events


def test_what_is_no_answer_to_a_burst_is_refused(target: str) -> None:
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while b"MULTI" not in (data := connection.recv(65_536)):
                connection.sendall(b"+OK\r\n" * data.count(b"*"))
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        with pytest.raises(Refused, match="no Redis"):
            append(f"redis://127.0.0.1:{listener.getsockname()[1]}", target, run_of(100))
        thread.join()


async def test_bursts_go_over_a_unix_socket(tmp_path: Path, target: str) -> None:
    events = run_of(100)
    with redis_server(tmp_path, "--unixsocket", f"{tmp_path}/socket") as own:
        writer = Backend(f"unix://{tmp_path}/socket", target, Retention()).writer()
        with closing(writer):
            writer.append(entries(events[:20]))
            writer.append(entries(events[20:]))

        assert await all_of(EventLog(own.url, target).read(events[0].execution_id)) == events


@pytest.fixture
def secured(tmp_path: Path) -> Generator[tuple[OwnServer, str]]:
    """A server that speaks TLS, and its URL for those who trust it."""
    key, certificate, port = tmp_path / "key", tmp_path / "certificate", free_port()
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-keyout", key)
    name = ("-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-out", certificate)
    subprocess.run([program("openssl"), "req", "-x509", *new_key, *name], check=True, capture_output=True)
    files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    trusted = ("--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no")
    with redis_server(tmp_path, "--tls-port", str(port), *files, *trusted) as own:
        yield own, f"rediss://127.0.0.1:{port}?ssl_ca_certs={certificate}"


def test_a_burst_over_tls_is_stored_once_also_when_the_server_hangs(
    secured: tuple[OwnServer, str], target: str
) -> None:
    own, url = secured
    events = run_of(3_000)
    with closing(EventLog(f"{url}&timeout=0.5", target)) as log:
        log.append(events[:1_000])
        own.pause()
        with pytest.raises(Unreachable, match="in time"):
            log.append(events[1_000:])
        own.resume()

        log.append(events[500:])

    with redis.Redis.from_url(own.url) as client:
        assert stored(client, target) == events


def test_a_certificate_that_is_not_trusted_is_refused(secured: tuple[OwnServer, str], target: str) -> None:
    _, url = secured

    with pytest.raises(Refused, match="Check the server's certificate") as told:
        append(url.partition("?")[0], target, run_of(1))

    assert ".." not in str(told.value)


# --- retention ----------------------------------------------------------------------------------------------


NONE_KEPT = Retention(events=0)


async def test_what_is_left_of_a_cut_execution_is_its_last_event(url: str, target: str) -> None:
    events = run_of(5)
    log = EventLog(url, target)
    append(url, target, events, NONE_KEPT)

    for after in (-1, 4):
        with pytest.raises(EventsExpired, match=events[0].execution_id) as told:
            await all_of(log.read(events[0].execution_id, after=after))
        assert told.value.available == 6

    async with timeout(10):
        assert await all_of(log.read(events[0].execution_id, after=5)) == events[6:]
        assert await all_of(log.read(events[0].execution_id, after=6)) == []
    assert list(await log.executions()) == []


async def test_a_cut_execution_is_not_stored_again(url: str, target: str, client: Any) -> None:
    events = run_of(5)
    append(url, target, events, NONE_KEPT)

    append(url, target, events)

    tombstone = f"{{{target}}}:x:{events[0].execution_id}"
    assert client.xlen(target) == 0
    assert 0 < client.ttl(tombstone) <= 86_400
    assert client.memory_usage(tombstone) < 2_000


async def test_an_execution_that_was_cut_may_go_on(url: str, target: str) -> None:
    events = run_of(5)
    append(url, target, events[:3], Retention(events=0, abandoned=timedelta()))

    append(url, target, events[3:])

    log = EventLog(url, target)
    async with timeout(10):
        assert await all_of(log.read(events[0].execution_id, after=2)) == events[3:]
    assert [one.status for one in await log.executions()] == ["ok"]


async def test_a_follower_is_told_exactly_when_it_missed_something(url: str, target: str) -> None:
    backend = open_backend(url, target)
    events = run_of(18)
    append(url, target, events)
    async with backend.follow("earliest", None) as subscription:
        cursors = [delivery.cursor for delivery in await next_of(subscription, len(events))]
    append(url, target, run_of(8), Retention(events=15))  # 30 were stored, the first 15 are cut

    for cursor in cursors[:14]:
        with pytest.raises(EventsExpired) as told:
            async with backend.follow(cursor, None):
                pass
        assert told.value.available == cursors[14]
    for number, cursor in enumerate(cursors[14:], 15):
        async with backend.follow(cursor, None) as subscription:
            got = await next_of(subscription, 30 - number)
        assert events_in(got)[: 20 - number] == events[number:]


async def test_a_follower_that_is_overtaken_is_told(url: str, target: str) -> None:
    backend = open_backend(url, target)
    async with backend.follow("latest", None) as subscription:
        append(url, target, run_of(28), Retention(events=10))

        with pytest.raises(EventsExpired) as told:
            await subscription.next()

    async with backend.follow(str(told.value.available), None) as subscription:
        assert len(await next_of(subscription, 10)) == 10


async def test_a_follower_that_waits_is_not_alarmed_by_what_it_saw(url: str, target: str) -> None:
    async with open_backend(url, target).follow("latest", None) as subscription:
        for _ in range(3):
            events = run_of(5)
            waiting = asyncio.create_task(next_of(subscription, len(events)))
            await asyncio.to_thread(append, url, target, events)
            assert events_in(await waiting) == events
            append(url, target, [], NONE_KEPT)


async def test_a_group_is_told_once_and_goes_on(url: str, target: str) -> None:
    backend = open_backend(url, target)
    append(url, target, run_of(1))
    async with backend.follow("earliest", member("a")) as one, backend.follow("latest", member("b")) as two:
        append(url, target, run_of(28), Retention(events=10))

        with pytest.raises(EventsExpired) as told:
            await one.next()
        assert len(await next_of(two, 10)) == 10

    assert isinstance(told.value.available, str)


async def test_a_new_group_may_not_begin_before_the_cut(url: str, target: str, client: Any) -> None:
    backend = open_backend(url, target)
    append(url, target, run_of(28), Retention(events=10))

    with pytest.raises(EventsExpired) as told:
        async with backend.follow("0-1", member("a")):
            pass

    assert client.xinfo_groups(target) == []
    async with backend.follow(str(told.value.available), member("a")) as subscription:
        assert len(await next_of(subscription, 10)) == 10
    async with backend.follow("0-1", member("a")):
        pass  # it is there, so its start says nothing


async def test_events_that_were_cut_while_somebody_held_them_do_not_stop_the_group(
    url: str, target: str, client: Any
) -> None:
    backend, group = open_backend(url, target), member("a", claim_after=0.1)
    append(url, target, run_of(3))
    async with backend.follow("earliest", group) as subscription:
        await next_of(subscription, 5)
    append(url, target, run_of(3), Retention(events=0))
    more = run_of(3)
    append(url, target, more)

    async with backend.follow("earliest", member("b", claim_after=0.1)) as subscription:
        with pytest.raises(EventsExpired):  # of the second run
            await subscription.next()
        await asyncio.sleep(0.2)
        got = await next_of(subscription, 5)
        await subscription.settle(got)

    assert events_in(got) == more
    assert client.xpending(target, "g")["pending"] == 0


# --- groups -------------------------------------------------------------------------------------------------


async def test_a_member_that_leaves_is_forgotten_unless_it_holds_something(
    url: str, target: str, client: Any
) -> None:
    backend = open_backend(url, target)
    append(url, target, run_of(1))
    async with backend.follow("earliest", member("holder")) as subscription:
        await next_of(subscription, 3)

    async with backend.follow("earliest", member("idle")) as subscription:
        waiting = asyncio.create_task(subscription.next())
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.wait([waiting])

    assert [one["name"] for one in client.xinfo_consumers(target, "g")] == [b"holder"]


async def test_a_member_that_crashed_is_forgotten_when_others_have_what_it_held(
    url: str, target: str, client: Any
) -> None:
    append(url, target, run_of(1))
    client.xgroup_create(target, "g", "0")
    client.xreadgroup("g", "crashed", {target: ">"})

    async with open_backend(url, target).follow("earliest", member("a", claim_after=0.01)) as subscription:
        await subscription.settle(await next_of(subscription, 3))
        names = [one["name"] for one in client.xinfo_consumers(target, "g")]

    assert b"crashed" not in names
    assert client.xinfo_consumers(target, "g") == []


async def test_a_subscription_goes_on_after_a_wait_was_cancelled(url: str, target: str) -> None:
    backend = open_backend(url, target)
    for group in (None, member("a")):
        async with backend.follow("latest", group) as subscription:
            with pytest.raises(TimeoutError):
                async with timeout(0.1):
                    await subscription.next()
            events = run_of(3)
            append(url, target, events)
            assert events_in(await next_of(subscription, len(events))) == events


async def test_what_others_put_into_the_log_is_handed_out_as_it_is(
    url: str, target: str, client: Any
) -> None:
    client.xadd(target, {"temperature": "21"})

    async with open_backend(url, target).follow("earliest", None) as subscription:
        assert [delivery.body for delivery in await next_of(subscription, 1)] == [b"21"]


# --- what goes wrong ----------------------------------------------------------------------------------------


async def _append(url: str, target: str) -> None:
    await asyncio.to_thread(append, url, target, run_of(1))


async def _read(url: str, target: str) -> None:
    await all_of(open_backend(url, target).read("x", -1))


async def _follow(url: str, target: str) -> None:
    async with open_backend(url, target).follow("latest", None) as subscription:
        await subscription.next()


async def _join(url: str, target: str) -> None:
    async with open_backend(url, target).follow("latest", member("a")) as subscription:
        await subscription.next()


async def _list(url: str, target: str) -> None:
    await open_backend(url, target).executions(10)


ALL = pytest.mark.parametrize("use", [_append, _read, _follow, _join, _list])

type Use = Callable[[str, str], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Generator[OwnServer]:
    """A server that wants a password."""
    with redis_server(tmp_path_factory.mktemp("guarded"), "--requirepass", "s3cret") as own:
        yield own


@ALL
async def test_a_password_that_is_missing_or_wrong_is_refused(
    guarded: OwnServer, target: str, use: Use
) -> None:
    for login in ("", ":wr0ng@", "nobody:wr0ng@"):
        with pytest.raises(Refused, match="password") as told:
            await use(guarded.url.replace("//", f"//{login}"), target)
        assert "wr0ng" not in str(told.value)


async def test_the_right_password_is_enough_and_never_shown(guarded: OwnServer, target: str) -> None:
    url = guarded.url.replace("//", "//:s3cret@")
    await _append(url, target)

    shown = repr(open_backend(url, target)) + repr(EventLog(url, target))

    assert "s3cret" not in shown
    assert "***@127.0.0.1" in shown


async def test_a_user_who_may_not_is_refused(guarded: OwnServer, target: str) -> None:
    with redis.Redis.from_url(guarded.url, password="s3cret") as client:
        client.acl_setuser("reader", enabled=True, passwords=["+pw"], keys=["*"], commands=["+xread"])

    with pytest.raises(Refused, match="ACL"):
        await _append(guarded.url.replace("//", "//reader:pw@"), target)


@ALL
@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x00\x09\x01"])
async def test_another_kind_of_server_is_refused(target: str, use: Use, says: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(says)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(Refused, match="no Redis"):
            async with timeout(5):
                await use(f"redis://127.0.0.1:{port}", target)


@ALL
async def test_a_server_that_is_not_there_is_unreachable(target: str, use: Use) -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1") as told:
        await use("redis://127.0.0.1:1", target)

    assert ".." not in str(told.value)


@ALL
async def test_a_server_that_hangs_is_unreachable_within_the_timeout(
    tmp_path: Path, target: str, use: Use
) -> None:
    with redis_server(tmp_path) as own:
        url = f"{own.url}?timeout=1"
        going = None if use in (_append, _list) else asyncio.create_task(use(url, target))
        await asyncio.sleep(0.2)
        own.pause()

        with pytest.raises(Unreachable):
            async with timeout(4):
                await (going or use(url, target))


async def test_nothing_is_lost_or_doubled_over_a_restart(tmp_path: Path, target: str) -> None:
    events = run_of(20)
    with redis_server(tmp_path) as own:
        log = EventLog(f"{own.url}?timeout=1", target)
        log.append(events[:10])
        reading = asyncio.create_task(all_of(log.read(events[0].execution_id)))
        await asyncio.sleep(0.2)
        own.stop()
        with pytest.raises(Unreachable):
            log.append(events[5:])
        own.start()

        log.append(events[5:])

        async with timeout(10):
            assert await reading == events
        log.close()


@ALL
async def test_a_key_of_another_type_is_refused(url: str, target: str, client: Any, use: Use) -> None:
    names = (target, f"{{{target}}}:x:x", f"{{{target}}}:started")
    for name in names:
        client.set(name, "mine", ex=60)

    with pytest.raises(Refused, match="another target"):
        await use(url, target)

    assert [client.get(name) for name in names] == [b"mine"] * 3


async def test_a_replica_is_refused_to_writers(tmp_path: Path, target: str) -> None:
    with (
        redis_server(tmp_path, "--replicaof", "127.0.0.1", "1") as own,
        pytest.raises(Refused, match="URL of the primary"),
    ):
        await _append(own.url, target)


# --- clusters -----------------------------------------------------------------------------------------------

SLOTS = 16_384


def cluster_command(client: Any, *command: object) -> Any:
    return client.execute_command(*command)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[OwnServer, OwnServer]]:
    """Two nodes, with half the slots each."""
    mode = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    folder = tmp_path_factory.mktemp("cluster")
    with redis_server(folder, *mode) as first, redis_server(folder, *mode) as second:
        with redis.Redis.from_url(first.url) as one, redis.Redis.from_url(second.url) as two:
            one.execute_command("CLUSTER ADDSLOTS", *range(SLOTS // 2))
            two.execute_command("CLUSTER ADDSLOTS", *range(SLOTS // 2, SLOTS))
            one.execute_command("CLUSTER MEET", "127.0.0.1", second.port)
            for client in (one, two):
                while cluster_command(client, "CLUSTER INFO")["cluster_state"] != "ok":
                    time.sleep(0.05)
        yield first, second


@pytest.mark.parametrize("tokens", [5, 100])
@pytest.mark.parametrize("name", ["a", "b", "tagged{a}", "tagged{b}"])
async def test_a_log_lives_on_one_node_of_a_cluster_and_is_found_from_all(
    cluster: tuple[OwnServer, OwnServer], name: str, tokens: int
) -> None:
    events, target = run_of(tokens), f"{name}_{new_name()}"
    first, second = (EventLog(own.url, target) for own in cluster)
    first.append(events[:4])
    second.append(events[4:])

    for log in (first, second):
        async with timeout(10):
            assert await all_of(log.read(events[0].execution_id)) == events
            assert [one.events for one in await log.executions()] == [len(events)]
        for group in (None, Group(new_name(), "a")):
            async with log.backend.follow("earliest", group) as subscription:
                got = await next_of(subscription, len(events))
                await subscription.settle(got)
            assert events_in(got) == events
        log.close()


@pytest.mark.parametrize("tokens", [5, 100])
async def test_a_log_whose_slot_moves_is_followed_to_its_new_node(
    cluster: tuple[OwnServer, OwnServer], tokens: int
) -> None:
    events, target = run_of(tokens), new_name()
    log = EventLog(cluster[0].url, target)
    log.append(run_of(0))  # it has a connection
    with redis.Redis.from_url(cluster[0].url) as one, redis.Redis.from_url(cluster[1].url) as two:
        slot = cluster_command(one, "CLUSTER KEYSLOT", target)
        here, there = (one, two) if slot < SLOTS // 2 else (two, one)
        here.delete(*here.keys(f"*{target}*"))
        async with log.backend.follow("latest", None) as subscription:
            for client in (there, here):
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", there.execute_command("CLUSTER MYID"))
            log.append(events)

            assert events_in(await next_of(subscription, len(events))) == events

        assert there.xlen(target) == len(events)
    log.close()
