"""Cron gateways: when they fire, on a clock that passes only when it is waited for."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy_cli.errors import InvalidGateway
from dspy_cli.gateways import CronGateway
from dspy_cli.gateways.base import Starts
from dspy_cli.gateways.cron import run_crons, ticks, wall_clock
from dspy_cli.project.config import ServerSettings
from dspy_cli.project.programs import Program, program
from dspy_cli.server.metrics import Metrics
from dspy_cli.server.runs import Runs
from logs import new_name
from scripted import chat, lm

START = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)


class Clock:
    """Time that passes when all crons wait for it, to the first that is due, until `end`."""

    def __init__(self, *, minutes: float, crons: int = 1) -> None:
        self.now = START
        self.end = START + timedelta(minutes=minutes)
        self.over = asyncio.Event()
        self._crons = crons
        self._waiting: list[tuple[datetime, asyncio.Future[None]]] = []

    async def __call__(self, until: datetime | None) -> datetime:
        if until is not None and until > self.now:
            due = asyncio.get_running_loop().create_future()
            self._waiting.append((until, due))
            self._pass_if_all_wait()
            await due
        return self.now

    def _pass_if_all_wait(self) -> None:
        if len(self._waiting) < self._crons:
            return
        self._waiting.sort(key=lambda each: each[0])
        if self._waiting[0][0] > self.end:
            self.over.set()
            return
        self.now, due = self._waiting.pop(0)
        due.set_result(None)

    def pass_(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)


class Batch(CronGateway):
    """One run a tick, and everything it saw."""

    schedule = "*/5 * * * *"
    inputs: Sequence[Any] = ({"question": "?"},)

    def __init__(self) -> None:
        self.asked = 0
        self.completed: list[tuple[Any, Any]] = []
        self.failed: list[tuple[Any, Exception]] = []

    async def get_pipeline_inputs(self) -> Sequence[Any]:
        self.asked += 1
        return self.inputs

    async def on_complete(self, inputs: Any, output: Mapping[str, Any]) -> None:
        self.completed.append((inputs, output))

    async def on_error(self, inputs: Any, error: Exception) -> None:
        self.failed.append((inputs, error))


class Module(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.predict(question=question)


def served(gateway: CronGateway, *, name: str = "QA", reply: Any = None) -> Program:
    declared = type(name, (Module,), {"gateway": gateway})
    return program(declared, lm=lm(reply or chat(answer="42")))


@pytest.fixture
async def runs() -> Runs:
    return Runs(f"memory:{new_name()}", ServerSettings(), observer=Metrics())


async def passed(clock: Clock, runs: Starts, *programs: Program, **options: Any) -> None:
    """Let the clock run to its end."""
    async with asyncio.timeout(20):
        crons = asyncio.create_task(run_crons(programs, runs, clock=clock, **options))
        over = asyncio.create_task(clock.over.wait())
        await asyncio.wait([crons, over], return_when=asyncio.FIRST_COMPLETED)
        assert not crons.done(), "a schedule has no end"
        crons.cancel()
        with suppress(asyncio.CancelledError):
            await crons
        await over


# --- firing -------------------------------------------------------------------------------------------------


async def test_a_batch_is_run_at_every_tick(runs: Runs) -> None:
    gateway = Batch()
    gateway.inputs = [{"question": "a"}, {"question": "b"}]

    await passed(Clock(minutes=11), runs, served(gateway))

    assert gateway.asked == 2
    assert sorted(inputs["question"] for inputs, _ in gateway.completed) == ["a", "a", "b", "b"]
    assert {output["answer"] for _, output in gateway.completed} == {"42"}


async def test_notes_reach_the_hook_and_not_the_program(runs: Runs) -> None:
    gateway = Batch()
    gateway.inputs = [{"question": "?", "_meta": {"id": 7}}]

    await passed(Clock(minutes=5), runs, served(gateway))

    assert gateway.completed == [({"question": "?", "_meta": {"id": 7}}, {"answer": "42"})]


async def test_hooks_may_be_plain_functions_that_block(runs: Runs) -> None:
    seen: list[object] = []

    class Plain(CronGateway):
        schedule = "*/5 * * * *"

        def get_pipeline_inputs(self) -> list[dict[str, Any]]:
            seen.append(threading.current_thread() is threading.main_thread())
            return [{"question": "?"}]

        def on_complete(self, inputs: Mapping[str, Any], output: Mapping[str, Any]) -> None:
            seen.append(output["answer"])

    await passed(Clock(minutes=5), runs, served(Plain()))

    assert seen == [False, "42"]


async def test_no_more_than_max_concurrent_run_at_once(runs: Runs) -> None:
    both = threading.Barrier(2)  # neither answers before the other was asked
    at_once: list[int] = []

    class Counting:
        async def start(
            self, program: Program, inputs: Mapping[str, object], *, key: str | None = None
        ) -> Any:
            at_once.append(at_once[-1] + 1 if at_once else 1)
            return await runs.start(program, inputs, key=key)

    class Two(Batch):
        max_concurrent = 2
        inputs = tuple({"question": str(number)} for number in range(6))

        async def on_complete(self, inputs: Any, output: Mapping[str, Any]) -> None:
            at_once.append(at_once[-1] - 1)
            await super().on_complete(inputs, output)

    def reply(_: str) -> str:
        both.wait(10)
        return chat(answer="42")

    await passed(Clock(minutes=5), Counting(), served(gateway := Two(), reply=reply))

    assert max(at_once) == 2
    assert len(gateway.completed) == 6


async def test_each_program_has_its_own_schedule(runs: Runs) -> None:
    class Hourly(Batch):
        schedule = "0 * * * *"

    often, seldom = Batch(), Hourly()

    await passed(Clock(minutes=60, crons=2), runs, served(often, name="Often"), served(seldom, name="Seldom"))

    assert (often.asked, seldom.asked) == (12, 1)


async def test_programs_without_a_cron_gateway_are_passed_over(runs: Runs) -> None:
    async with asyncio.timeout(5):
        await run_crons([program(Module, name="QA")], runs)


# --- skipping -----------------------------------------------------------------------------------------------


async def test_ticks_during_a_batch_are_skipped_and_counted(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    clock, skipped = Clock(minutes=21), list[tuple[str, int]]()

    class Slow(Batch):
        async def on_complete(self, inputs: Any, output: Mapping[str, Any]) -> None:
            if not self.completed:
                clock.pass_(10)
            await super().on_complete(inputs, output)

    await passed(clock, runs, served(gateway := Slow()), skipped=lambda *told: skipped.append(told))

    assert gateway.asked == 2  # 12:05, which lasts until 12:15, and 12:20
    assert skipped == [("QA", 2)]
    assert "skipped 2 ticks" in caplog.text


async def test_a_machine_that_slept_fires_once_when_it_wakes(runs: Runs) -> None:
    clock, skipped = Clock(minutes=24 * 60), list[int]()

    class Sleeper(Batch):
        async def get_pipeline_inputs(self) -> Sequence[Any]:
            if not self.asked:
                clock.pass_(23.9 * 60)
            return await super().get_pipeline_inputs()

    await passed(clock, runs, served(gateway := Sleeper()), skipped=lambda _, count: skipped.append(count))

    assert gateway.asked == 2
    assert skipped == [286]


async def test_a_clock_that_is_set_back_does_not_fire_a_tick_again(runs: Runs) -> None:
    clock = Clock(minutes=11)

    class SetBack(Batch):
        async def get_pipeline_inputs(self) -> Sequence[Any]:
            clock.pass_(-3)
            return await super().get_pipeline_inputs()

    await passed(clock, runs, served(gateway := SetBack()))

    assert gateway.asked == 2


# --- failing ------------------------------------------------------------------------------------------------


async def test_a_run_that_fails_is_told_and_the_others_go_on(runs: Runs) -> None:
    def reply(prompt: str) -> str:
        if "bad" in prompt:
            raise ValueError("no")
        return chat(answer="42")

    gateway = Batch()
    gateway.inputs = [{"question": "bad"}, {"question": "good"}, {"wrong": 1}, "nothing"]

    await passed(Clock(minutes=5), runs, served(gateway, reply=reply))

    assert [inputs for inputs, _ in gateway.completed] == [{"question": "good"}]
    assert len(gateway.failed) == 3


async def test_without_on_error_a_failure_is_logged_without_the_programs_words(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    class Quiet(CronGateway):
        schedule = "*/5 * * * *"

        async def get_pipeline_inputs(self) -> list[dict[str, Any]]:
            return [{"wrong": "hunter2"}]

    await passed(Clock(minutes=5), runs, served(Quiet()))

    assert "Quiet failed: ValidationError" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("hook", ["get_pipeline_inputs", "on_complete", "on_error"])
async def test_a_hook_that_fails_is_logged_once_and_the_schedule_goes_on(
    hook: str, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(Batch):
        inputs = ({"question": "?"} if hook != "on_error" else {},)

    async def fail(self: Batch, *_: object) -> None:
        self.asked += hook == "get_pipeline_inputs"
        raise RuntimeError("broken")

    setattr(Fails, hook, fail)

    await passed(Clock(minutes=11), runs, served(gateway := Fails()))

    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert gateway.asked == 2
    assert [hook in record.message and "Fails" in record.message for record in errors] == [True, True]


@pytest.mark.parametrize("returned", [None, 7])
async def test_inputs_that_are_no_batch_are_logged(
    returned: Any, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = Batch()
    gateway.inputs = returned

    await passed(Clock(minutes=11), runs, served(gateway))

    assert gateway.asked == 2
    assert caplog.text.count("get_pipeline_inputs of the gateway Batch failed") == 2


# --- a fleet ------------------------------------------------------------------------------------------------


def claims(runs: Runs) -> Callable[[str], Awaitable[bool]]:
    async def claim(key: str) -> bool:
        mine = runs.fleet.new_id()
        return (await runs.fleet.claim(key, mine, ""))[0] == mine

    return claim


async def test_of_several_servers_one_fires_a_tick(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    servers = [Runs(url, ServerSettings(), observer=Metrics()) for _ in range(3)]
    gateways = [Batch() for _ in servers]

    await asyncio.gather(
        *(
            passed(Clock(minutes=16), runs, served(gateway), claim=claims(runs))
            for runs, gateway in zip(servers, gateways, strict=True)
        )
    )

    assert sum(gateway.asked for gateway in gateways) == 3
    assert sum(len(gateway.completed) for gateway in gateways) == 3


async def test_a_tick_of_a_program_starts_its_runs_once(runs: Runs) -> None:
    calls: list[str] = []

    def reply(prompt: str) -> str:
        calls.append(prompt)
        return chat(answer="42")

    for _ in range(2):
        await passed(Clock(minutes=5), runs, served(Batch(), reply=reply))

    assert len(calls) == 1


async def test_a_claim_that_cannot_be_made_is_logged_and_the_tick_is_left_out(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    async def claim(key: str) -> bool:
        if key.endswith("12:05:00+00:00"):
            raise ConnectionError("the log is away")
        return True

    await passed(Clock(minutes=11), runs, served(gateway := Batch()), claim=claim)

    assert gateway.asked == 1
    assert "claim of the gateway Batch failed" in caplog.text


# --- when ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "timezone", "after", "wanted"),
    [
        ("*/5 * * * *", "UTC", "2026-01-01T12:00:30Z", ["2026-01-01T12:05Z", "2026-01-01T12:10Z"]),
        ("*/5 * * * *", "UTC", "2026-01-01T12:05:00Z", ["2026-01-01T12:10Z"]),
        ("0 9 * * 1-5", "UTC", "2026-01-02T10:00Z", ["2026-01-05T09:00Z"]),
        ("0 0 1 * *", "UTC", "2026-01-01T00:00:01Z", ["2026-02-01T00:00Z"]),
        ("0 9 * * *", "Asia/Kolkata", "2026-01-01T00:00Z", ["2026-01-01T03:30Z"]),
        # Clocks in Berlin go from 02:00 to 03:00 on 29 March 2026, and from 03:00 to 02:00 on 25 October.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10Z", ["2026-10-26T01:30Z"]),
        ("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:20Z",
         ["2026-10-25T00:30Z", "2026-10-25T01:00Z", "2026-10-25T01:30Z", "2026-10-25T02:00Z"]),
    ],
)  # fmt: skip
def test_ticks_are_those_of_the_schedule_in_its_zone(
    schedule: str, timezone: str, after: str, wanted: Sequence[str]
) -> None:
    gateway = type("Timed", (Batch,), {"schedule": schedule, "timezone": timezone})()

    found = islice(ticks(gateway, datetime.fromisoformat(after)), len(wanted))

    assert list(found) == [datetime.fromisoformat(each) for each in wanted]


@pytest.mark.parametrize(
    "schedule", ["", "every day", "* * * *", "61 * * * *", "0 0 30 2 *", "@daily", "0 0 31 4 1#6"]
)
def test_a_schedule_that_is_none_is_refused_where_it_stands(schedule: str) -> None:
    with pytest.raises(InvalidGateway, match=r"Declared has schedule = .*minute hour"):
        type("Declared", (Batch,), {"schedule": schedule})


@pytest.mark.parametrize("timezone", ["", "Mars/Olympus", "../etc/passwd", "/etc/localtime", "Europe"])
def test_a_zone_that_is_none_is_refused(timezone: str) -> None:
    with pytest.raises(InvalidGateway, match=r"Declared has timezone = .*Europe/Berlin"):
        type("Declared", (Batch,), {"timezone": timezone})


def test_none_at_once_is_refused() -> None:
    with pytest.raises(InvalidGateway, match="max_concurrent = 0"):
        type("Declared", (Batch,), {"max_concurrent": 0})


def test_a_base_for_other_gateways_needs_no_schedule() -> None:
    class Base(CronGateway):
        timezone = "Europe/Berlin"

    with pytest.raises(TypeError, match="get_pipeline_inputs"):
        Base()  # pyright: ignore[reportAbstractUsage]


async def test_the_wall_clock_waits_until_then() -> None:
    until = datetime.now(UTC) + timedelta(milliseconds=20)

    assert await wall_clock(until) >= until
    assert await wall_clock() >= until
    assert await wall_clock(START) > START  # long ago
