"""What being watched costs a DSPy program: streamll and its peers, side by side in one run.

    make bench    # with the peers of peers.txt, 3 to 4 minutes; `--quick` takes a third of the blocks

Variants take turns in short blocks. What is reported is the median over the blocks of the difference to the
bare program in the same round, so a noisy neighbour hits all alike. Bare means bare: what streamll and the
peers hook is put back between the blocks. Every sink and exporter discards. `cpu` is `time.thread_time` of
the program's thread; `wall` also has what the interpreter's lock gives to worker threads.
"""

import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from statistics import median, quantiles
from typing import Any, NamedTuple

import dspy
import dspy.clients.execution
import dspy.clients.lm
import streamll
from dspy.lm15 import (
    Message,
    Response,
    StreamDeltaEvent,
    StreamEndEvent,
    StreamStartEvent,
    TextDelta,
    TextPart,
    Usage,
)
from dspy.utils.callback import BaseCallback
from streamll.core import hooks
from streamll.core.events import SPANS

QUICK = "--quick" in sys.argv


# --- a program without a model ------------------------------------------------------------------------------


class Engine:
    """Says `tokens` tokens in ChatAdapter's format, made beforehand: here a token costs nothing."""

    supports_function_calling = supports_reasoning = supports_response_schema = False
    supported_params = ()

    def __init__(self, tokens: int, *, seconds_a_token: float = 0.0) -> None:
        words = [f"word{number % 10} " for number in range(tokens)]
        pieces = ["[[ ## answer ## ]]\n", *words, "\n\n[[ ## completed ## ]]\n"]
        usage = Usage(input_tokens=7, output_tokens=tokens)
        self._events = [
            StreamStartEvent(id="r", model="none"),
            *(StreamDeltaEvent(TextDelta(piece, part_index=0)) for piece in pieces),
            StreamEndEvent(finish_reason="stop", usage=usage),
        ]
        self._response = Response(
            id="r",
            model="none",
            message=Message.assistant([TextPart("".join(pieces))]),
            finish_reason="stop",
            usage=usage,
        )
        self._seconds = seconds_a_token

    def complete(self, request: Any) -> Response:
        return self._response

    def stream(self, request: Any) -> Iterator[Any]:
        for event in self._events:
            if self._seconds:
                time.sleep(self._seconds)
            yield event


class AsyncEngine(Engine):
    async def complete(self, request: Any) -> Response:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._response

    async def stream(self, request: Any) -> AsyncIterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        for event in self._events:
            yield event


class CompleteOnly:
    """An engine that cannot stream: a call has events but no tokens on the way."""

    supports_function_calling = supports_reasoning = supports_response_schema = False
    supported_params = ()

    def __init__(self, engine: Engine | AsyncEngine) -> None:
        self.complete = engine.complete


def program(tokens: int, *, streams: bool = True, seconds_a_token: float = 0.0) -> dspy.Predict:
    engines = [Engine(tokens, seconds_a_token=seconds_a_token), AsyncEngine(tokens)]
    engine, async_engine = engines if streams else map(CompleteOnly, engines)
    predict = dspy.Predict("question -> answer")
    predict.lm = dspy.LM("none/none", engine=engine, async_engine=async_engine, cache=False)
    return predict


def discard(_event: object) -> None:
    """The sink of every variant."""


# --- bare and hooked ----------------------------------------------------------------------------------------

_HOOKED = (
    *(dspy.Module, dspy.BaseLM, dspy.LM, dspy.Adapter, dspy.ChatAdapter, dspy.JSONAdapter),
    *(dspy.clients.execution, dspy.clients.lm),
)
_BARE = [dict(vars(place)) for place in _HOOKED]
hooks.install()


@contextmanager
def unhooked() -> Iterator[None]:
    """DSPy as it is without streamll. Whatever is changed inside is undone, too: two of the peers leave an
    `LM.__call__` of their own behind, under which streamll would report less and look cheaper."""
    hooked = [dict(vars(place)) for place in _HOOKED]
    _restore(_BARE)
    try:
        yield
    finally:
        _restore(hooked)


def _restore(states: Sequence[Mapping[str, Any]]) -> None:
    for place, state in zip(_HOOKED, states, strict=True):
        now = dict(vars(place))
        for name, value in now.items():
            if callable(value) and name not in state:
                delattr(place, name)
        for name, value in state.items():
            if callable(value) and now.get(name) is not value:
                setattr(place, name, value)


@contextmanager
def noop_callback() -> Iterator[None]:
    with unhooked(), dspy.context(callbacks=[BaseCallback()]):
        yield


def watched() -> AbstractContextManager[Any]:
    return streamll.configure([discard])


# --- measuring ----------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """Seconds of one call."""

    wall: float
    cpu: float


type Block = Callable[[], Cost]
type Setting = Callable[[], AbstractContextManager[Any]]


def calling(call: Callable[[], object], times: int) -> Block:
    def block() -> Cost:
        call()
        wall, cpu = time.perf_counter(), time.thread_time()
        for _ in range(times):
            call()
        return Cost((time.perf_counter() - wall) / times, (time.thread_time() - cpu) / times)

    return block


def awaiting(call: Callable[[], Any], times: int) -> Block:
    async def block() -> Cost:
        await call()
        wall, cpu = time.perf_counter(), time.thread_time()
        for _ in range(times):
            await call()
        return Cost((time.perf_counter() - wall) / times, (time.thread_time() - cpu) / times)

    return lambda: _loop.run_until_complete(block())


_loop = asyncio.new_event_loop()


def rounds(variants: Mapping[str, tuple[Setting, Block]], blocks: int) -> dict[str, list[Cost]]:
    """Run a block of each variant in turn, each round beginning with another; workers finish in between."""
    costs: dict[str, list[Cost]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(max(3, blocks // 3) if QUICK else blocks):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            setting, block = variants[name]
            with setting():
                costs[name].append(block())
            streamll.flush()
    return costs


def over(costs: Sequence[Cost], base: Sequence[Cost], what: str) -> float:
    """Return the median paired difference in microseconds."""
    return median(getattr(c, what) - getattr(b, what) for c, b in zip(costs, base, strict=True)) * 1e6


def spread(costs: Sequence[Cost], base: Sequence[Cost], what: str) -> str:
    differences = [(getattr(c, what) - getattr(b, what)) * 1e6 for c, b in zip(costs, base, strict=True)]
    low, _, high = quantiles(differences, n=4)
    return f"{low:.4g} .. {high:.4g}"


def typical(costs: Sequence[Cost], what: str) -> float:
    return median(getattr(cost, what) for cost in costs) * 1e6


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    cells = [
        [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in [head, *rows]
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for row in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def goal(text: str, value: float, limit: float, *, unit: str = "", at_least: bool = False) -> None:
    met = value >= limit if at_least else value <= limit
    sign, verdict = "≥" if at_least else "≤", "met" if met else "missed"
    print(f"  goal {text} {sign} {limit:g}{unit}: {value:.3g}{unit} {verdict}")


# --- tokens -------------------------------------------------------------------------------------------------


def tokens() -> None:
    """The marginal cost of a token: (a watched call that streams - a bare call that does not) / tokens."""
    rows: list[list[object]] = []
    goals: list[tuple[str, float, float, str, bool]] = []
    for length, times, blocks in ((500, 10, 21), (5_000, 2, 15)):
        predict = program(length)
        for kind in ("sync", "async"):
            call = {
                "sync": calling(lambda p=predict: p(question="?"), times),
                "async": awaiting(lambda p=predict: p.acall(question="?"), times),
            }[kind]
            streamify = awaiting(_streamified(program(length), kind), 1)
            variants = {
                "bare": (unhooked, call),
                "streamll": (watched, call),
                "streamify": (unhooked, streamify),
            }
            costs = rounds(variants, blocks)
            wall, cpu, peer = (
                over(costs[name], costs["bare"], what) / length
                for name, what in (("streamll", "wall"), ("streamll", "cpu"), ("streamify", "wall"))
            )
            rows.append([kind, length, wall, cpu, peer, f"{peer / wall:.3g}x", f"{peer / cpu:.3g}x"])
            where = f"({kind}, {length:,} tokens)"
            goals += [
                (f"a token, cpu {where}", cpu, 6, " µs", False),
                (f"a token, wall {where}", wall, 6, " µs", False),
                (f"cheaper than streamify + StreamListener {where}", peer / wall, 30, "x", True),
            ]
    head = ["", "tokens", "wall", "cpu", "streamify", "÷ wall", "÷ cpu"]
    table("A token, µs over a bare call that does not stream", head, rows)
    for text, value, limit, unit, at_least in goals:
        goal(text, value, limit, unit=unit, at_least=at_least)


def _streamified(predict: dspy.Predict, kind: str) -> Callable[[], Any]:
    listener = dspy.streaming.StreamListener("answer", allow_reuse=True)
    streaming = dspy.streamify(predict, stream_listeners=[listener], is_async_program=kind == "async")

    async def read() -> None:
        async for _ in streaming(question="?"):
            pass

    return read


# --- calls --------------------------------------------------------------------------------------------------

CALLS = 60
"""A block is several of the interpreter's 5 ms: else the workers' share would fall outside of it."""
NO_TOKENS = [f"{span}_*" for span in SPANS]


def calls() -> None:
    """One `dspy.Predict` call whose engine cannot stream: 12 events of five spans."""
    predict = program(20, streams=False)
    call = calling(lambda: predict(question="?"), CALLS)
    acall = awaiting(lambda: predict.acall(question="?"), CALLS)
    variants: dict[str, tuple[Setting, Block]] = {
        "bare": (unhooked, call),
        "no-op callback": (noop_callback, call),
        "streamll": (watched, call),
        "streamll, event_filter=set()": (lambda: streamll.configure([discard], event_filter=set()), call),
        "streamll, configure([])": (lambda: streamll.configure([]), call),
        "bare, async": (unhooked, acall),
        "no-op callback, async": (noop_callback, acall),
        "streamll, async": (watched, acall),
    }
    costs = rounds(variants, 30)
    rows: list[list[object]] = []
    for name in variants:
        bare = costs["bare, async" if "async" in name else "bare"]
        wall, cpu = over(costs[name], bare, "wall"), over(costs[name], bare, "cpu")
        rows.append([name, typical(costs[name], "wall"), wall, spread(costs[name], bare, "wall"), cpu])
    table("A call, µs", ["", "a call", "over bare", "quartiles", "cpu over bare"], rows)
    added = {str(row[0]): float(str(row[2])) for row in rows}
    cpu = {str(row[0]): float(str(row[4])) for row in rows}
    goal("a call ÷ a no-op callback, wall", added["streamll"] / added["no-op callback"], 1.2, unit="x")
    goal("a call ÷ a no-op callback, cpu", cpu["streamll"] / cpu["no-op callback"], 1.2, unit="x")
    goal("stretch: the same", added["streamll"] / added["no-op callback"], 0.15, unit="x")
    bare = typical(costs["bare"], "wall")
    for name in ("streamll, event_filter=set()", "streamll, configure([])"):
        goal(f"a call, {name}", 100 * added[name] / bare, 2, unit=" %")
    _unwanted_tokens()


def _unwanted_tokens() -> None:
    """A token nobody wants: an engine that could stream it against one that cannot."""
    length = 5_000
    streaming, whole = program(length), program(length, streams=False)
    variants: dict[str, tuple[Setting, Block]] = {}
    settings: dict[str, Setting] = {
        "excluded by event_filter": lambda: streamll.configure([discard], event_filter=NO_TOKENS),
        "configure([])": lambda: streamll.configure([]),
    }
    for name, setting in settings.items():
        variants[name] = (setting, calling(lambda: streaming(question="?"), 5))
        variants[name + " base"] = (setting, calling(lambda: whole(question="?"), 5))
    costs = rounds(variants, 21)
    for name in settings:
        goal(f"a token, {name}", over(costs[name], costs[name + " base"], "wall") / length, 0.2, unit=" µs")


# --- peers --------------------------------------------------------------------------------------------------

PEERS: Mapping[str, tuple[str, float]] = {
    "opentelemetry-instrumentation-genai-dspy": ("otel", 1),
    "openinference-instrumentation-dspy": ("openinference", 4),
    "mlflow autolog": ("mlflow", 7),
}
"""The peer, and how many times cheaper than it streamll is to be."""


def peers() -> None:
    """One `dspy.Predict` call, each peer in a process of its own together with bare and streamll."""
    rows: list[list[object]] = []
    goals: list[tuple[str, float, float]] = []
    for name, (key, limit) in PEERS.items():
        asked = [sys.executable, __file__, "--peer", key, *(["--quick"] if QUICK else [])]
        ran = subprocess.run(
            asked, capture_output=True, text=True, check=False, env=os.environ | _PEER_ENVIRONMENT
        )
        told = json.loads(ran.stdout.splitlines()[-1]) if ran.returncode == 0 else {}
        if "peer" not in told:
            why = "not installed" if "ModuleNotFoundError" in ran.stderr else ran.stderr.strip()[-120:]
            rows.append([name, why, "", "", "", ""])
            continue
        wall, cpu = told["peer"] / told["streamll"], told["peer cpu"] / told["streamll cpu"]
        rows.append(
            [name, told["peer"], told["streamll"], f"{wall:.3g}x", told["streamll cpu"], f"{cpu:.3g}x"]
        )
        goals += [(f"cheaper than {name}, wall", wall, limit), (f"cheaper than {name}, cpu", cpu, limit)]
    table("A call among peers, µs over bare", ["", "peer", "streamll", "÷", "cpu", "÷ cpu"], rows)
    for text, value, limit in goals:
        goal(text, value, limit, unit="x", at_least=True)


_PEER_ENVIRONMENT = {
    "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
    "GIT_PYTHON_REFRESH": "quiet",
}


def peer(key: str) -> None:
    """In the process of one peer: print what it and streamll add to a call."""
    settings = {"otel": _otel, "openinference": _openinference, "mlflow": _mlflow}[key]()
    predict = program(20, streams=False)
    call = calling(lambda: predict(question="?"), CALLS)
    seen = _events(predict)
    costs = rounds({"bare": (unhooked, call), "peer": (settings, call), "streamll": (watched, call)}, 25)
    if _events(predict) != seen:
        raise RuntimeError(f"{key} left something behind: streamll no longer reports {seen}")
    added = {name: over(costs[name], costs["bare"], "wall") for name in ("peer", "streamll")}
    added |= {f"{name} cpu": over(costs[name], costs["bare"], "cpu") for name in ("peer", "streamll")}
    print(json.dumps(added))


def _events(predict: dspy.Predict) -> list[str]:
    seen: list[str] = []
    with streamll.configure([lambda event: seen.append(event.event_type)]):
        predict(question="?")
        streamll.flush()
    return seen


def _spans() -> Any:
    """A tracer provider as the peers' guides set one up, with an exporter that discards."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Discard(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Discard()))
    return provider


def _instrumentor(instrumentor: Any) -> Setting:
    provider = _spans()

    @contextmanager
    def instrumented() -> Iterator[None]:
        with unhooked():
            instrumentor.instrument(tracer_provider=provider)
            try:
                yield
            finally:
                instrumentor.uninstrument()

    return instrumented


def _otel() -> Setting:
    from opentelemetry.instrumentation.genai.dspy import DSPyInstrumentor

    return _instrumentor(DSPyInstrumentor())


def _openinference() -> Setting:
    from openinference.instrumentation.dspy import DSPyInstrumentor

    return _instrumentor(DSPyInstrumentor())


def _mlflow() -> Setting:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{tempfile.mkdtemp()}/mlflow.db")
    from mlflow.tracing.export.mlflow_v3 import MlflowV3SpanExporter

    MlflowV3SpanExporter.export = lambda _self, _spans: None

    @contextmanager
    def autologged() -> Iterator[None]:
        with unhooked():
            mlflow.dspy.autolog(silent=True)
            try:
                yield
            finally:
                mlflow.dspy.autolog(disable=True, silent=True)

    return autologged


# --- emit ---------------------------------------------------------------------------------------------------


def emits() -> None:
    """An event of the program's own, in bursts, against appending what would have to be kept of it."""
    burst, data, kept, counter = 2_000, {"found": 3, "query": "q"}, list[object](), count()

    def append() -> None:
        kept.clear()
        for _ in range(burst):
            kept.append((next(counter), time.time_ns(), {**data}))

    def emit() -> None:
        for _ in range(burst):
            streamll.emit("found", data)

    def traced() -> AbstractContextManager[Any]:
        stack = ExitStack()
        stack.enter_context(watched())
        stack.enter_context(streamll.trace("burst"))
        return stack

    variants: dict[str, tuple[Setting, Block]] = {
        "append": (nullcontext, calling(append, 1)),
        "emit": (traced, calling(emit, 1)),
    }
    costs = rounds(variants, 41)
    each = {(n, what): typical(costs[n], what) / burst for n in variants for what in ("wall", "cpu")}
    rows = [[name, each[name, "wall"], each[name, "cpu"]] for name in variants]
    table("An event of one's own, µs, in bursts of 2,000", ["", "wall", "cpu"], rows)
    for what in ("cpu", "wall"):
        goal(f"emit ÷ appending a tuple, {what}", each["emit", what] / each["append", what], 3, unit="x")


# --- sinks --------------------------------------------------------------------------------------------------


def sinks() -> None:
    """100 tokens, one a millisecond, under sinks that misbehave."""
    predict = program(100, seconds_a_token=0.001)
    results: set[str] = set()
    release = threading.Event()

    def call() -> None:
        results.add(predict(question="?").answer)

    def hang(_event: object) -> None:
        release.wait()

    def fail(_event: object) -> None:
        raise OSError("no")

    def slow(_event: object) -> None:
        if not release.is_set():
            time.sleep(0.02)

    kinds = {"discarding": discard, "hanging": hang, "raising": fail, "20 ms": slow}
    costs: dict[str, list[Cost]] = {name: [] for name in kinds}
    for turn in range(4 if QUICK else 12):
        for name in [*kinds][turn % 4 :] + [*kinds][: turn % 4]:
            release.clear()
            with streamll.configure([kinds[name]]):
                costs[name].append(calling(call, 2)())
                release.set()
    base = costs["discarding"]
    rows = [
        [n, typical(c, "wall") / 1e3, over(c, base, "wall") / 1e3, spread(c, base, "wall")]
        for n, c in costs.items()
    ]
    table(
        "A call of 100 tokens at 1 ms, by sink, ms", ["", "a call", "over discarding", "quartiles, µs"], rows
    )
    for name, _, more, _ in rows[1:]:
        goal(f"latency, {name} sink", 100 * float(str(more)) / float(str(rows[0][1])), 5, unit=" %")
    print(f"  goal the result is the same: {'met' if len(results) == 1 else 'missed'}")


# --- memory -------------------------------------------------------------------------------------------------


def growth() -> None:
    """What stays behind after 10,000 executions."""
    predict, executions = program(3), 3_000 if QUICK else 10_000
    with watched():
        tracemalloc.start()
        before = _standing(lambda: predict(question="?"), 1_000)
        after = _standing(lambda: predict(question="?"), executions)
        tracemalloc.stop()
    rows = [[what, getattr(before, what), getattr(after, what)] for what in ("bytes", "objects", "threads")]
    table(f"{executions:,} executions later", ["", "before", "after"], rows)
    leaked = (after.bytes - before.bytes) / executions
    goal("growth, bytes an execution (the smallest object is 16)", leaked, 10)
    goal("growth, objects", after.objects - before.objects, 100)
    goal("growth, threads", after.threads - before.threads, 0)


@dataclass
class Standing:
    bytes: int
    objects: int
    threads: int


def _standing(call: Callable[[], object], times: int) -> Standing:
    for _ in range(times):
        call()
    streamll.flush()
    gc.collect()
    return Standing(tracemalloc.get_traced_memory()[0], len(gc.get_objects()), threading.active_count())


def pending() -> None:
    """What 100,000 events that wait for a hanging sink take."""
    predict, release = program(5_000), threading.Event()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    with streamll.configure([lambda _event: release.wait()]):
        for _ in range(20):
            predict(question="?")
        streamll.flush(3)
        gc.collect()
        waiting = tracemalloc.get_traced_memory()[0] - before
        release.set()
    tracemalloc.stop()
    goal("100,000 events that wait", waiting / 1e6, 100, unit=" MB")


def noise() -> str:
    """How much the same work differed on this machine: a fixed loop, twenty times."""
    loop = calling(lambda: sum(range(20_000)), 20)
    walls = [loop().wall * 1e6 for _ in range(20)]
    low, middle, high = quantiles(walls, n=4)
    load = os.getloadavg()[0]
    return f"load {load:.1f}, a fixed loop takes {middle:.0f} µs, quartiles {low:.0f} .. {high:.0f}"


def main() -> None:
    logging.getLogger("streamll").setLevel(logging.ERROR)  # the sinks that fail on purpose
    dspy.configure(disable_history=True, max_trace_size=0)  # DSPy's own memory of past calls
    if "--peer" in sys.argv:
        peer(sys.argv[sys.argv.index("--peer") + 1])
        return
    print(f"Python {sys.version.split()[0]}, DSPy {dspy.__version__}, {os.cpu_count()} cores; {noise()}")
    only = [name for name in SECTIONS if name in sys.argv]
    for name, section in SECTIONS.items():
        if not only or name in only:
            section()
    print(f"\n{noise()}")


SECTIONS = {f.__name__: f for f in (tokens, calls, peers, emits, sinks, growth, pending)}

if __name__ == "__main__":
    main()
