"""Our server beside what one would write by hand, in one run: viewers, memory, calls, start.

    uv run --with-requirements benchmarks/peers.txt python benchmarks/serve.py [--plot FILE] [--only PART]

Each app runs in a process of its own (`serving/apps.py`), under uvicorn with uvloop and httptools; the load
comes from this one. Apps take turns in short blocks; a ratio is the median of the ratios of each round. Ours
is the whole way: programs run, their events are captured, numbered, stored in SQLite, framed and sent. Theirs
is what is left of it: frames that are ready, from one source to all who watch it.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import NamedTuple

import uvloop
from serving import apps
from serving.client import (
    Caller,
    Delay,
    Seen,
    Server,
    connected,
    delay,
    free_port,
    get,
    listening,
    post,
    serving,
)

ROUNDS = 3
WINDOW_SECONDS = 2.5
SETTLE_SECONDS = 0.3


class Row(NamedTuple):
    """A figure beside its goal; less is better."""

    name: str
    value: float
    unit: str = "x"
    goal: float | None = None
    stretch: float | None = None
    note: str = ""


type Rows = AsyncGenerator[Row]


# --- viewers ------------------------------------------------------------------------------------------------


class Crowd(NamedTuple):
    """How many programs run, each with so many viewers, and how many more that stall."""

    programs: int
    viewers: int
    stalled: int = 0


class Watched(NamedTuple):
    """What a block of watching came to, in its window."""

    delay: Delay
    cpu_us: float
    """Of the server, an event delivered."""
    delivered: int
    lost: int


async def watch(server: Server, crowd: Crowd) -> Watched:
    """Watch programs, all from the beginning; ours to the end."""
    is_ours = server.name.startswith("ours")
    paths = await _started(server, crowd.programs) if is_ours else _feeds(crowd.programs)
    stalled = await connected(server, paths[:1] * crowd.stalled, stalled=True)
    viewers = await connected(server, paths * crowd.viewers)
    if is_ours:
        await _tell(server, "/speak")
    await asyncio.sleep(SETTLE_SECONDS)
    began, cpu = time.time(), server.cpu()
    await asyncio.sleep(WINDOW_SECONDS)
    ended, cpu = time.time(), server.cpu() - cpu
    if is_ours:
        async with asyncio.timeout(60):
            await asyncio.gather(*[viewer.ended() for viewer in viewers])
    for viewer in (*viewers, *stalled):
        viewer.transport.abort()
    seen = [viewer.events() for viewer in viewers]
    delivered = sum(began <= event.got < ended for events in seen for event in events)
    sent = [event for events in seen for event in events if began <= event.sent < ended - SETTLE_SECONDS]
    lost = sum(_lost(events, whole=is_ours) for events in seen)
    return Watched(delay(sent), cpu / delivered * 1e6, delivered, lost)


def _lost(events: Sequence[Seen], *, whole: bool) -> int:
    """Return how many events are missing, or out of place, from what one viewer got."""
    numbers = [event.sequence for event in events]
    first = 0 if whole else numbers[0]
    wrong = sum(number != place for place, number in enumerate(numbers, first))
    return wrong + (whole and events[-1].name != b"prediction")


def _feeds(programs: int) -> list[str]:
    return [f"/feed/{number}" for number in range(programs)]


async def _started(server: Server, programs: int) -> list[str]:
    """Start programs of ours, which wait until they are told to speak; return where their events are."""
    await _tell(server, "/hold")
    request = post("/Stream", b'{"question": "q"}', "Prefer: respond-async")
    with closing(await Caller.to(server)) as caller:
        answers = [json.loads(await caller.call(request)) for _ in range(programs)]
    return [f"/runs/{answer['id']}/events" for answer in answers]


async def _tell(server: Server, path: str) -> None:
    with closing(await Caller.to(server)) as caller:
        await caller.call(get(path))


async def turns(servers: Sequence[Server], crowd: Crowd) -> Mapping[str, Sequence[Watched]]:
    """Watch each server in turn, `ROUNDS` times."""
    found: dict[str, list[Watched]] = {server.name: [] for server in servers}
    for _ in range(ROUNDS):
        for server in servers:
            found[server.name].append(await watch(server, crowd))
    for name, blocks in found.items():
        told = f"{median(b.delay.p50 for b in blocks):8.2f}{median(b.delay.p99 for b in blocks):8.2f}"
        cpu, lost = median(b.cpu_us for b in blocks), sum(b.lost for b in blocks)
        number = median(b.delivered for b in blocks) / WINDOW_SECONDS
        print(f"  {name:22}{told} ms p50, p99{cpu:8.1f} us an event{number:10,.0f} events/s{lost:5} lost")
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return median(a / b for a, b in zip(ours, theirs, strict=True))


async def hundred() -> Rows:
    """Delay at 100 viewers."""
    with serving("ours") as ours, serving("fastapi") as fastapi:
        found = await turns([ours, fastapi], Crowd(10, 10))
    for row in _delays("100 viewers", found["ours"], found["fastapi"]):
        yield row


def _delays(title: str, ours: Sequence[Watched], theirs: Sequence[Watched]) -> Sequence[Row]:
    p50, p99 = ([block.delay[place] for block in ours] for place in (0, 1))
    their99 = [block.delay.p99 for block in theirs]
    return [
        Row(f"{title}: p50", median(p50), " ms", 5),
        Row(f"{title}: p99 ÷ FastAPI", ratio(p99, their99), goal=2, note=f"{median(p99):.1f} ms"),
    ]


async def thousand() -> Rows:
    """Delay, loss and CPU at 1,000 viewers, 20 of each of 50 programs; and 1,000 of one."""
    names = ("ours", "fastapi", "starlette", "sse-starlette", "bare-paced", "bare")
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(name)) for name in names]
        found = await turns(servers, Crowd(50, 20))
        for row in _delays("50 programs x 20 viewers", found["ours"], found["fastapi"]):
            yield row
        yield Row("... lost events", sum(block.lost for block in found["ours"]), "", 0)
        cpu = {name: [block.cpu_us for block in blocks] for name, blocks in found.items()}
        yield Row("... CPU an event ÷ Starlette", ratio(cpu["ours"], cpu["starlette"]), goal=1.15)
        yield Row("... CPU an event ÷ sse-starlette", ratio(cpu["ours"], cpu["sse-starlette"]), goal=0.67)
        yield Row("... CPU an event ÷ bare ASGI", ratio(cpu["ours"], cpu["bare-paced"]), stretch=0.65)
        one = await turns(servers[:3], Crowd(1, 1000))
        for row in _delays("1 program x 1,000 viewers", one["ours"], one["fastapi"]):
            yield row
        yield Row("... lost events", sum(block.lost for block in one["ours"]), "", 0)
        cpu = {name: [block.cpu_us for block in blocks] for name, blocks in one.items()}
        yield Row("... CPU an event ÷ Starlette", ratio(cpu["ours"], cpu["starlette"]), goal=1.15)


async def stalled() -> Rows:
    """What ten viewers that stall do to the others."""
    with serving("ours") as ours:
        pairs = [
            (await watch(ours, Crowd(20, 10, stalled=10)), await watch(ours, Crowd(20, 10)))
            for _ in range(ROUNDS)
        ]
    stalls, alone = ([pair[place].delay.p99 for pair in pairs] for place in (0, 1))
    yield Row("10 of 210 viewers stall: the others' p99", ratio(stalls, alone), goal=1.1)
    yield Row("... lost events of the others", sum(block.lost for pair in pairs for block in pair), "", 0)


# --- memory -------------------------------------------------------------------------------------------------


async def memory() -> Rows:
    """Memory a viewer that waits, in a process that served few before."""
    sizes: dict[str, float] = {}
    for name in ("ours", "starlette", "sse-starlette"):
        with serving(name) as server:
            paths = await _started(server, 1) if name == "ours" else _feeds(1)
            await connected(server, paths * 50)
            await asyncio.sleep(2)
            before = server.kib()
            viewers = await connected(server, paths * 1000)
            await asyncio.sleep(3)  # ours: heartbeats, one a second
            sizes[name] = (server.kib() - before) / len(viewers)
    note = ", ".join(f"{name} {size:.0f}" for name, size in sizes.items() if name != "ours")
    yield Row("memory a viewer", sizes["ours"], " KiB", 30, 12, note)


# --- calls --------------------------------------------------------------------------------------------------


class Called(NamedTuple):
    """Milliseconds a call: by the clock, for one client, and of CPU."""

    one: float
    eight: float
    cpu: float


async def call(server: Server, path: str, number: int = 240) -> Called:
    callers = [await Caller.to(server) for _ in range(8)]
    request = post(path, b'{"question": "q"}')

    async def calls(caller: Caller, count: int) -> None:
        for _ in range(count):
            await caller.call(request)

    await calls(callers[0], 20)
    cpu, began = server.cpu(), time.perf_counter()
    await calls(callers[0], number)
    one = time.perf_counter()
    await asyncio.gather(*[calls(caller, number // 8) for caller in callers])
    eight, cpu = time.perf_counter(), server.cpu() - cpu
    for caller in callers:
        caller.close()
    return Called(*(1000 * s / number for s in (one - began, eight - one, cpu / 2)))


async def posts() -> Rows:
    """`POST` of a program beside hand-written routes for the same one."""
    with serving("ours") as ours, serving("by-hand") as by_hand:
        routes = {
            "ours": (ours, "/Call"),
            "asyncify": (by_hand, "/asyncify"),
            "thread": (by_hand, "/thread"),
            "ours, 20 ms": (ours, "/Slow"),
            "thread, 20 ms": (by_hand, "/slow"),
        }
        found: dict[str, list[Called]] = {name: [] for name in routes}
        for _ in range(2 * ROUNDS):
            for name, (server, path) in routes.items():
                found[name].append(await call(server, path, 48 if path.lower() == "/slow" else 240))
    for name, calls in found.items():
        one, eight, cpu = (median(values) for values in zip(*calls, strict=True))
        print(f"  {name:22}{one:8.2f} ms a call, {eight:.2f} with 8 at once, {cpu:.2f} of CPU")
    pairs = {
        "LM takes 20 ms": ("ours, 20 ms", "thread, 20 ms"),
        "LM at once, asyncify": ("ours", "asyncify"),
        "LM at once, thread": ("ours", "thread"),
    }
    for title, (mine, other) in pairs.items():
        for place, clients in enumerate(("one client", "8 clients")):
            ours_, theirs = ([each[place] for each in found[which]] for which in (mine, other))
            yield Row(f"POST ÷ FastAPI, {title}, {clients}", ratio(ours_, theirs), goal=1.5)


# --- start --------------------------------------------------------------------------------------------------


PROGRAM = """\
import dspy


class Ask(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.predict(question=question)
"""


def until_ready(folder: str) -> float:
    """Return how long `dspy-cli serve` takes until it answers that it is ready."""
    Path(folder, "program.py").write_text(PROGRAM)
    port = free_port()
    command = [sys.executable, "-m", "dspy_cli", "serve", "program.py", "--port", str(port)]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        with listening(port, process) as connection:
            connection.sendall(get("/readyz"))
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        return time.perf_counter() - began
    finally:
        process.kill()
        process.wait()


def until_imported(_: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import dspy"], check=True)
    return time.perf_counter() - began


async def start() -> Rows:
    """`dspy-cli serve` until it is ready, beside the import that it cannot do without."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = [(until_ready(folder), until_imported(folder)) for _ in range(2 * ROUNDS)]
    ready, imported = zip(*pairs[1:], strict=True)
    note = f"{median(ready):.2f} s, {median(imported):.2f} s"
    yield Row("serve until ready ÷ import dspy", ratio(ready, imported), goal=1.5, note=note)


# --- what it runs on ----------------------------------------------------------------------------------------


async def servers() -> Rows:
    """Our app on other servers, beside uvicorn with httptools."""
    with ExitStack() as stack:
        running = [stack.enter_context(serving("ours", server)) for server in apps.SERVERS]
        watched = await turns(running, Crowd(50, 20))
        called: dict[str, list[float]] = {server.name: [] for server in running}
        for _ in range(2 * ROUNDS):
            for server in running:
                called[server.name].append((await call(server, "/Call")).one)
    cpu = {name: [block.cpu_us for block in blocks] for name, blocks in watched.items()}
    p99 = {name: [block.delay.p99 for block in blocks] for name, blocks in watched.items()}
    for server in running[1:]:
        title = server.name.removeprefix("ours ")
        yield Row(f"{title} ÷ uvicorn: CPU an event", ratio(cpu[server.name], cpu["ours"]))
        yield Row("... p99", ratio(p99[server.name], p99["ours"]))
        yield Row("... POST, one client", ratio(called[server.name], called["ours"]))


# --- the table ----------------------------------------------------------------------------------------------

PARTS: Sequence[Callable[[], Rows]] = (hundred, thousand, stalled, memory, posts, start, servers)


async def measured(parts: Sequence[Callable[[], Rows]]) -> list[Row]:
    rows: list[Row] = []
    for part in parts:
        print(f"{(part.__doc__ or '').partition(chr(10))[0]}")
        rows += [row async for row in part()]
    return rows


def table(rows: Sequence[Row]) -> None:
    print(f"\n{'':52}{'':>12}{'goal':>9}{'stretch':>9}")
    for row in rows:
        goals = [f"{goal:g}" if goal is not None else "" for goal in (row.goal, row.stretch)]
        print(f"{row.name:52}{f'{row.value:.2f}{row.unit}':>12}{goals[0]:>9}{goals[1]:>9}  {row.note}")


def plot(path: Path, rows: Sequence[Row]) -> None:
    """Draw what each figure is of its goal: left of the line is met."""
    import matplotlib.pyplot as plt

    shown = [row for row in rows if row.goal or row.stretch][::-1]
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(shown) + 1.2), layout="constrained")
    for place, row in enumerate(shown):
        goal = row.goal or row.stretch or 1
        axes.barh(place, row.value / goal, color="#4c78a8" if row.goal else "#9ecae9", height=0.55)
        axes.text(row.value / goal, place, f" {row.value:.2f}{row.unit} of {goal:g}", va="center")
    axes.set_yticks(range(len(shown)), [row.name for row in shown])
    axes.axvline(1, color="#e45756")
    axes.set_xlabel("of the goal; at most 1 is met (light: a stretch goal)")
    axes.set_xlim(0, 1.2 * max(row.value / (row.goal or row.stretch or 1) for row in shown))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--plot", type=Path)
    options.add_argument("--only", default="", help=", ".join(part.__name__ for part in PARTS))
    asked = options.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 20_000), most))
    chosen = [part for part in PARTS if asked.only in part.__name__]
    rows = uvloop.run(measured(chosen))
    table(rows)
    if asked.plot:
        plot(asked.plot, rows)


if __name__ == "__main__":
    main()
