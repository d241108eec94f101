"""`POST /{program}/stream` and `GET /runs/{id}/events`: every event, as it happens, once, in order."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from typing import Any

import dspy
import httpx
import pytest
import streamll
from dspy_cli import create_app
from dspy_cli.project.programs import program
from dspy_cli.server import streaming
from scripted import chat, lm
from serving import (
    ANSWER,
    AsyncQA,
    Frame,
    begun,
    chunks,
    endless,
    keys,
    parse,
    qa,
    resumed,
    serve,
    serving,
    stream,
    text_of,
    until,
    watching,
)

QUESTION = {"question": "6 * 7?"}


def sequences(frames: Sequence[Frame]) -> list[int]:
    return [frame.id for frame in frames]


# --- one stream ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [None, AsyncQA])
async def test_a_stream_is_the_whole_log_and_then_the_prediction(module: type[dspy.Module] | None) -> None:
    async with serving(qa(name="QA", **({"module": module} if module else {}))) as at, at.client() as client:
        frames = await stream(client)
        answer = await client.post("/QA", json=QUESTION)

    *events, prediction = frames
    assert sequences(frames) == list(range(len(frames)))
    assert [events[0].event, events[-1].event] == ["execution_start", "execution_end"]
    assert {"module_start", "adapter_format_end", "lm_start", "token", "lm_end"} <= {e.event for e in events}
    assert all(frame.event == frame.data["event_type"] for frame in events)
    assert prediction.event == "prediction"
    assert (
        prediction.data
        == {"outputs": answer.json()}
        == {"outputs": {"reasoning": "Multiply.", "answer": ANSWER}}
    )


async def test_a_stream_begins_with_retry_and_has_line_feeds_only() -> None:
    said = chat(reasoning="one\r\ntwo\rthree\u2028four", answer="data: x\n\nid: 9\nevent: fake\n")
    async with serving(qa(said)) as at, at.client() as client:
        response = await client.post("/QA/stream", json=QUESTION)

    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache, no-transform"
    assert response.headers["location"] == f"/runs/{response.headers['run-id']}"
    assert response.content.startswith(b"retry: 1000\n\n")
    assert b"\r" not in response.content
    assert "fake" not in {frame.event for frame in parse(response.content)}


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_the_tokens_of_a_field_make_up_the_field(size: int) -> None:
    async with serving(qa(size=size)) as at, at.client() as client:
        frames = await stream(client)

    for field, value in frames[-1].data["outputs"].items():
        assert text_of(frames, field) == value


async def test_tokens_arrive_while_the_model_is_still_talking() -> None:
    served = qa(chat(reasoning="Hm.", answer="word " * 40), size=4, seconds_a_chunk=0.02)
    async with (
        serving(served) as at,
        at.client() as client,
        watching(client, "POST", "/QA/stream", **QUESTION) as frames,
    ):
        seen = [(frame, chunks(served)) async for frame in frames]

    tokens = [said for frame, said in seen if frame.event == "token"]
    assert tokens[0] < 12
    assert tokens == sorted(tokens)
    assert sum(said < tokens[-1] for said in tokens) > 30


async def test_an_events_lag_is_milliseconds() -> None:
    async with (
        serving(qa(seconds_a_chunk=0.02)) as at,
        at.client() as client,
        watching(client, "POST", "/QA/stream", **QUESTION) as frames,
    ):
        lags = [_lag(frame) async for frame in frames if frame.event != "prediction"]

    assert sorted(lags)[len(lags) // 2] < 0.15


def _lag(frame: Frame) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(frame.data["timestamp"])).total_seconds()


class Silent(dspy.Module):
    """Calls no model."""

    def forward(self, text: str) -> dspy.Prediction:
        return dspy.Prediction(upper=text.upper())


async def test_a_program_without_a_model_streams_too() -> None:
    async with serving(program(Silent)) as at, at.client() as client:
        frames = parse((await client.post("/Silent/stream", json={"text": "abc"})).content)

    assert [frame.event for frame in frames] == [
        "execution_start",
        "module_start",
        "module_end",
        "execution_end",
        "prediction",
    ]
    assert frames[-1].data == {"outputs": {"upper": "ABC"}}


class Emits(dspy.Module):
    """Tells of itself, under hostile names."""

    def forward(self, text: str) -> dspy.Prediction:
        for name in ("progress", "a\nid: 99\ndata: {}", "b\r\n\r\nevent: prediction", "c\0", text):
            streamll.emit(name, {"about": "x\n\ndata: y"})
        return dspy.Prediction(done=True)


@pytest.mark.parametrize("name", ["plain", "\n\n", "\r", "event: x", "\u2028", "🧵" * 50])
async def test_events_of_the_programs_own_cannot_break_the_stream(name: str) -> None:
    async with serving(program(Emits)) as at, at.client() as client:
        response = await client.post("/Emits/stream", json={"text": name})
        again = await resumed(client, response.headers["run-id"], -1)

    frames = parse(response.content)
    assert sequences(frames) == list(range(len(frames)))
    assert sum(frame.event == "prediction" for frame in frames) == 1
    assert frames[-1].event == "prediction"
    assert [frame.data["data"].get("about") for frame in frames[2:7]] == ["x\n\ndata: y"] * 5
    assert keys(frames) == keys(again)


class Strange(dspy.Module):
    """Takes, emits and returns what JSON has no word for."""

    def forward(self, text: str) -> dspy.Prediction:
        cycle: list[object] = []
        cycle.append(cycle)
        strange = {"bytes": b"\xff\0", "nan": float("nan"), "cycle": cycle, "object": object(), 1: {2, 3}}
        streamll.emit("strange", strange)
        return dspy.Prediction(**{str(name): value for name, value in strange.items()}, surrogate="\ud800")


async def test_values_that_json_has_no_word_for_do_not_break_the_stream() -> None:
    async with serving(program(Strange)) as at, at.client() as client:
        frames = parse((await client.post("/Strange/stream", json={"text": "x"})).content)
        answer = await client.post("/Strange", json={"text": "x"})

    assert answer.status_code == 200
    assert frames[-1].event == "prediction"
    outputs = frames[-1].data["outputs"]
    assert {name: value for name, value in outputs.items() if name != "object"} == {
        name: value for name, value in answer.json().items() if name != "object"
    }
    assert outputs["nan"] == "nan"
    assert any(frame.event == "strange" for frame in frames)


async def test_a_token_of_a_megabyte_arrives_whole() -> None:
    long = "x" * 1_000_000
    async with serving(qa(chat(reasoning="r", answer=long), size=1_100_000)) as at, at.client() as client:
        frames = await stream(client)

    assert text_of(frames, "answer") == long
    assert frames[-1].data["outputs"]["answer"] == long


class Burst(dspy.Module):
    """Sends many events without a pause."""

    def forward(self, count: int) -> dspy.Prediction:
        for number in range(count):
            streamll.emit("step", {"number": number})
        return dspy.Prediction(count=count)


async def test_a_burst_of_events_is_delivered_whole_and_resumable() -> None:
    async with serving(program(Burst)) as at, at.client() as client:
        response = await client.post("/Burst/stream", json={"count": 5000})
        frames = parse(response.content)
        tail = await resumed(client, response.headers["run-id"], 4000)

    assert sequences(frames) == list(range(5005))
    assert [frame.data["data"]["number"] for frame in frames if frame.event == "step"] == list(range(5000))
    assert keys(tail) == keys(frames[4001:])


# --- errors -------------------------------------------------------------------------------------------------

SECRET = "password=hunter2"


class Fails(dspy.Module):
    """Raises what a test asks for, after a tool and a nested module have failed too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, kind: str) -> dspy.Prediction:
        if kind == "nested":
            return self.inner()
        if kind == "caught":
            try:
                self.inner()
            except ValueError:
                return dspy.Prediction(fine=True)
        raise _ERRORS[kind](SECRET)


class Inner(dspy.Module):
    """Fails, with a secret in its words."""

    def forward(self) -> dspy.Prediction:
        def look_up() -> str:
            raise ValueError(SECRET)

        return dspy.Tool(look_up)()


class Odd(BaseException):
    """No `Exception`."""


_ERRORS: dict[str, type[BaseException]] = {
    kind.__name__: kind for kind in (RuntimeError, SystemExit, KeyboardInterrupt, StopIteration, Odd)
} | {"nested": ValueError}
_KINDS = [*_ERRORS]


@pytest.mark.parametrize("kind", _KINDS)
async def test_a_failing_programs_stream_ends_with_its_error(kind: str) -> None:
    async with serving(program(Fails)) as at, at.client() as client:
        frames = parse((await client.post("/Fails/stream", json={"kind": kind})).content)
        alive = await client.get("/healthz")

    assert sequences(frames) == list(range(len(frames)))
    assert frames[-1].event == "execution_error"
    assert frames[-1].data["data"]["error"]["type"] == _ERRORS[kind].__name__
    assert alive.status_code == 200


@pytest.mark.parametrize("kind", [*_KINDS, "caught"])
@pytest.mark.parametrize("debug", [False, True])
async def test_what_a_program_says_when_it_fails_is_told_to_nobody_but_a_debugger(
    kind: str, debug: bool
) -> None:
    async with serving(program(Fails), debug=debug) as at, at.client() as client:
        answer = await client.post("/Fails", json={"kind": kind})
        streamed = await client.post("/Fails/stream", json={"kind": kind})
        run_id = streamed.headers["run-id"]
        detail = await client.get(f"/runs/{run_id}")
        again = await client.get(f"/runs/{run_id}/events")
        listed = await client.get("/runs")

    everything = "".join(each.text for each in (answer, streamed, detail, again, listed))
    assert (SECRET in everything) == debug
    assert answer.status_code == (200 if kind == "caught" else answer.status_code)
    if kind != "caught":
        assert answer.status_code >= 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["run"]
        ended = "cancelled" if kind == "KeyboardInterrupt" else "error"  # as the log says it on any server
        assert detail.json()["status"] == listed.json()["runs"][0]["status"] == ended
        assert detail.json()["error"]["type"] == _ERRORS[kind].__name__


@pytest.mark.parametrize("kind", _KINDS)
async def test_an_async_program_may_raise_anything_too(kind: str) -> None:
    class AsyncFails(dspy.Module):
        async def aforward(self, kind: str) -> dspy.Prediction:
            raise _ERRORS[kind](SECRET)

    async with serving(program(AsyncFails)) as at, at.client() as client:
        answer = await client.post("/AsyncFails", json={"kind": kind})
        frames = parse((await client.post("/AsyncFails/stream", json={"kind": kind})).content)

    assert answer.status_code >= 400
    assert SECRET not in answer.text
    assert frames[-1].event == "execution_error"


async def test_a_model_that_fails_ends_the_stream_with_its_error() -> None:
    async with serving(qa(RuntimeError(SECRET))) as at, at.client() as client:
        response = await client.post("/QA/stream", json=QUESTION)

    frames = parse(response.content)
    assert frames[-1].event == "execution_error"
    assert {"lm_error", "module_error"} <= {frame.event for frame in frames}
    assert SECRET not in response.text


# --- resuming -----------------------------------------------------------------------------------------------


async def test_after_every_cut_the_rest_follows() -> None:
    async with serving(qa()) as at, at.client() as client:
        response = await client.post("/QA/stream", json=QUESTION)
        run_id, frames = response.headers["run-id"], parse(response.content)

        for cut in range(-1, len(frames)):
            assert keys(await resumed(client, run_id, cut)) == keys(frames[cut + 1 :]), cut
            asked = await client.get(f"/runs/{run_id}/events?after={cut}")
            assert keys(parse(asked.content)) == keys(frames[cut + 1 :]), cut


async def test_after_every_cut_the_rest_follows_from_another_server(events: str) -> None:
    async with (
        serving(qa(), events=events) as one,
        serving(qa(), events=events) as other,
        one.client() as here,
        other.client() as there,
    ):
        response = await here.post("/QA/stream", json=QUESTION)
        run_id, frames = response.headers["run-id"], parse(response.content)

        for cut in range(-1, len(frames)):
            assert keys(await resumed(there, run_id, cut)) == keys(frames[cut + 1 :]), cut


async def test_after_every_cut_the_rest_of_a_failed_run_follows_from_another_server(events: str) -> None:
    async with (
        serving(program(Fails), events=events) as one,
        serving(qa(), events=events) as other,
        one.client() as here,
        other.client() as there,
    ):
        response = await here.post("/Fails/stream", json={"kind": "nested"})
        run_id, frames = response.headers["run-id"], parse(response.content)

        for cut in range(-1, len(frames)):
            assert keys(await resumed(there, run_id, cut)) == keys(frames[cut + 1 :]), cut


async def test_a_run_that_goes_on_is_resumed_at_every_event() -> None:
    served = qa(chat(reasoning="Hm.", answer="word " * 10), size=4, seconds_a_chunk=0.01)
    async with serving(served) as at, at.client() as client:
        run_id, seen = await begun(client), list[Frame]()
        while not seen or seen[-1].event != "prediction":
            after = {"Last_Event_ID": str(seen[-1].id)} if seen else {}
            async with watching(client, "GET", f"/runs/{run_id}/events", **after) as frames:
                seen.append(await anext(frames))
        whole = await resumed(client, run_id, -1)
        last = await client.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": str(seen[-1].id)})

    assert keys(seen) == keys(whole)
    assert sequences(seen) == list(range(len(seen)))
    assert last.status_code == 204


async def test_a_run_that_goes_on_is_watched_and_resumed_elsewhere(events: str) -> None:
    served = qa(chat(reasoning="Hm.", answer="word " * 20), size=4, seconds_a_chunk=0.03)
    async with (
        serving(served, events=events) as one,
        serving(qa(), events=events) as other,
        one.client() as here,
        other.client() as there,
    ):
        run_id = await begun(here)
        async with watching(there, "GET", f"/runs/{run_id}/events") as frames:
            first = [await anext(frames) for _ in range(8)]
        rest = await resumed(there, run_id, first[-1].id)
        whole = await resumed(here, run_id, -1)

    assert keys([*first, *rest]) == keys(whole)
    assert whole[-1].event == "prediction"


async def test_viewers_of_another_servers_run_who_begin_at_different_events_all_get_the_end(
    events: str,
) -> None:
    served = qa(chat(reasoning="Hm.", answer="word " * 20), size=4, seconds_a_chunk=0.03)
    async with (
        serving(served, events=events) as one,
        serving(qa(), events=events) as other,
        one.client() as here,
        other.client() as there,
    ):
        run_id = await begun(here)
        cuts = (10, -1, 3, 10**14, 20)
        seen = await asyncio.gather(*(resumed(there, run_id, cut) for cut in cuts))
        whole = await resumed(here, run_id, -1)

    assert [keys(frames) for frames in seen if frames] == [
        keys(whole[cut + 1 :]) for cut in cuts if cut < 1000
    ]


@pytest.mark.parametrize("given", ["", "x", "-5", "1.5", "9" * 40, "٣", "1e3", "null"])
async def test_a_last_event_id_that_is_none_of_ours_is_the_beginning(given: str) -> None:
    async with serving(qa()) as at, at.client() as client:
        run_id = (await client.post("/QA", json=QUESTION)).headers["run-id"]
        again = await client.get(f"/runs/{run_id}/events", headers={"Last-Event-ID": given.encode()})

    assert parse(again.content)[0].event == "execution_start"


@pytest.mark.parametrize("after", ["-2", "x", "1e3", "9" * 40, "1.5", "", "0x1"])
async def test_an_after_that_is_no_sequence_is_refused(after: str) -> None:
    async with serving(qa()) as at, at.client() as client:
        run_id = (await client.post("/QA", json=QUESTION)).headers["run-id"]
        answer = await client.get(f"/runs/{run_id}/events", params={"after": after})

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_who_has_seen_more_than_there_is_is_told_that_it_is_over(events: str) -> None:
    async with (
        serving(qa(), events=events) as one,
        serving(qa(), events=events) as other,
        one.client() as here,
        other.client() as there,
    ):
        run_id = (await here.post("/QA", json=QUESTION)).headers["run-id"]
        answers = [await client.get(f"/runs/{run_id}/events?after={10**15}") for client in (here, there)]

    assert [answer.status_code for answer in answers] == [204, 204]


@pytest.mark.parametrize("events_of", ["memory", "shared"])
async def test_a_run_that_nobody_knows_is_not_found(events_of: str, tmp_path: Any) -> None:
    url = "memory:" if events_of == "memory" else f"sqlite:///{tmp_path}/e.db"
    async with serving(qa(), events=url) as at, at.client() as client:
        answers = [
            await client.request(method, f"/runs/nobody{path}")
            for method, path in (("GET", "/events"), ("GET", ""), ("POST", "/cancel"))
        ]

    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert "nobody" in answers[0].json()["detail"]


# --- many viewers -------------------------------------------------------------------------------------------


async def test_fifty_viewers_see_the_same_bytes() -> None:
    served = qa(chat(reasoning="Hm.", answer="word " * 20), size=4, seconds_a_chunk=0.02)
    async with serving(served) as at, at.client() as client:
        run_id = await begun(client)
        seen = await asyncio.gather(*(resumed(client, run_id, -1) for _ in range(50)))

    assert all(keys(frames) == keys(seen[0]) for frames in seen)
    assert seen[0][-1].event == "prediction"


async def test_a_viewer_behind_the_window_is_served_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_FRAMES", 16)
    async with serving(program(Burst)) as at, at.client() as client:
        response = await client.post("/Burst/stream", json={"count": 2000})
        run_id = response.headers["run-id"]
        again = await resumed(client, run_id, -1)
        middle = await resumed(client, run_id, 1000)
        kept = at.runs.get(run_id)

    frames = parse(response.content)
    assert sequences(frames) == list(range(2005))
    assert keys(again) == keys(frames)
    assert keys(middle) == keys(frames[1001:])
    assert kept is not None
    assert kept.callback.floor > 500


@pytest.mark.parametrize("window", [16, 200])
async def test_a_viewer_elsewhere_behind_the_window_loses_nothing(
    events: str, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "WINDOW_FRAMES", window)
    async with (
        serving(program(Burst), events=events) as one,
        serving(qa(), events=events) as other,
        one.client() as here,
        other.client() as there,
    ):
        response = await here.post("/Burst/stream", json={"count": 2000})
        run_id, frames = response.headers["run-id"], parse(response.content)
        seen = await asyncio.gather(*(resumed(there, run_id, cut) for cut in (-1, 500, 1999, 2003)))

    assert [keys(each) for each in seen] == [keys(frames[cut + 1 :]) for cut in (-1, 500, 1999, 2003)]


async def test_a_viewer_who_does_not_read_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "WINDOW_BYTES", 100_000)
    async with serving(program(Burst)) as at, at.client() as client:
        _, stalled = await _stalled(at.url, "/Burst/stream", b'{"count": 20000}')
        frames = parse((await client.post("/Burst/stream", json={"count": 3000})).content)

        async def ask() -> Any:
            return (await client.get("/runs")).json()["runs"]

        runs = await until(ask, lambda runs: all(run["status"] == "ok" for run in runs))
        held = [run.callback for run in at.runs._recent.values()]  # pyright: ignore[reportPrivateUsage]
        stalled.close()

    assert len(runs) == 2
    assert sequences(frames) == list(range(3005))
    assert all(callback._bytes <= 250_000 for callback in held)  # pyright: ignore[reportPrivateUsage]


async def _stalled(url: str, path: str, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a stream and do not read from it."""
    port = int(url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    writer.transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]
    return reader, writer


async def test_a_viewer_who_pauses_gets_everything_once() -> None:
    async with serving(program(Burst)) as at:
        reader, writer = await _stalled(at.url, "/Burst/stream", b'{"count": 20000}')

        async def stored() -> bool:
            return not at.runs.live

        await until(stored, bool)
        writer.transport.resume_reading()  # pyright: ignore[reportAttributeAccessIssue]
        head = await reader.readuntil(b"\r\n\r\n")
        body = b"".join([chunk async for chunk in _dechunked(reader)])
        writer.close()

    assert b"200 OK" in head
    assert sequences(parse(body)) == list(range(20005))


async def _dechunked(reader: asyncio.StreamReader) -> AsyncGenerator[bytes]:
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        await reader.readline()


async def test_who_left_before_the_first_byte_costs_nothing() -> None:
    async with serving(endless(), timeout_seconds=20.0) as at, at.client() as client:
        run_id = await begun(client)
        for _ in range(20):
            writer = await _asked(at.url, f"/runs/{run_id}/events?after=0")
            writer.transport.abort()
        run = at.runs.get(run_id)
        assert run is not None

        async def viewers() -> int:
            return run.callback.viewers

        await until(viewers, lambda count: count == 0, seconds=10)
        await client.post(f"/runs/{run_id}/cancel", json={})


async def _asked(url: str, path: str) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    await writer.drain()
    return writer


async def test_an_idle_stream_is_kept_alive() -> None:
    async with serving(qa(size=30, seconds_a_chunk=0.2), heartbeat_seconds=0.03) as at, at.client() as client:
        response = await client.post("/QA/stream", json=QUESTION)

    assert response.content.count(b": keep-alive\n\n") > 3
    assert parse(response.content)[-1].event == "prediction"


# --- the document's own parts -------------------------------------------------------------------------------


class Calls(streaming.StreamingCallback):
    """What `documents/dspy-cli-streaming.md` says one may do: a callback with methods of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def on_module_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self.seen.append(f"start {type(instance).__name__}")

    def on_lm_end(
        self, call_id: str, outputs: dict[str, Any] | None, exception: Exception | None = None
    ) -> None:
        self.seen.append("lm end")


async def test_methods_that_a_subclass_adds_fire_once_a_call() -> None:
    callback, served = Calls(), qa()
    assert served.lm is not None

    with dspy.context(lm=served.lm), callback.attached():
        prediction = served.module(question="?")
        assert dspy.settings.callbacks.count(callback) == 1
    callback.returned(served.outputs(prediction))
    async with asyncio.timeout(10):
        body = b"".join([chunk async for chunk in streaming.event_stream_generator(callback)])

    assert callback.seen == ["start QA", "start ChainOfThought", "start Predict", "lm end"]
    assert callback not in dspy.settings.callbacks
    assert callback not in served.lm.callbacks
    frames = parse(body)
    assert frames[-1].data == {"outputs": {"reasoning": "Multiply.", "answer": ANSWER}}
    assert text_of(frames, "answer") == ANSWER


async def test_a_callback_captures_its_own_run_only() -> None:
    one, other, served = streaming.StreamingCallback(), streaming.StreamingCallback(), qa()

    async def run(callback: streaming.StreamingCallback) -> list[Frame]:
        with dspy.context(lm=served.lm), callback.attached():
            prediction = await asyncio.to_thread(served.module, question="?")
        callback.returned(served.outputs(prediction))
        chunks = [chunk async for chunk in streaming.event_stream_generator(callback)]
        return parse(b"".join(chunks))

    async with asyncio.timeout(10):
        seen = await asyncio.gather(run(one), run(other))

    assert one.run_id != other.run_id
    for callback, frames in zip((one, other), seen, strict=True):
        assert {frame.data["execution_id"] for frame in frames[:-1]} == {callback.run_id}


async def test_a_callback_in_use_elsewhere_is_served_by_the_app_without_duplicates() -> None:
    class Counts(dspy.utils.BaseCallback):
        def __init__(self) -> None:
            self.calls = 0

        def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            self.calls += 1

    counts, model = Counts(), lm(chat(reasoning="r", answer="a"))
    model.callbacks.append(counts)
    async with (
        serving(program(dspy.ChainOfThought("question -> answer"), name="QA", lm=model)) as at,
        at.client() as client,
    ):
        frames = await stream(client)

    assert counts.calls == 1
    assert sum(frame.event == "lm_start" for frame in frames) == 1


async def test_who_has_seen_everything_is_given_frames_past_the_generator() -> None:
    callback, tap, given = streaming.StreamingCallback("r"), streaming.Tap(), list[tuple[bytes, int]]()
    takes_time = asyncio.Event()

    async def give(frames: bytes, count: int) -> None:
        given.append((frames, count))
        if len(given) == 2:
            await takes_time.wait()

    tap.open(give)
    generator = streaming.event_stream_generator(callback, tap=tap)
    first = asyncio.ensure_future(anext(generator))
    await asyncio.sleep(0)
    for number in range(4):
        callback.add([_step(number)], [b"%d" % number])
    takes_time.set()  # until now the second one was being sent
    async with asyncio.timeout(10):
        yielded = await first
        rest = asyncio.ensure_future(anext(generator, None))
        await asyncio.sleep(0)
        callback.add([_step(4)], [b"4"])
        callback.end()
        assert await rest is None

    assert (given, yielded) == ([(b"0", 1), (b"1", 1), (b"4", 1)], b"23")


def _step(sequence: int) -> streamll.Event:
    return streamll.Event(
        event_id=f"r-{sequence}",
        execution_id="r",
        sequence=sequence,
        timestamp=datetime.now(UTC),
        event_type="step",
    )


async def test_a_tap_that_breaks_ends_its_stream() -> None:
    callback, tap = streaming.StreamingCallback("r"), streaming.Tap()

    async def give(frames: bytes, count: int) -> None:
        raise OSError("gone")

    tap.open(give)
    rest = asyncio.ensure_future(anext(streaming.event_stream_generator(callback, tap=tap)))
    await asyncio.sleep(0)
    callback.add([_step(0)], [b"0"])
    with pytest.raises(OSError, match="gone"):
        await asyncio.wait_for(rest, 10)
    assert callback.viewers == 0


async def test_frames_can_be_filtered_by_what_is_shown() -> None:
    callback, served = streaming.StreamingCallback(show=_without_prompts), qa()

    with dspy.context(lm=served.lm), callback.attached():
        callback.returned(served.outputs(served.module(question="sensitive")))
    async with asyncio.timeout(10):
        body = b"".join([chunk async for chunk in streaming.event_stream_generator(callback)])

    assert b"sensitive" not in body
    assert parse(body)[-1].event == "prediction"


def _without_prompts(event: streamll.Event) -> streamll.Event:
    return streamll.with_data(event, {})


async def test_a_mounted_app_streams_without_its_lifespan() -> None:
    from fastapi import FastAPI

    host = FastAPI()
    host.mount("/ai", create_app([qa()]))
    async with serve(host) as at, at.client() as client:
        frames = await stream(client, "ai/QA")
        answer = await client.post("/ai/QA", json=QUESTION)
        found = await client.get(answer.headers["location"])

    assert frames[-1].event == "prediction"
    assert found.json()["status"] == "ok"


async def test_no_request_leaves_a_task_behind() -> None:
    async with serving(qa()) as at, at.client() as client:
        await stream(client)
        await client.post("/QA", json=QUESTION)
        loop = at.app.state.runs.live

    assert loop == {}


async def test_streams_are_not_compressed_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(qa()) as at, httpx.AsyncClient(base_url=at.url) as client:
        response = await client.post("/QA/stream", json=QUESTION, headers={"Accept-Encoding": "gzip"})

    assert "content-encoding" not in response.headers
