"""The `streamll` command."""

import asyncio
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO

import click
import msgspec
from dspy.utils.exceptions import LMError
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

import streamll
from streamll.core.events import Event, JsonValue, encode
from streamll.errors import StreamllError
from streamll.eventlog import EventLog
from streamll.replay import moved, offsets, paced, recording
from streamll.schema import asyncapi, event_schema
from streamll.sinks._wording import counted, named, took, visible
from streamll.tail import Wanted, each, each_to_stdout, shown
from streamll.transports.base import DEFAULT_TARGET, Start, Summary

QUESTIONS = ("How tall was the Pharos of Alexandria?", "What destroyed the Eddystone lighthouse?")

_INTERRUPTED = 130  # 128 + SIGINT, as a shell says it


class _Commands(click.Group):
    """Ends every command as a shell expects it, whatever stopped it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(_INTERRUPTED)
        except BrokenPipeError:  # `| head` has what it wanted; Python must not find the pipe broken at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except (StreamllError, LMError, OSError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamll", prog_name="streamll")
def main() -> None:
    """Stream a DSPy program's inner workings to its users, as they happen.

    A URL says where events are kept: sqlite:///events.db, redis://, rediss://, amqp://, amqps://, nats://.
    """


@main.command()
@click.option("--model", type=click.Path(path_type=Path), help="Another language model: a GGUF file.")
@click.option("--question", "questions", multiple=True, help="What to ask; may be given several times.")
def demo(model: Path | None, questions: Sequence[str]) -> None:
    """Watch a small DSPy program think, on a language model inside this process.

    The program looks a passage up in a bundled text and answers from it. It needs no network, no key and no
    terminal: piped, it prints one line per event.

    \b
    Examples:
      streamll demo
      streamll demo --question "Who lit the Pharos?"
    """
    import dspy

    from streamll.demo import Handbook

    try:
        from streamll import local
    except ImportError as error:
        raise StreamllError("The embedded model needs DSPy 3.4 or later: uv add 'dspy>=3.4'") from error
    questions, began = questions or QUESTIONS, perf_counter()
    with dspy.context(lm=local.lm(model, max_tokens=128), adapter=dspy.JSONAdapter()):
        program = Handbook()
        for question in questions:
            click.secho(question, bold=True)
            program(question=question)
            streamll.flush()
            click.echo()
    click.echo(f"{len(questions)} asked, {perf_counter() - began:.1f} s")


# --- reading a log ------------------------------------------------------------------------------------------

_tell = partial(click.echo, err=True)

_target = click.option(
    "--target",
    envvar="STREAMLL_TARGET",
    default=DEFAULT_TARGET,
    show_default=True,
    show_envvar=True,
    help="Name of the log at URL.",
)


def _start(_ctx: click.Context, _option: click.Parameter, text: str | None) -> Start | None:
    if text is None or not re.match(r"\d{4}-\d\d-\d\d", text):
        return text
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}; expected 2026-10-01T14:30 or the like.") from error


def _pairs(_ctx: click.Context, _option: click.Parameter, texts: Sequence[str]) -> Mapping[str, str]:
    for text in texts:
        if "=" not in text:
            raise click.BadParameter(f"{text!r} is no KEY=VALUE.")
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


_SELECTION = (
    click.option(
        "--execution", "execution_id", metavar="ID", help="Read this execution to its end, then exit."
    ),
    click.option("--last", is_flag=True, help="Read the newest execution to its end; wait if there is none."),
    click.option(
        "--from",
        "start",
        metavar="PLACE",
        callback=_start,
        help="Follow everything from here: latest (default), earliest, a cursor, or a timestamp (ISO 8601).",
    ),
)


def _selects[Command: Callable[..., Any]](command: Command) -> Command:
    """Add the options that say which events of a log to read."""
    for option in reversed(_SELECTION):
        command = option(command)
    return command


def _wanted(execution_id: str | None, last: bool, start: Start | None, **filters: Any) -> Wanted:
    if (execution_id is not None) + last + (start is not None) > 1:
        raise click.UsageError("--execution, --last and --from say different things; give one of them.")
    return Wanted(execution_id=execution_id, newest=last, start=start or "latest", **filters)


@main.command()
@click.argument("url")
@_target
@_selects
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="PATTERN",
    help="Only events like token, lm_*, *_error; repeatable.",
)
@click.option(
    "--where",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_pairs,
    help="Only events with this in `data`; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the wire format, an event a line.")
def tail(
    url: str, target: str, types: Sequence[str], where: Mapping[str, str], as_json: bool, **which: Any
) -> None:
    """Show events as they happen.

    With --execution or --last, show that one from its beginning to its end. On a terminal every execution is
    a tree that grows in place; piped, or with --type, each event is a line.

    \b
    Examples:
      streamll tail redis://localhost:6379
      streamll tail sqlite:///events.db --last
      streamll tail amqp://guest:guest@localhost --type 'lm_*' --type '*_error'
      streamll tail nats://localhost --where conversation_id=conv_123
      streamll tail sqlite:///events.db --from earliest --json | jq -r .event_type
    """
    wanted = _wanted(**which, types=types, where=where)
    log = EventLog(url, target)
    if wanted.follows and sys.stdout.isatty():
        _tell(f"Following {target!r}; Ctrl-C ends.")
    if as_json:
        asyncio.run(each_to_stdout(log, wanted, _print_json, tell=_tell))
    else:
        with shown(wanted) as show:
            asyncio.run(each_to_stdout(log, wanted, show, tell=_tell))


def _print_json(event: Event) -> None:
    _print_line(encode(event))


def _print_line(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


@main.command()
@click.argument("url")
@click.argument("file", type=click.Path(dir_okay=False, writable=True, allow_dash=True))
@_target
@_selects
@click.option("--append", is_flag=True, help="Add to a FILE that there is already.")
def record(url: str, file: str, target: str, append: bool, **which: Any) -> None:
    """Write events to FILE, for `streamll replay`.

    FILE may be - for stdout. Each line is one event in the wire format. Without --execution or --last it goes
    on until Ctrl-C.

    \b
    Examples:
      streamll record sqlite:///events.db run.jsonl --last
      streamll record redis://localhost:6379 all.jsonl --from earliest
      streamll record nats://localhost - | gzip > all.jsonl.gz
    """
    wanted = _wanted(**which)
    if file != "-" and not append and os.path.exists(file) and os.path.getsize(file):
        raise click.BadParameter(
            f"{file!r} has something in it; add --append, or name another.", param_hint="FILE"
        )
    log, count = EventLog(url, target), 0
    with click.open_file(file, "ab") as out:

        def write(event: Event) -> None:
            nonlocal count
            out.write(encode(event) + b"\n")
            out.flush()
            count += 1

        try:
            asyncio.run((each_to_stdout if file == "-" else each)(log, wanted, write, tell=_tell))
        finally:
            _tell(f"{counted(count, 'event') or 'Nothing'} recorded.")


def _factor(_ctx: click.Context, _option: click.Parameter, text: str) -> float:
    try:
        speed = inf if text == "max" else float(text)
    except ValueError:
        speed = 0.0
    if not speed > 0:
        raise click.BadParameter(f"{text!r}; expected a positive number, or max.")
    return speed


@main.command()
@click.argument("file", type=click.File("rb"))
@click.option("--to", required=True, metavar="URL", help="Where to; - prints the recorded lines unchanged.")
@click.option(
    "--speed", default="1", metavar="N", show_default=True, callback=_factor, help="Times as fast, or max."
)
@_target
def replay(file: BinaryIO, to: str, speed: float, target: str) -> None:
    """Let what was recorded happen again.

    FILE is what `streamll record` wrote; - is stdin. Events come with the same pauses as then. In a log every
    execution gets a new id, printed on stderr, and happens now: it can be replayed any number of times.

    \b
    Examples:
      streamll replay run.jsonl --to redis://localhost:6379
      streamll replay run.jsonl --to sqlite:///events.db --speed max
      streamll replay run.jsonl --to - --speed 10 | your-viewer
    """
    log = None if to == "-" else EventLog(to, target)
    found = recording(file)
    events, lines = [event for event, _ in found], [line for _, line in found]
    dues = offsets(events, speed)
    if log is None:
        for due in paced(dues):
            _print_line(b"\n".join(lines[due]))
        return
    new = moved(events, dues, datetime.now(UTC))
    ids = {after.execution_id: before.execution_id for after, before in zip(new, events, strict=True)}
    for new_id, old_id in ids.items():
        _tell(f"{new_id}  replays {visible(old_id)}")
    for due in paced(dues):
        log.append(new[due])


@main.command()
@click.argument("url")
@_target
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
def executions(url: str, target: str, limit: int, as_json: bool) -> None:
    """List executions, newest first.

    \b
    Examples:
      streamll executions sqlite:///events.db
      streamll executions redis://localhost:6379 --limit 100 --json | jq 'select(.status == "error")'
    """
    found = asyncio.run(EventLog(url, target).executions(limit))
    if not found:
        _tell(f"No executions in {target!r} yet.")
    elif as_json:
        for one in found:
            _print_line(msgspec.json.encode(one))
    else:
        _print_table([_row(one) for one in found])


_COLUMNS = ("execution", "status", "program", "started", "took", "events", "context")
_STYLES = {"ok": "green", "error": "red", "running": "cyan"}


def _row(one: Summary) -> Sequence[str]:
    return (
        visible(one.execution_id),
        one.status,
        visible(one.program or "-"),
        f"{one.started.astimezone():%m-%d %H:%M:%S}",
        took(one.seconds * 1000),
        str(one.events),
        named(one.context),
    )


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print a row a line: a terminal that is too narrow cuts it, a pipe gets all of it."""
    console = Console(highlight=False)
    widths = [max(map(cell_len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row, style in ((_COLUMNS, "dim"), *((row, "") for row in rows)):
        cells = zip(row, widths, strict=True)
        line = Text("  ", style).join(
            Text(set_cell_size(cell, n), _STYLES.get(cell, "")) for cell, n in cells
        )
        line.rstrip()
        if console.is_terminal:
            console.print(line, no_wrap=True, overflow="ellipsis")
        else:
            console.print(line, soft_wrap=True)


@main.command()
@click.option("--asyncapi", "as_asyncapi", is_flag=True, help="Print an AsyncAPI document of the transports.")
def schema(as_asyncapi: bool) -> None:
    """Print the JSON Schema of an event.

    --asyncapi adds where events lie in Redis, RabbitMQ and NATS. Both are JSON, and thereby YAML.

    \b
    Examples:
      streamll schema > event.schema.json
      streamll schema --asyncapi > asyncapi.json
    """
    document: Mapping[str, JsonValue] = asyncapi() if as_asyncapi else event_schema()
    _print_line(msgspec.json.format(msgspec.json.encode(document)))


if __name__ == "__main__":
    main()
