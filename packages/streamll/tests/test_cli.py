"""The commands that read, record and replay a log, as somebody in a shell uses them."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from logs import event, new_name, run_of
from streamll import Event, cli, decode, encode
from streamll.eventlog import EventLog


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/events.db"


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli.main, arguments, input=stdin)


def ran(*arguments: str, stdin: str | None = None) -> Result:
    """Return the result of a command that has to succeed."""
    done = run(*arguments, stdin=stdin)
    assert done.exit_code == 0, done.output
    return done


def stored(url: str, *runs: Sequence[Event]) -> None:
    log = EventLog(url)
    for events in runs:
        log.append(events)
    log.close()


def jsonl(events: Sequence[Event]) -> str:
    return "".join(f"{encode(one).decode()}\n" for one in events)


@contextmanager
def running(*arguments: str, stdout: int = subprocess.PIPE) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "streamll", *arguments]
    process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


# --- tail ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
def test_tail_shows_an_execution_a_line_per_event(scheme: str, url: str) -> None:
    url = url if scheme == "sqlite" else f"memory:{new_name()}"
    wanted, other = run_of(2), run_of(3)
    stored(url, wanted, other)

    shown = ran("tail", url, "--execution", wanted[0].execution_id)

    assert shown.stdout == '[START] QA\n[TOKEN] answer: "t1 "\n[TOKEN] answer: "t2 "\n[END] QA\n'
    assert shown.stderr == ""


def test_tail_as_json_is_the_wire_format(url: str) -> None:
    stored(url, run_of(1), newest := run_of(3))

    assert ran("tail", url, "--last", "--json").stdout == jsonl(newest)


def test_a_filter_by_type_takes_patterns_and_any_of_them(url: str) -> None:
    stored(url, events := run_of(2))

    shown = ran("tail", url, "--last", "--json", "--type", "execution_*", "--type", "tok?n")
    ends = ran("tail", url, "--last", "--json", "--type", "*_end")

    assert shown.stdout == jsonl(events)
    assert ends.stdout == jsonl(events[-1:])


@pytest.mark.parametrize(
    ("where", "sequences"),
    [
        ("token=t2 ", [2]),
        ("token_index=2", [2]),
        ("final=true", [4]),
        ("user=a=b", [0, 1, 2, 3, 4]),
        ("x=", []),
    ],
)
def test_a_filter_by_data_compares_words(url: str, where: str, sequences: list[int]) -> None:
    *events, last = run_of(3, user="a=b")
    stored(url, [*events, msgspec.structs.replace(last, data=last.data | {"final": True})])

    shown = ran("tail", url, "--last", "--json", "--where", where)

    assert [decode(line).sequence for line in shown.stdout.splitlines()] == sequences


def test_filters_hold_together_for_lines_too(url: str) -> None:
    stored(url, run_of(3))

    shown = ran(
        "tail", url, "--last", "--type", "token", "--where", "token_index=2", "--where", "field=answer"
    )

    assert shown.stdout == '[TOKEN] answer: "t2 "\n'


def test_the_target_comes_from_the_option_or_the_environment(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog(url, "other")
    log.append(run_of(1))
    log.close()

    assert ran("executions", url).stdout == ""
    assert ran("executions", url, "--target", "other").stdout
    monkeypatch.setenv("STREAMLL_TARGET", "other")
    assert ran("tail", url, "--last").stdout.startswith("[START] QA\n")


def test_the_last_execution_is_waited_for_and_the_waiting_is_told(url: str) -> None:
    with running("tail", url, "--last") as tail:
        assert tail.stderr
        assert "waiting for the first one" in tail.stderr.readline()
        stored(url, run_of(1))
        shown, errors = tail.communicate(timeout=20)

    assert (tail.returncode, shown, errors) == (0, '[START] QA\n[TOKEN] answer: "t1 "\n[END] QA\n', "")


def test_an_execution_that_nothing_is_known_of_is_waited_for_too(url: str) -> None:
    events = run_of(1)

    with running("tail", url, "--json", "--execution", events[0].execution_id) as tail:
        assert tail.stderr
        assert f"Nothing of execution {events[0].execution_id!r}" in tail.stderr.readline()
        stored(url, events)
        shown, _ = tail.communicate(timeout=20)

    assert shown == jsonl(events)


def test_following_shows_what_comes_until_it_is_interrupted(url: str) -> None:
    first, second = run_of(1), run_of(2)
    stored(url, first)

    with running("tail", url, "--json", "--from", "earliest") as tail:
        assert tail.stdout
        seen = [tail.stdout.readline() for _ in first]
        stored(url, second)
        seen += [tail.stdout.readline() for _ in second]
        tail.send_signal(signal.SIGINT)
        rest = tail.communicate(timeout=20)

    assert "".join(seen) == jsonl([*first, *second])
    assert (tail.returncode, *rest) == (130, "", "")


def test_following_begins_at_a_moment(url: str) -> None:
    then = datetime.now(UTC) - timedelta(hours=1)
    early = [msgspec.structs.replace(one, timestamp=then) for one in run_of(1)]
    stored(url, early, late := run_of(1))

    with running("tail", url, "--json", "--from", (then + timedelta(minutes=1)).isoformat()) as tail:
        assert tail.stdout
        assert decode(tail.stdout.readline()) == late[0]


@pytest.mark.parametrize("how", ["--json", "--type=*"])
def test_a_reader_that_leaves_ends_it_quietly_also_while_nothing_comes(url: str, how: str) -> None:
    stored(url, run_of(1))

    with running("tail", url, how, "--from", "earliest") as tail:
        assert tail.stdout
        assert tail.stdout.readline()
        tail.stdout.close()
        assert tail.wait(timeout=20) == 0
        assert tail.stderr
        assert tail.stderr.read() == ""


def on_terminal(*arguments: str) -> str:
    """Return what a command writes to a real terminal."""
    person, program = pty.openpty()
    with running(*arguments, stdout=program) as process:
        os.close(program)
        seen = b"".join(iter(lambda: _read(person), b""))
        assert process.wait(timeout=20) == 0
    os.close(person)
    return seen.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so when the other end of a terminal is closed
        return b""


def test_on_a_terminal_an_execution_is_a_tree(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(url, run_of(2))
    monkeypatch.setenv("TERM", "xterm-256color")

    seen = on_terminal("tail", url, "--last")

    assert "t1 t2" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)
    assert "[TOKEN]" not in seen


# --- executions ---------------------------------------------------------------------------------------------


def test_executions_are_listed_newest_first_and_aligned(url: str) -> None:
    stored(url, old := run_of(1, conversation_id="conv_1"), new := run_of(20, ended=False))

    head, first, second = ran("executions", url).stdout.splitlines()

    assert head.split() == ["execution", "status", "program", "started", "took", "events", "context"]
    assert (first.split()[:3], first.split()[-1]) == ([new[0].execution_id, "running", "QA"], "21")
    assert (second.split()[:2], second.split()[-1]) == (
        [old[0].execution_id, "ok"],
        'conversation_id="conv_1"',
    )
    assert head.index("events") == first.index(" 21") + 1 == second.index(" 3 ") + 1
    assert f"{old[0].timestamp.astimezone():%m-%d %H:%M:%S}" in second


def test_a_terminal_cuts_the_rows_that_are_too_long(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(url, run_of(1, user="a" * 100))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")

    head, row = on_terminal("executions", url).splitlines()

    assert "execution" in head
    assert "\x1b[32mok" in row
    assert row.endswith("…")


def test_executions_as_json_are_an_object_a_line_and_as_many_as_asked(url: str) -> None:
    stored(url, run_of(1), newest := run_of(1, user="ada"))

    shown = ran("executions", url, "--json", "--limit", "1").stdout

    assert shown.count("\n") == 1
    listed = json.loads(shown)
    assert (listed["execution_id"], listed["status"]) == (newest[0].execution_id, "ok")
    assert (listed["program"], listed["events"], listed["context"]) == ("QA", 3, {"user": "ada"})


def test_an_empty_log_says_so(url: str) -> None:
    listed = ran("executions", url)

    assert (listed.stdout, listed.stderr) == ("", "No executions in 'streamll_events' yet.\n")


def test_no_control_character_of_a_program_gets_through(url: str) -> None:
    stored(url, run_of(1, user="\x1b[2J"))

    assert "\x1b" not in ran("executions", url).stdout


# --- record and replay --------------------------------------------------------------------------------------


def test_what_is_recorded_is_replayed_byte_for_byte(url: str, tmp_path: Path) -> None:
    stored(url, events := run_of(5, text="ö\n\x00"))
    file = str(tmp_path / "run.jsonl")

    recorded = ran("record", url, file, "--last")
    replayed = ran("replay", file, "--to", "-", "--speed", "max")

    assert recorded.stderr == "7 events recorded.\n"
    assert replayed.stdout_bytes == Path(file).read_bytes() == jsonl(events).encode()


def test_a_replay_is_a_new_execution_and_the_same_otherwise(url: str) -> None:
    first, second = run_of(3, user="ada"), run_of(2)
    recording = jsonl([*first, *second])

    ids: list[str] = []
    for _ in range(2):
        replayed = ran("replay", "-", "--to", url, "--speed", "max", stdin=recording)
        ids += [line.split()[0] for line in replayed.stderr.splitlines()]

    assert len({*ids, first[0].execution_id, second[0].execution_id}) == 6
    for execution_id, original in zip(ids, [first, second] * 2, strict=True):
        lines = ran("tail", url, "--execution", execution_id, "--json").stdout.splitlines()
        again = [decode(line) for line in lines]
        assert [one.event_id for one in again] == [f"{execution_id}-{n}" for n in range(len(original))]
        assert datetime.now(UTC) - again[0].timestamp < timedelta(minutes=1)
        assert [_without_place(one) for one in again] == [_without_place(one) for one in original]


def _without_place(one: Event) -> Event:
    return msgspec.structs.replace(one, event_id="", execution_id="", timestamp=datetime.min)


def test_a_replay_keeps_the_distances_at_its_speed(url: str) -> None:
    began = datetime.now(UTC) - timedelta(days=1)
    after = [timedelta(seconds=seconds) for seconds in (0, 0.5, 0.4, 2, 2.4)]  # one clock went back
    events = [
        msgspec.structs.replace(one, timestamp=began + offset)
        for one, offset in zip(run_of(3), after, strict=True)
    ]

    before = time.monotonic()
    ran("replay", "-", "--to", url, "--speed", "10", stdin=jsonl(events))
    seconds = time.monotonic() - before

    times = [decode(line).timestamp for line in ran("tail", url, "--last", "--json").stdout.splitlines()]
    assert [(one - times[0]) / timedelta(milliseconds=1) for one in times] == [0, 50, 50, 210, 250]
    assert 0.25 <= seconds < 1.5


def test_what_delays_a_replay_does_not_add_up() -> None:
    from streamll.replay import paced

    dues = [timedelta(milliseconds=20 * number) for number in range(25)]

    began = time.monotonic()
    for _ in paced(dues):
        time.sleep(0.015)

    assert time.monotonic() - began < 0.75  # it would be 0.86


def test_what_is_due_at_one_moment_comes_together() -> None:
    from streamll.replay import paced

    dues = [timedelta(milliseconds=ms) for ms in (0, 0, 0, 100, 200, 200)]

    assert list(paced(dues)) == [slice(0, 3), slice(3, 4), slice(4, 6)]


def test_a_recording_is_never_overwritten(url: str, tmp_path: Path) -> None:
    stored(url, events := run_of(1))
    file = tmp_path / "run.jsonl"
    ran("record", url, str(file), "--last")

    again = run("record", url, str(file), "--last")

    assert (again.exit_code, file.read_text()) == (2, jsonl(events))
    assert "--append" in again.stderr
    ran("record", url, str(file), "--last", "--append")
    assert file.read_text() == jsonl(events) * 2


def test_recording_goes_on_until_it_is_interrupted(url: str, tmp_path: Path) -> None:
    stored(url, events := run_of(2))

    with running("record", url, "-", "--from", "earliest") as record:
        assert record.stdout
        lines = [record.stdout.readline() for _ in events]
        record.send_signal(signal.SIGINT)
        _, errors = record.communicate(timeout=20)

    assert "".join(lines) == jsonl(events)
    assert (record.returncode, errors) == (130, "4 events recorded.\n")


def test_a_recording_to_a_file_does_not_mind_who_reads_stdout(url: str, tmp_path: Path) -> None:
    events, file = run_of(1), tmp_path / "run.jsonl"

    with running("record", url, str(file), "--last") as record:
        assert record.stdout
        assert record.stderr
        assert "waiting" in record.stderr.readline()
        record.stdout.close()
        stored(url, events)
        assert record.wait(timeout=20) == 0

    assert file.read_text() == jsonl(events)


@pytest.mark.parametrize("bad", ['{"a": 1}', "no json", "\x00"])
def test_a_bad_line_is_named_before_anything_is_sent(url: str, bad: str) -> None:
    recording = f"{jsonl(run_of(1))}\n{bad}\n"

    failed = run("replay", "-", "--to", url, stdin=recording)

    assert failed.exit_code == 1
    assert "line 5: " in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert ran("executions", url).stdout == ""


# --- what goes wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tail", "localhost:6379"], "names no place for events"),
        (["executions", "sqlite:///no/such/place/e.db"], "unable to open database file"),
        (["tail", "redis://127.0.0.1:1"], "127.0.0.1:1"),
        (["record", "nats://127.0.0.1:1", "-"], "127.0.0.1:1"),
        (["replay", "-", "--to", "x:"], "names no place for events"),
        (["tail", "memory:", "--from", "nowhere"], "'nowhere' is no place to start"),
        (["record", "memory:", "/dev/null/x"], "Not a directory"),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_an_error_is_one_line_and_exit_1(arguments: list[str], said: str) -> None:
    failed = run(*arguments, stdin=jsonl([event("x", 0)]))

    assert failed.exit_code == 1
    assert said in failed.stderr
    assert (failed.stdout, failed.stderr.splitlines()[-1][:7]) == ("", "Error: ")
    assert "Traceback" not in failed.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["tail"],
        ["tail", "memory:", "--last", "--execution", "x"],
        ["record", "memory:", "-", "--last", "--from", "earliest"],
        ["tail", "memory:", "--where", "x"],
        ["tail", "memory:", "--from", "2026-13-01"],
        ["replay", "no-such-file.jsonl", "--to", "-"],
        ["replay", "-"],
        *(["replay", "-", "--to", "-", "--speed", speed] for speed in ("0", "-1", "nan", "fast")),
    ],
    ids=" ".join,
)
def test_bad_usage_is_exit_2(arguments: list[str]) -> None:
    failed = run(*arguments)

    assert (failed.exit_code, failed.stdout) == (2, "")
    assert "Usage: " in failed.stderr


@pytest.mark.parametrize("command", cli.main.commands)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_help_of_every_command_has_examples(command: str, option: str) -> None:
    shown = ran(command, option).stdout

    assert f"\n  Examples:\n    streamll {command}" in shown
