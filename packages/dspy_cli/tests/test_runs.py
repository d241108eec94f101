"""Runs: they outlive who asked, stop when told, keep to their room, and start once for a key."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dspy
import httpx
import pytest
import streamll
from dspy_cli.project.programs import Program, program
from dspy_cli.server.problems import Problem
from dspy_cli.server.runs import _plain
from scripted import chat, lm
from serving import (
    ANSWER,
    AsyncQA,
    begun,
    chunks,
    ended,
    endless,
    parse,
    qa,
    resumed,
    serving,
    stream,
    text_of,
    until,
    watching,
)
from streamll.errors import Unreachable

QUESTION = {"question": "6 * 7?"}


class Gate(dspy.Module):
    """Waits until it is let go, and knows what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.called: list[str] = []

    def forward(self, question: str) -> dspy.Prediction:
        self.called.append(question)
        self.open.wait(30)
        streamll.emit("let go")
        return dspy.Prediction(answer=question)


class AsyncGate(dspy.Module):
    """Waits on the loop, for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []

    async def aforward(self, question: str) -> dspy.Prediction:
        self.called.append(question)
        await asyncio.Event().wait()
        return dspy.Prediction(answer=question)


async def quiet(served: Program) -> bool:
    """Return whether the model has stopped talking."""
    before = chunks(served)
    await asyncio.sleep(0.3)
    return chunks(served) == before


async def one_run(client: httpx.AsyncClient) -> Any:
    """Return the only run there is, once there is one."""

    async def ask() -> Any:
        return (await client.get("/runs")).json()["runs"]

    return (await until(ask, bool))[0]


async def metric(client: httpx.AsyncClient, name: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"dspy_cli_{name}{{"))


# --- who leaves, and who stops a run ------------------------------------------------------------------------


async def test_a_run_goes_on_when_its_client_leaves() -> None:
    async with serving(qa(seconds_a_chunk=0.02)) as at, at.client() as client:
        async with watching(client, "POST", "/QA/stream", **QUESTION) as frames:
            run_id = (await anext(frames)).data["execution_id"]
        run = await ended(client, run_id)

    assert run["status"] == "ok"
    assert run["outputs"] == {"reasoning": "Multiply.", "answer": ANSWER}


async def test_a_run_goes_on_when_its_client_leaves_without_an_answer() -> None:
    async with serving(qa(seconds_a_chunk=0.02)) as at, at.client() as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/QA", json=QUESTION, timeout=0.2)
        run = await ended(client, (await one_run(client))["id"])

    assert run["status"] == "ok"


@pytest.mark.parametrize("path", ["/QA", "/QA/stream"])
@pytest.mark.parametrize(
    ("query", "headers"), [("?on_disconnect=cancel", {}), ("", {"On-Disconnect": "cancel"})]
)
async def test_a_client_that_leaves_may_stop_its_run(path: str, query: str, headers: dict[str, str]) -> None:
    served = endless()
    async with serving(served) as at, at.client() as client:
        asking = asyncio.create_task(client.post(path + query, json=QUESTION, headers=headers))
        await one_run(client)
        await until(partial(asyncio.to_thread, chunks, served), lambda count: count > 3)
        asking.cancel()
        run = await ended(client, (await one_run(client))["id"], seconds=5)
        stopped = await quiet(served)

    assert run["status"] == "cancelled"
    assert stopped


async def test_what_leaving_does_must_be_one_of_two() -> None:
    async with serving(qa()) as at, at.client() as client:
        answer = await client.post("/QA?on_disconnect=explode", json=QUESTION)

    assert answer.status_code == 422


@pytest.mark.parametrize("module", [None, AsyncQA])
async def test_a_run_is_stopped_at_its_next_token(module: type[dspy.Module] | None) -> None:
    served = endless(name="QA", **({"module": module} if module else {}))
    async with serving(served) as at, at.client() as client:
        asking = asyncio.create_task(client.post("/QA", json=QUESTION))
        run_id = (await one_run(client))["id"]
        async with watching(client, "GET", f"/runs/{run_id}/events") as frames:
            async for frame in frames:
                if frame.event == "token":
                    break
            began = time.monotonic()
            told = await client.post(f"/runs/{run_id}/cancel", json={})
            took = time.monotonic() - began
            *_, last = [frame async for frame in frames]
        answer, run, stopped = await asking, await ended(client, run_id, seconds=5), await quiet(served)

    assert (told.status_code, told.json()) == (202, {"id": run_id, "status": "cancelling"})
    assert took < 2
    assert (answer.status_code, answer.json()["code"]) == (409, "cancelled")
    assert (last.event, last.data["data"]["error"]["code"]) == ("execution_error", "cancelled")
    assert (run["status"], run["error"]["code"]) == ("cancelled", "cancelled")
    assert stopped


class Tools(dspy.Module):
    """Calls a tool over and over."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, question: str) -> dspy.Prediction:
        def look() -> int:
            time.sleep(0.02)
            self.calls += 1
            return self.calls

        tool = dspy.Tool(look)
        for _ in range(2000):
            tool()
        return dspy.Prediction(answer="never")


class Asks(dspy.Module):
    """Calls a model over and over, and catches every exception."""

    def __init__(self) -> None:
        super().__init__()
        self.predict = dspy.Predict("question -> answer")
        self.calls = 0

    def forward(self, question: str) -> dspy.Prediction:
        for _ in range(2000):
            self.calls += 1
            try:
                self.predict(question=question)
            except Exception:  # noqa: BLE001 - what a careless program does
                continue
        return dspy.Prediction(answer="never")


@pytest.mark.parametrize("kind", [Tools, Asks])
async def test_a_run_is_stopped_at_its_next_call(kind: type[Tools | Asks]) -> None:
    served = program(kind, lm=lm(chat(answer="a"), seconds_a_chunk=0.005))
    async with serving(served) as at, at.client() as client:
        run_id = await begun(client, kind.__name__)

        async def calls() -> int:
            return getattr(served.module, "calls")  # noqa: B009 - of either kind

        await until(calls, lambda count: count > 2)
        await client.post(f"/runs/{run_id}/cancel", json={})
        run = await ended(client, run_id, seconds=5)
        before = await calls()
        await asyncio.sleep(0.2)
        after = await calls()

    assert run["status"] == "cancelled"
    assert before == after


async def test_an_async_program_is_stopped_at_once() -> None:
    async with serving(program(AsyncGate)) as at, at.client() as client:
        run_id = await begun(client, "AsyncGate")
        await client.post(f"/runs/{run_id}/cancel", json={})
        run = await ended(client, run_id, seconds=5)
        frames = await resumed(client, run_id, -1)

    assert run["status"] == "cancelled"
    assert [frame.event for frame in frames] == [
        "execution_start",
        "module_start",
        "module_error",
        "execution_error",
    ]


async def test_a_run_stopped_in_the_queue_never_starts_and_has_a_log(events: str) -> None:
    gate = Gate()
    async with serving(program(gate), events=events, concurrency=1) as at, at.client() as client:
        first = await begun(client, "Gate", question="first")
        second = await begun(client, "Gate", question="second")
        waiting = (await client.get(f"/runs/{second}")).json()
        await client.post(f"/runs/{second}/cancel", json={})
        run = await ended(client, second, seconds=5)
        frames = await resumed(client, second, -1)
        gate.open.set()
        await ended(client, first)
        listed = (await client.get("/runs?status=cancelled")).json()["runs"]
        in_flight, queued = await metric(client, "runs_in_flight"), await metric(client, "runs_queued")
    async with serving(program(gate), events=events) as at, at.client() as client:
        later = (await client.get(f"/runs/{second}")).json()

    assert gate.called == ["first"]
    assert waiting["status"] == "queued"
    assert run["status"] == later["status"] == "cancelled"
    assert [frame.event for frame in frames] == ["execution_start", "execution_error"]
    assert frames[-1].data["data"]["error"]["code"] == "cancelled"
    assert [each["id"] for each in listed] == [second]
    assert (in_flight, queued) == (0, 0)


async def test_stopping_a_run_that_is_over_changes_nothing() -> None:
    async with serving(qa()) as at, at.client() as client:
        run_id = (await client.post("/QA", json=QUESTION)).headers["run-id"]
        told = await client.post(f"/runs/{run_id}/cancel", json={})
        run = (await client.get(f"/runs/{run_id}")).json()

    assert (told.status_code, told.json()["status"], run["status"]) == (202, "ok", "ok")


async def test_a_cancel_that_races_with_the_end_leaves_one_truth() -> None:
    async with serving(qa(size=100, seconds_a_chunk=0.001)) as at, at.client() as client:

        async def race(delay: float) -> tuple[int, str, Sequence[str]]:
            asking = asyncio.create_task(client.post("/QA/stream", json=QUESTION))
            await asyncio.sleep(delay)
            for run in (await client.get("/runs?limit=5")).json()["runs"]:
                await client.post(f"/runs/{run['id']}/cancel", json={})
            response = await asking
            run = await ended(client, response.headers["run-id"])
            frames = parse(response.content)
            return frames[-1].id - len(frames), run["status"], [frame.event for frame in frames]

        seen = [await race(number * 0.002) for number in range(15)]
        busy = await metric(client, "runs_in_flight")

    assert {off for off, _, _ in seen} == {-1}
    for _, status, names in seen:
        assert names[-1] == {"ok": "prediction", "cancelled": "execution_error"}[status]
    assert busy == 0


# --- time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [None, AsyncQA])
async def test_a_run_that_takes_too_long_is_stopped(module: type[dspy.Module] | None) -> None:
    served = endless(name="QA", **({"module": module} if module else {}))
    async with serving(served, timeout_seconds=0.4) as at, at.client() as client:
        answer = await client.post("/QA", json=QUESTION)
        run = await ended(client, answer.headers.get("run-id") or answer.json()["run"], seconds=5)
        stopped = await quiet(served)
        frames = await resumed(client, run["id"], -1)

    assert (answer.status_code, answer.json()["code"]) == (504, "timeout")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (run["status"], run["error"]["code"]) == ("timeout", "timeout")
    assert frames[-1].data["data"]["error"]["code"] == "timeout"
    assert stopped


async def test_a_program_that_does_not_listen_is_answered_for_in_time() -> None:
    gate = Gate()
    async with serving(program(gate), timeout_seconds=0.3) as at, at.client() as client:
        began = time.monotonic()
        answer = await client.post("/Gate", json=QUESTION)
        took = time.monotonic() - began
        gate.open.set()

    assert answer.status_code == 504
    assert took < 5


async def test_waiting_in_the_queue_is_not_counted_as_running() -> None:
    gate = Gate()
    async with serving(program(gate), concurrency=1, timeout_seconds=1.5) as at, at.client() as client:
        first, second = await begun(client, "Gate"), await begun(client, "Gate")
        await asyncio.sleep(1.0)
        gate.open.set()
        runs = [await ended(client, run_id) for run_id in (first, second)]

    assert [run["status"] for run in runs] == ["ok", "ok"]


# --- room ---------------------------------------------------------------------------------------------------


async def test_who_finds_no_room_is_told_when_to_come_again_and_then_finds_some() -> None:
    gate = Gate()
    async with serving(program(gate), qa(), concurrency=2, queue=1) as at, at.client() as client:
        answers = await asyncio.gather(
            *(
                client.post("/Gate", json={"question": str(n)}, headers={"Prefer": "respond-async"})
                for n in range(12)
            )
        )
        other = await client.post("/QA", json=QUESTION)
        gate.open.set()
        for answer in answers:
            if answer.status_code == 202:
                await ended(client, answer.json()["id"])
        again = await client.post("/Gate", json=QUESTION)

    assert Counter(answer.status_code for answer in answers) == {202: 3, 429: 9}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["status"] == 429
    assert len(gate.called) == 4
    assert (other.status_code, again.status_code) == (200, 200)


async def test_every_way_a_run_ends_frees_its_room() -> None:
    class Ends(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            if question == "raise":
                raise SystemExit("x")
            while question in ("cancel", "timeout"):
                time.sleep(0.01)
                streamll.emit("going")
                dspy.Tool(lambda: 1, name="tick")()
            return dspy.Prediction(answer=question)

    async with (
        serving(program(Ends), concurrency=1, queue=0, timeout_seconds=1.0) as at,
        at.client() as client,
    ):
        for question in ("raise", "cancel", "timeout", "fine") * 2:
            run_id = await begun(client, "Ends", question=question)
            if question == "cancel":
                await client.post(f"/runs/{run_id}/cancel", json={})
            run = await ended(client, run_id)
            expected = {"raise": "error", "cancel": "cancelled", "timeout": "timeout", "fine": "ok"}
            assert run["status"] == expected[question]

            async def gone() -> bool:
                return not at.runs.live

            await until(gone, bool)
        busy, queued = await metric(client, "runs_in_flight"), await metric(client, "runs_queued")

    assert (busy, queued) == (0, 0)


# --- keys ---------------------------------------------------------------------------------------------------


async def test_a_key_starts_a_run_once() -> None:
    gate = Gate()
    gate.open.set()
    key = {"Idempotency-Key": "order-1"}
    async with serving(program(gate), qa()) as at, at.client() as client:
        answers = [await client.post("/Gate", json=QUESTION, headers=key) for _ in range(3)]
        streamed = await client.post("/Gate/stream", json=QUESTION, headers=key)
        other_inputs = await client.post("/Gate", json={"question": "other"}, headers=key)
        other_program = await client.post("/QA", json=QUESTION, headers=key)
        no_key = await client.post("/Gate", json=QUESTION)

    assert len({answer.headers["run-id"] for answer in [*answers, streamed]}) == 1
    assert all(answer.json() == {"answer": "6 * 7?"} for answer in answers)
    assert parse(streamed.content)[-1].event == "prediction"
    assert other_inputs.status_code == 422
    assert other_program.status_code == 200
    assert no_key.headers["run-id"] != answers[0].headers["run-id"]
    assert len(gate.called) == 2


async def test_a_key_starts_a_run_once_for_twenty_who_ask_at_the_same_time() -> None:
    gate = Gate()
    async with serving(program(gate)) as at, at.client() as client:
        asking = [
            asyncio.create_task(client.post("/Gate", json=QUESTION, headers={"Idempotency-Key": "k"}))
            for _ in range(20)
        ]
        await one_run(client)
        gate.open.set()
        answers = await asyncio.gather(*asking)

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["run-id"] for answer in answers}) == 1
    assert len(gate.called) == 1


async def test_a_key_starts_a_run_once_on_two_servers(events: str) -> None:
    gate = Gate()
    async with (
        serving(program(gate), events=events) as one,
        serving(program(gate), events=events) as other,
        one.client() as here,
        other.client() as there,
    ):
        asking = [
            asyncio.create_task(client.post("/Gate", json=QUESTION, headers={"Idempotency-Key": "k"}))
            for client in (here, there) * 5
        ]
        await one_run(here)
        gate.open.set()
        answers = await asyncio.gather(*asking)
        again = await there.post("/Gate", json=QUESTION, headers={"Idempotency-Key": "k"})
        wrong = await there.post("/Gate", json={"question": "x"}, headers={"Idempotency-Key": "k"})

    assert {answer.status_code for answer in [*answers, again]} == {200}, [a.text for a in answers]
    assert len({answer.headers["run-id"] for answer in [*answers, again]}) == 1
    assert {answer.text for answer in [*answers, again]} == {'{"answer":"6 * 7?"}'}
    assert wrong.status_code == 422
    assert len(gate.called) == 1


async def test_a_key_of_a_run_that_failed_tells_the_same_failure_elsewhere(events: str) -> None:
    class Fails(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            raise ValueError("secret words")

    async with (
        serving(program(Fails), events=events) as one,
        serving(program(Fails), events=events) as other,
        one.client() as here,
        other.client() as there,
    ):
        answers = [
            await client.post("/Fails", json=QUESTION, headers={"Idempotency-Key": "k"})
            for client in (here, there)
        ]

    assert [answer.status_code for answer in answers] == [500, 500]
    assert answers[0].json() == answers[1].json()
    assert "secret" not in answers[1].text


async def test_a_key_that_found_no_room_can_be_used_again() -> None:
    gate = Gate()
    async with serving(program(gate), concurrency=1, queue=0) as at, at.client() as client:
        first = await begun(client, "Gate")
        refused = await client.post("/Gate", json=QUESTION, headers={"Idempotency-Key": "k"})
        gate.open.set()
        await ended(client, first)
        again = await client.post("/Gate", json=QUESTION, headers={"Idempotency-Key": "k"})

    assert (refused.status_code, again.status_code) == (429, 200)


async def test_a_key_may_hold_any_text() -> None:
    async with serving(qa()) as at, at.client() as client:
        for key in (b"\xff\xfe", b"a b", b"'; DROP TABLE runs;--", b"../../x", b"k" * 255):
            answer = await client.post("/QA", json=QUESTION, headers={"Idempotency-Key": key})
            assert answer.status_code == 200, key
        too_long = await client.post("/QA", json=QUESTION, headers={"Idempotency-Key": b"k" * 256})

    assert too_long.status_code == 422


async def test_who_does_not_want_to_wait_is_told_where_to_look() -> None:
    gate = Gate()
    async with serving(program(gate)) as at, at.client() as client:
        answer = await client.post("/Gate", json=QUESTION, headers={"Prefer": "respond-async, wait=1"})
        going = (await client.get(answer.headers["location"])).json()
        gate.open.set()
        run = await ended(client, answer.json()["id"])

    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    assert answer.json()["program"] == "Gate"
    assert going["status"] == "running"
    assert (run["status"], run["outputs"]) == ("ok", {"answer": "6 * 7?"})


# --- programs -----------------------------------------------------------------------------------------------


class Where(dspy.Module):
    """Tells where it runs and on which model."""

    def forward(self, seconds: float = 0.0) -> dspy.Prediction:
        time.sleep(seconds)
        return dspy.Prediction(thread=threading.current_thread().name, model=dspy.settings.lm.model)


class AsyncWhere(dspy.Module):
    """The same on the loop."""

    async def aforward(self) -> dspy.Prediction:
        return dspy.Prediction(thread=threading.current_thread().name, model=dspy.settings.lm.model)


async def test_a_sync_program_runs_beside_the_loop_on_its_own_model() -> None:
    served = program(Where, lm=lm("", model="scripted/one"))
    async with serving(served) as at, at.client() as client:
        asking = asyncio.create_task(client.post("/Where", json={"seconds": 2.0}))
        await one_run(client)
        for _ in range(5):
            assert (await client.get("/healthz")).status_code == 200
        meanwhile = not asking.done()
        answer = (await asking).json()

    assert meanwhile
    assert answer["thread"] != "uvicorn"
    assert answer["model"] == "scripted/one"


async def test_an_async_program_runs_on_the_loop_on_its_own_model() -> None:
    served = program(AsyncWhere, lm=lm("", model="scripted/two"))
    async with serving(served) as at, at.client() as client:
        answer = (await client.post("/AsyncWhere", json={})).json()

    assert answer == {"thread": "uvicorn", "model": "scripted/two"}


@pytest.mark.parametrize("module", [None, AsyncQA])
async def test_runs_at_the_same_time_never_mix(module: type[dspy.Module] | None) -> None:
    def echo(prompt: str) -> str:
        number = prompt.rpartition("number=")[2].split()[0]
        return chat(reasoning=f"r{number} " * 8, answer=f"a{number} " * 8)

    served = qa(echo, name="QA", size=3, seconds_a_chunk=0.002, **({"module": module} if module else {}))
    async with serving(served, concurrency=32) as at, at.client() as client:
        seen = await asyncio.gather(*(stream(client, question=f"number={n} ?") for n in range(32)))

    for number, frames in enumerate(seen):
        outputs = frames[-1].data["outputs"]
        assert [frame.id for frame in frames] == list(range(len(frames)))
        assert len({frame.data["execution_id"] for frame in frames[:-1]}) == 1
        assert set(outputs["reasoning"].split()) == {f"r{number}"}
        assert set(outputs["answer"].split()) == {f"a{number}"}
        assert text_of(frames, "answer").strip() == outputs["answer"].strip()


class Fans(dspy.Module):
    """Asks several times at once."""

    def __init__(self) -> None:
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        parallel = dspy.Parallel(num_threads=4, disable_progress_bar=True)
        pairs = [
            (self.predict, dspy.Example(question=f"{question} {n}").with_inputs("question")) for n in range(4)
        ]
        results = parallel(pairs)
        return dspy.Prediction(answers=[result.answer for result in results])


async def test_a_program_may_call_itself_in_parallel() -> None:
    served = program(Fans, lm=lm(chat(answer="yes"), seconds_a_chunk=0.005))
    async with serving(served) as at, at.client() as client:
        frames = await stream(client, "Fans")

    starts = {frame.data["call_id"]: frame.data for frame in frames[:-1] if frame.event == "lm_start"}
    modules = [frame.data for frame in frames[:-1] if frame.event == "module_start"]
    root = modules[0]["call_id"]
    assert frames[-1].data == {"outputs": {"answers": ["yes"] * 4}}
    assert len(starts) == 4
    assert [module["parent_call_id"] for module in modules[1:]] == [root] * 4
    assert {start["parent_call_id"] for start in starts.values()} == {m["call_id"] for m in modules[1:]}


# --- looking up ---------------------------------------------------------------------------------------------


async def test_a_run_can_be_looked_up_as_soon_as_it_is_answered(events: str) -> None:
    async with serving(qa(), events=events) as at, at.client() as client:
        for _ in range(10):
            answer = await client.post("/QA", json=QUESTION)
            run = (await client.get(answer.headers["location"])).json()

            assert (run["status"], run["program"], run["error"]) == ("ok", "QA", None)
            assert run["inputs"] == QUESTION
            assert run["outputs"] == answer.json()
            assert run["usage"]["lm_calls"] == 1
            assert run["usage"]["input_tokens"] == 7


async def test_runs_are_listed_newest_first_and_by_program_and_status(events: str) -> None:
    gate = Gate()
    async with serving(qa(), program(gate), events=events) as at, at.client() as client:
        first = (await client.post("/QA", json=QUESTION)).headers["run-id"]
        going = await begun(client, "Gate")
        last = (await client.post("/QA", json=QUESTION)).headers["run-id"]

        async def listed(query: str = "") -> list[str]:
            return [run["id"] for run in (await client.get(f"/runs{query}")).json()["runs"]]

        assert await listed() == [last, going, first]
        assert await listed("?limit=1") == [last]
        assert await listed("?program=QA") == [last, first]
        assert await listed("?program=QA&limit=1") == [last]
        assert await listed("?status=running") == [going]
        assert await listed("?status=orphaned") == []
        gate.open.set()
        run = await ended(client, going)
        assert {"id", "program", "status", "started", "seconds", "events"} <= run.keys()


async def test_a_run_that_talks_can_be_looked_up_while_it_does() -> None:
    async with serving(endless(seconds_a_chunk=0.005)) as at, at.client() as client:
        run_id = await begun(client)
        async with asyncio.timeout(5):
            seen = [(await client.get(f"/runs/{run_id}")).json() for _ in range(3)]
        await client.post(f"/runs/{run_id}/cancel", json={})

    assert {run["status"] for run in seen} == {"running"}
    assert seen[-1]["inputs"] == QUESTION
    assert seen[-1]["outputs"] is None


async def test_a_talking_run_of_another_server_can_be_looked_up_and_stopped(events: str) -> None:
    served = endless(seconds_a_chunk=0.01)
    async with (
        serving(served, events=events) as one,
        serving(qa(), events=events) as other,
        one.client() as here,
        other.client() as there,
    ):
        run_id = await begun(here)
        async with asyncio.timeout(10):
            seen = (await there.get(f"/runs/{run_id}")).json()
            told = await there.post(f"/runs/{run_id}/cancel", json={})
        run = await ended(there, run_id)
        stopped = await quiet(served)

    assert (seen["status"], seen["inputs"]) == ("running", QUESTION)
    assert told.json()["status"] == "cancelling"
    assert run["status"] == "cancelled"
    assert stopped


async def test_a_run_in_another_servers_queue_is_watched_and_stopped(events: str) -> None:
    gate = Gate()
    async with (
        serving(program(gate), events=events, concurrency=1) as one,
        serving(program(gate), events=events) as other,
        one.client() as here,
        other.client() as there,
    ):
        first = await begun(here, "Gate", question="first")
        second = await begun(here, "Gate", question="second")
        told = await there.post(f"/runs/{second}/cancel", json={})
        run = await ended(there, second)
        gate.open.set()
        await ended(here, first)

    assert told.status_code == 202
    assert run["status"] == "cancelled"
    assert gate.called == ["first"]


async def test_metrics_count_runs_and_the_first_token() -> None:
    async with serving(qa()) as at, at.client() as client:
        await client.post("/QA", json=QUESTION)

        async def counts() -> list[float]:
            return [await metric(client, name) for name in ("runs_ended_total", "first_token_seconds_count")]

        await until(counts, lambda seen: seen == [1, 1], seconds=5)


# --- found by a hostile review ------------------------------------------------------------------------------


async def test_an_async_program_that_fails_as_it_is_cancelled_is_retired() -> None:
    class Fails(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            return dspy.Prediction(answer=question)

        async def aforward(self, question: str) -> dspy.Prediction:
            await asyncio.sleep(0.02)
            raise ValueError(question)

    async with serving(program(Fails), concurrency=60) as at, at.client() as client:
        prefer = {"Prefer": "respond-async"}
        for wait in [number / 2000 for number in range(60)]:
            answer = await client.post("/Fails", json=QUESTION, headers=prefer)
            await asyncio.sleep(wait)
            await client.post(f"/runs/{answer.json()['id']}/cancel", json={})

        async def going_on() -> int:
            return len(at.runs.live)

        await until(going_on, lambda number: number == 0)


async def test_a_run_of_this_server_is_stopped_and_told_while_the_log_is_away(tmp_path: Path) -> None:
    gate = Gate()
    async with serving(program(gate), events=f"sqlite:///{tmp_path}/e.db") as at, at.client() as client:
        run_id = await begun(client, "Gate")
        with patch.object(at.runs.history, "detail", side_effect=Unreachable("away")):
            seen = await client.get(f"/runs/{run_id}")
            told = await client.post(f"/runs/{run_id}/cancel", json={})
        gate.open.set()

    assert (seen.status_code, seen.json()["status"]) == (200, "running")
    assert (told.status_code, told.json()["status"]) == (202, "cancelling")


async def test_a_program_that_exits_has_failed_by_itself(events: str) -> None:
    class Exits(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            raise SystemExit(3)

    async with (
        serving(program(Exits), events=events) as one,
        serving(program(Exits), events=events) as other,
        one.client() as here,
        other.client() as there,
    ):
        answer = await here.post("/Exits", json=QUESTION)
        run_id = answer.headers["run-id"] if "run-id" in answer.headers else answer.json()["run"]
        seen = [(await client.get(f"/runs/{run_id}")).json()["status"] for client in (here, there)]

    assert answer.status_code == 500
    assert seen == ["error", "error"]


async def test_a_key_repeats_what_has_no_fields_too(events: str) -> None:
    class Says(dspy.Module):
        def forward(self, question: str) -> str:
            return question

    async with (
        serving(program(Says), events=events) as one,
        serving(program(Says), events=events) as other,
        one.client() as here,
        other.client() as there,
    ):
        key = {"Idempotency-Key": "k"}
        answers = [await client.post("/Says", json=QUESTION, headers=key) for client in (here, there)]

    assert [answer.json() for answer in answers] == [{"output": "6 * 7?"}] * 2


def test_a_key_of_a_set_is_the_same_in_every_process() -> None:
    said = [_plain({"b", "a", "c"}), _plain(frozenset({"c", "b", "a"}))]

    assert said == [["'a'", "'b'", "'c'"]] * 2


async def test_a_key_that_runs_needs_no_room_to_be_asked_for_again() -> None:
    gate = Gate()
    async with serving(program(gate), concurrency=1, queue=0) as at, at.client() as client:
        key = {"Idempotency-Key": "k"}
        first = asyncio.create_task(client.post("/Gate", json=QUESTION, headers=key))
        await one_run(client)
        again = asyncio.create_task(client.post("/Gate", json=QUESTION, headers=key))
        await asyncio.sleep(0.1)
        gate.open.set()

        assert [(await each).status_code for each in (first, again)] == [200, 200]


async def test_who_waits_for_a_run_that_was_lost_in_a_queue_is_told(events: str) -> None:
    async with serving(qa(), events=events, lease_seconds=1) as at:
        lost = f"{at.runs.fleet.new_id()[:12]}{'f' * 16}1"
        with patch.object(at.runs.fleet, "is_gone", return_value=True):
            asked = asyncio.run_coroutine_threadsafe(at.runs.history.past(lost).outputs(), at.loop)
            with pytest.raises(Problem) as told:
                await asyncio.wait_for(asyncio.wrap_future(asked), 10)

    assert told.value.extra["code"] == "orphaned"
