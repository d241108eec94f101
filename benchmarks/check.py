"""`mkspy.check` beside the LibCST parser it stands on: CPU per program and programs per second, one run.

    uv run python benchmarks/check.py
    uv run python benchmarks/check.py --fuzz 100000

Rounds are interleaved and medians taken. `--fuzz` mutates the programs of the test corpus, checks each in
both profiles, and reports the slowest and whatever the gate failed on; a crash would end the run.
"""

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import libcst as cst
from mkspy.check import Report, check

ROUNDS = 15
CORPUS = Path(__file__).parent.parent / "packages/mkspy/tests/corpus"
MAX_BYTES = 32 * 1024
PIECES = (
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "'",
        '"',
        '"""',
        "f'{",
        ":",
        ",",
        "\n",
        "\r",
        "\t",
        "    ",
        "\\",
        "#",
        "@",
        "**",
    ),
    *(
        "\x00",
        "\ufeff",
        "\u202e",
        "\ud800",
        "é",
        "\uff45",
        "lambda ",
        "async ",
        "await ",
        "yield ",
        "class ",
        "def ",
        "if ",
    ),
    *(
        "return ",
        "import os",
        "dspy.",
        "self.",
        "->",
        ":=",
        "1e999",
        "0x",
        "del ",
        "match x:",
        "case _:",
        "type X = ",
    ),
)


def _milliseconds(run: Callable[[], object]) -> float:
    began = process_time()
    run()
    return (process_time() - began) * 1e3


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def _programs() -> dict[str, str]:
    named = {
        path.stem: _text(path) for kind in ("candidates", "valid") for path in (CORPUS / kind).glob("*.py")
    }
    by_length = sorted(named.items(), key=lambda pair: len(pair[1].splitlines()))
    chosen = [by_length[at * (len(by_length) - 1) // 5] for at in range(6)]
    return dict(chosen)


def compare() -> None:
    """Print the cost of the gate, by program, beside that of the parse."""
    head = ("lines", "parse", "project", "ratio", "candidate", "ratio", "per s")
    widths = (6, 9, 9, 7, 11, 7, 8)
    print(
        " " * 26 + "".join(f"{text:>{width}}" for text, width in zip(head, widths, strict=True)) + "   (ms)"
    )
    for name, source in _programs().items():
        runs: tuple[Callable[[], object], ...] = (
            lambda source=source: cst.parse_module(source),
            lambda source=source: check(source, profile="project"),
            lambda source=source: check(source),
        )
        times = list(zip(*[[_milliseconds(run) for run in runs] for _ in range(ROUNDS)], strict=True))
        parse, project, candidate = map(median, times)
        lines, found = len(source.splitlines()), len(check(source).findings)
        print(
            f"{name:26}{lines:>6}{parse:>9.2f}{project:>9.2f}{project / parse:>6.1f}x"
            f"{candidate:>11.2f}{candidate / parse:>6.1f}x{1e3 / candidate:>8.0f}   {found} findings"
        )


def _mutated(source: str, others: list[str], rng: random.Random) -> str:
    for _ in range(rng.randint(1, 6)):
        at, length = rng.randrange(len(source) + 1), rng.choice((0, 0, 1, 2, 8, 40))
        other = rng.choice(others)
        start = rng.randrange(len(other) + 1)
        piece = rng.choice(
            (
                rng.choice(PIECES),
                rng.choice(PIECES) * rng.choice((2, 50, 2_000)),
                other[start : start + rng.randrange(200)],
                chr(rng.randrange(0x110000)),
                source[at : at + 300] * rng.choice((1, 1, 20)),
            )
        )
        source = source[:at] + piece + source[at + length :]
    return source[:MAX_BYTES]


def fuzz(times: int, seed: int) -> int:
    """Check `times` mutated programs; return how many the gate failed on or took longer than a second for."""
    rng = random.Random(seed)
    sources = [text for path in sorted(CORPUS.glob("*/*.py")) if (text := _text(path))]
    slowest, began, passed, bad = 0.0, perf_counter(), 0, 0
    for number in range(times):
        source = _mutated(rng.choice(sources), sources, rng)
        for profile in ("candidate", "project"):
            start = process_time()
            report: Report = check(source, profile=profile)
            seconds = process_time() - start
            slowest = max(slowest, seconds)
            passed += report.ok
            if seconds > 1 or any(one.rule == "internal-error" for one in report.findings):
                bad += 1
                print(f"{number} {profile} {seconds:.2f} s {report.findings[:1]} {source[:200]!r}")
    took = perf_counter() - began
    print(
        f"{times:,} mutated sources, both profiles, {took:.0f} s: "
        f"slowest {slowest:.3f} s, {passed:,} reports without an error, {bad} bad"
    )
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fuzz", type=int, metavar="N", help="check N mutated sources instead")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.fuzz:
        sys.exit(bool(fuzz(given.fuzz, given.seed)))
    compare()


if __name__ == "__main__":
    main()
