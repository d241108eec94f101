"""Cron gateways: run a program on a schedule, over a batch of inputs."""

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Any, ClassVar, cast, override
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import JsonValue

from dspy_cli.gateways.base import Gateway, MaybeAwaitable, Starts, call, visible
from dspy_cli.project.programs import Program

_LOG = logging.getLogger(__name__)
_MOST_SKIPPED = 1000
"""Ticks counted as skipped at once: a machine that slept for a month says "1000" instead of counting."""

type Inputs = Mapping[str, Any]
type Clock = Callable[[datetime | None], Awaitable[datetime]]
"""Wait until a moment, or not at all, and return the time it is then; both with a time zone."""
type Claim = Callable[[str], Awaitable[bool]]
"""Return whether this process is the first in the fleet to ask for a key."""


class CronGateway(Gateway):
    """Run a program on a schedule.

    At each tick the batch that `get_pipeline_inputs()` returns is run, `max_concurrent` at once; ticks before
    its end are skipped. The hooks may be plain functions, which run in a thread, or coroutine functions. What
    a hook raises is logged; the schedule goes on.
    """

    schedule: ClassVar[str] = ""
    """`minute hour day-of-month month day-of-week`, see crontab(5); six fields begin with the second."""
    timezone: ClassVar[str] = "UTC"
    """An IANA name. A time that a clock change leaves out fires right after it; a repeated one, once."""
    max_concurrent: ClassVar[int] = 4

    @classmethod
    @override
    def problems(cls) -> list[str]:
        if getattr(cls.get_pipeline_inputs, "__isabstractmethod__", False):
            return []  # a base for other gateways
        found = (
            _zone_problem(cls.timezone),
            _schedule_problem(cls.schedule),
            _most_problem(cls.max_concurrent),
        )
        return [problem for problem in found if problem]

    @abstractmethod
    def get_pipeline_inputs(self) -> MaybeAwaitable[Sequence[Inputs]]:
        """Return the inputs of each run; keys that begin with `_` are not passed to the program."""

    def on_complete(self, inputs: Inputs, output: Mapping[str, JsonValue]) -> MaybeAwaitable[None]:
        """Take the outputs of one run."""

    def on_error(self, inputs: Inputs, error: Exception) -> MaybeAwaitable[None]:
        """Take why one run did not give outputs. Default: it is in the history of runs, and logged."""
        _LOG.warning("A run of %s failed: %s", type(self).__qualname__, type(error).__name__)


def _zone_problem(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # no such zone; a path; a directory of zones
        known = 'it must be an IANA name such as "Europe/Berlin"'
        return f"has timezone = {name!r:.80}; {known} (a system without zones needs the package tzdata)."
    return ""


def _schedule_problem(schedule: str) -> str:
    wanted = 'it must be `minute hour day-of-month month day-of-week`, such as "*/5 * * * *".'
    try:
        first = next(CronSim(schedule, datetime.now(UTC)), None)
    except CronSimError as error:
        return f"has schedule = {schedule!r:.80} ({str(error).lower()}); {wanted}"
    return "" if first else f"has schedule = {schedule!r:.80}, which never comes; {wanted}"


def _most_problem(most: int) -> str:
    return "" if most >= 1 else f"has max_concurrent = {most!r}; it must be 1 or more."


async def wall_clock(until: datetime | None = None) -> datetime:
    """Wait until `until`, and return the time."""
    now = datetime.now(UTC)
    while until is not None and now < until:
        # Not all at once: the clock may be set, the machine may sleep.
        await asyncio.sleep(min((until - now).total_seconds(), 30))
        now = datetime.now(UTC)
    return now


async def alone(_: str) -> bool:
    """Claim for a process that shares its schedules with none."""
    return True


async def run_crons(
    programs: Sequence[Program],
    runs: Starts,
    *,
    clock: Clock = wall_clock,
    claim: Claim = alone,
    skipped: Callable[[str, int], object] = lambda program, count: None,
) -> None:
    """Follow the schedule of every program with a cron gateway, until cancelled.

    A tick that comes while the batch before it still runs is skipped. Ticks from before the start are not
    made up for.

    Args:
        programs: Those without a cron gateway are passed over.
        runs: Where runs are started, with the key `cron:{program}:{tick}:{index}`.
        clock: Waits, and tells the time.
        claim: Asked for `cron:{program}:{tick}`; only the process that gets it asks for inputs.
        skipped: Told the program and how many ticks were skipped.
    """
    async with asyncio.TaskGroup() as group:
        for program in programs:
            if isinstance(program.gateway, CronGateway):
                cron = _Cron(program, program.gateway, runs, claim)
                group.create_task(cron.follow(clock, skipped), name=f"cron of {program.name}")


def ticks(gateway: CronGateway, after: datetime) -> Iterator[datetime]:
    """Return the times `gateway` fires after `after`, in UTC, without end."""
    found = CronSim(gateway.schedule, after.astimezone(ZoneInfo(gateway.timezone)))
    # Compared in UTC: of a repeated hour CronSim gives the first, which is past if `after` is in the second.
    return (tick for local in found if (tick := local.astimezone(UTC)) > after)


class _Cron:
    """One schedule and its program."""

    def __init__(self, program: Program, gateway: CronGateway, runs: Starts, claim: Claim) -> None:
        self.program = program
        self.gateway = gateway
        self.runs = runs
        self.claim = claim
        self.name = type(gateway).__qualname__
        self.free = asyncio.Semaphore(gateway.max_concurrent)

    async def follow(self, clock: Clock, skipped: Callable[[str, int], object]) -> None:
        now = await clock(None)
        while True:
            tick = next(ticks(self.gateway, now))
            await clock(tick)
            await self.fire(tick)
            now = max(tick, await clock(None))  # a clock that was set back does not fire a tick again
            missed = takewhile(lambda missed, now=now: missed <= now, ticks(self.gateway, tick))
            if count := sum(1 for _ in islice(missed, _MOST_SKIPPED)):
                _LOG.warning("%s skipped %d ticks: the batch of %s still ran.", self.name, count, tick)
                skipped(self.program.name, count)

    async def fire(self, tick: datetime) -> None:
        """Run the batch of `tick`, if this process is the one to do it. Raises nothing but cancellation."""
        key = f"cron:{self.program.name}:{tick.isoformat()}"
        if not await self._guarded("claim", self.claim, key):
            return
        batch: Sequence[Inputs] | None = await self._guarded("get_pipeline_inputs", self._batch)
        async with asyncio.TaskGroup() as group:
            for index, inputs in enumerate(batch or ()):
                group.create_task(self._run(inputs, f"{key}:{index}"))

    async def _batch(self) -> Sequence[Inputs]:
        return list(await call(self.gateway.get_pipeline_inputs))

    async def _run(self, inputs: Inputs, key: str) -> None:
        async with self.free:
            try:
                output = await self._output(inputs, key)
            except Exception as error:  # noqa: BLE001 - the program's, or the server that is full
                await self._guarded("on_error", self.gateway.on_error, inputs, error)
            else:
                await self._guarded("on_complete", self.gateway.on_complete, inputs, output)

    async def _output(self, inputs: Inputs, key: str) -> Mapping[str, JsonValue]:
        body = self.program.request.model_validate(visible(inputs))
        run = await self.runs.start(self.program, self.program.inputs(body), key=key)
        return cast("Mapping[str, JsonValue]", await run.outputs())

    async def _guarded[**P, T](
        self, what: str, hook: Callable[P, MaybeAwaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T | None:
        try:
            return await call(hook, *args, **kwargs)
        except Exception:  # noqa: BLE001 - the user's
            _LOG.exception("%s of the gateway %s failed; its schedule goes on.", what, self.name)
            return None
