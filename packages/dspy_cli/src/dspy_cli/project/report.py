"""What would fail when a project is served, and why."""

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

from pydantic import JsonValue
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dspy_cli.errors import BadConfig, BadSetting, InvalidGateway
from dspy_cli.project import config as configuration
from dspy_cli.project.config import LOCAL, Config, ServerSettings
from dspy_cli.project.discover import Discovery, Failure, discover, read_config, root_of, traceback_of
from dspy_cli.project.programs import Program

type Status = Literal["ok", "warn", "FAIL"]

_COLOURS: Mapping[Status, str] = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}


class Row(NamedTuple):
    """One thing that was looked at."""

    status: Status
    kind: str
    subject: str
    detail: str = ""
    hint: str = ""


class Report(NamedTuple):
    """Everything that was looked at, and what the user's code raised meanwhile."""

    root: Path
    rows: Sequence[Row]
    tracebacks: Sequence[str] = ()

    @property
    def failed(self) -> int:
        """How many things would fail."""
        return sum(row.status == "FAIL" for row in self.rows)

    def summary(self) -> str:
        """Return the outcome in a sentence."""
        served = sum(row.kind == "program" and row.status != "FAIL" for row in self.rows)
        programs = f"{served} program{'s' * (served != 1)}"
        if self.failed:
            return f"{self.failed} of {len(self.rows)} checks failed; {programs} can be served."
        return f"Nothing would fail; {programs} can be served."

    def json(self) -> dict[str, JsonValue]:
        """Return the report as data."""
        rows: list[JsonValue] = [{**row._asdict(), "status": row.status.lower()} for row in self.rows]
        return {"ok": not self.failed, "root": str(self.root), "checks": rows}


type Checks = Mapping[str, Callable[[ServerSettings], object]]
"""By the name of a setting, what raises `BadSetting` where the server would refuse it."""


def examine(target: str | Path, *, checks: Checks = MappingProxyType({})) -> Report:
    """Look at all that `serve` would need. What the user's code prints goes to stderr.

    Args:
        target: A project directory, a `file.py`, or a `package.module:Name`.
        checks: The server's own, on settings that are of their type.

    Raises:
        NothingToServe: `target` is no project, file or module.
    """
    with redirect_stdout(sys.stderr):
        config, problems = _config(target)
        found = discover(target, config=config)
    models = list(_model_rows(found))
    rows = [
        *_config_rows(config, problems),
        *_server_rows(config, checks),
        *models,
        *_file_rows(found),
        *_program_rows(found, models),
        *_gateway_rows(found),
        *_unknown_programs(found),
    ]
    return Report(
        found.root, rows, [traceback_of(failure.cause) for failure in found.failures if failure.cause]
    )


def _config(target: str | Path) -> tuple[Config, Sequence[str]]:
    path = Path(target)
    try:
        return read_config(root_of(path.resolve() if path.exists() else Path.cwd())), ()
    except BadConfig as error:
        return Config(), error.problems


def _config_rows(config: Config, problems: Sequence[str]) -> Generator[Row]:
    for problem in problems:
        where, _, what = problem.partition(": ")
        yield Row("FAIL", "config", where, what)
    if config.path:
        models = len(config.models.registry)
        yield Row("ok", "config", config.path.name, f"{models} model{'s' * (models != 1)}")
    elif not problems:
        yield Row("ok", "config", configuration.FILE, "there is none: defaults")


def _server_rows(config: Config, checks: Checks) -> Generator[Row]:
    """Yield what is wrong with the server's settings although each is of its type."""
    for key, check in {"events": configuration.event_log, **checks}.items():
        try:
            check(config.server)
        except BadSetting as error:
            yield Row("FAIL", "config", config.where("server", key), str(error))


def _model_rows(found: Discovery) -> Generator[Row]:
    config = found.config
    used = {config.alias(program.name) for program in found.programs} | {config.models.default}
    for alias, entry in config.models.registry.items():
        try:
            configuration.make_lm(config, alias)
        except BadConfig as error:
            where, _, what = str(error).partition(": ")
            yield Row("FAIL" if alias in used else "warn", "model", alias, what, where)
        else:
            key = (
                f"key in {entry.env}"
                if entry.env
                else "in this process"
                if entry.model == LOCAL
                else "no key"
            )
            yield Row("ok", "model", alias, f"{entry.model}, {key}")


def _file_rows(found: Discovery) -> Generator[Row]:
    for path in found.files:
        failures = [failure for failure in found.failures if failure.path == path]
        names = [program.name for program in found.programs if program.source == path]
        yield from (_failure_row(failure, found.root) for failure in failures)
        if names:
            yield Row("ok", "file", _shown(path, found.root), ", ".join(names))
        elif not failures:
            yield Row("warn", "file", _shown(path, found.root), "no dspy.Module is defined in it")


def _failure_row(failure: Failure, root: Path) -> Row:
    line = f":{failure.line}" if failure.line else ""
    return Row("FAIL", "file", f"{_shown(failure.path, root)}{line}", failure.error, failure.hint)


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _program_rows(found: Discovery, models: Sequence[Row]) -> Generator[Row]:
    broken = {row.subject for row in models if row.status == "FAIL"}
    for program in found.programs:
        on = f"on {program.model}" if program.model else "on the model the code configures"
        through = f", through {type(program.gateway).__name__}" if program.gateway else ""
        status = "FAIL" if found.config.alias(program.name) in broken else "ok"
        unable = ", which cannot run" if status == "FAIL" else ""
        yield Row(
            status, "program", program.name, signature(program), f"{program.kind} {on}{unable}{through}"
        )


def _gateway_rows(found: Discovery) -> Generator[Row]:
    """Yield what is wrong with the gateways' paths together; each by itself was checked when defined."""
    from dspy_cli.gateways.api import Starts, paths, routes

    try:
        routes(found.programs, cast("Starts", None))  # nothing is run
    except InvalidGateway as error:
        yield Row("FAIL", "gateway", "path", str(error))
    for method, path in paths(found.programs, public=True):
        yield Row("ok", "gateway", f"{method} {path}", "public: it lets in callers without a key")


def _unknown_programs(found: Discovery) -> Generator[Row]:
    for name in found.config.program_models.keys() - {program.name for program in found.programs}:
        where = found.config.where("program_models", name)
        yield Row("warn", "config", where, f"program_models.{name}: there is no such program to serve")


# --- A program in one line ----------------------------------------------------------------------------------


def signature(program: Program) -> str:
    """Return what `program` takes and gives, as `question: str, k: int = 3 -> answer: str`."""
    takes, gives = program.input_schema(), program.output_schema()
    return f"{_fields(takes) or '()'} -> {_fields(gives) or '...'}"


def _fields(schema: Mapping[str, Any]) -> str:
    while "$ref" in schema:
        schema = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    required = schema.get("required", ())
    is_input = schema.get("additionalProperties") is False
    return ", ".join(
        f"{name}: {_type(field)}{_default(field) if is_input and name not in required else ''}"
        for name, field in schema.get("properties", {}).items()
    )


def _default(field: Mapping[str, Any]) -> str:
    return f" = {field['default']!r}" if "default" in field else " = ..."


_TYPES: Mapping[object, str] = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
    "null": "None",
}


def _type(schema: Mapping[str, Any]) -> str:
    match schema:
        case {"$ref": str(ref)}:
            return ref.rpartition("/")[2]
        case {"const": value}:
            return repr(value)
        case {"enum": [*values]}:
            return " | ".join(map(repr, values))
        case {"anyOf": [*choices]}:
            return " | ".join(map(_type, choices))
        case {"format": str(form)}:
            return form
        case {"type": "array", "items": items} if items:
            return f"list[{_type(items)}]"
        case _:
            return _TYPES.get(str(schema.get("type", "")), "any")


# --- Showing it ---------------------------------------------------------------------------------------------


def show(report: Report, console: Console) -> None:
    """Print the report: a table on a terminal, aligned text elsewhere."""
    if console.is_terminal:
        console.print(_table(report.rows))
    else:
        for line in _lines(report.rows):
            console.out(line, highlight=False)
    console.out(report.summary(), highlight=False)


def _table(rows: Sequence[Row]) -> Table:
    table = Table("", "", "", "", box=None, pad_edge=False, show_header=False)
    for row in rows:
        detail = Text(row.detail)
        if row.hint:
            detail.append(f"\n{row.hint}", "dim")
        table.add_row(
            Text(row.status, _COLOURS[row.status]), Text(row.kind, "dim"), Text(row.subject), detail
        )
    return table


def _lines(rows: Sequence[Row]) -> Generator[str]:
    kinds, subjects = (max((len(row[at]) for row in rows), default=0) for at in (1, 2))
    for row in rows:
        yield f"{row.status:<4}  {row.kind:<{kinds}}  {row.subject:<{subjects}}  {row.detail}".rstrip()
        if row.hint:
            yield f"{'':{kinds + subjects + 10}}{row.hint}"
