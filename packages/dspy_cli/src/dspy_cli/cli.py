"""The command line: parse, call, print. What a command needs is imported when it runs."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dspy_cli.errors import CannotAnswer, DspyCliError

if TYPE_CHECKING:
    from dspy_cli.server.auth import Auth


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dspy-cli")
def cli() -> None:
    """Create DSPy programs, serve them over HTTP, and watch them think."""


# --- new, generate ------------------------------------------------------------------------------------------

_STRATEGIES = (
    "Predict, ChainOfThought (CoT), ReAct, ProgramOfThought (PoT), Refine, BestOfN, MultiChainComparison"
)

_PROGRAM = (
    click.option(
        "-s",
        "--signature",
        metavar="TEXT",
        help='What goes in and what comes out. Default: "question -> answer".',
    ),
    click.option(
        "-m",
        "--module",
        "strategy",
        metavar="STRATEGY",
        default="ChainOfThought",
        show_default=True,
        help=f"How it is answered: {_STRATEGIES}.",
    ),
    click.option("-d", "--description", metavar="TEXT", default="", help="What the model is told to do."),
)
_force = click.option("--force", is_flag=True, help="Overwrite files that are there.")


def _describes_a_program[Command: Callable[..., None]](command: Command) -> Command:
    for option in reversed(_PROGRAM):
        command = option(command)
    return command


@cli.command()
@click.argument("name")
@_describes_a_program
@click.option("-p", "--program", metavar="PROGRAM", help="The program's name. Default: the project's.")
@click.option(
    "--model", metavar="MODEL", help="provider/name, or local (default): a small model inside the process."
)
def new(name: str, program: str | None, model: str | None, **options: str) -> None:
    """Make the project NAME in a directory of that name.

    It has one program, passes its own tests, and can be served at once. Nothing is asked.

    \b
    Types in a signature: str, int, float, bool, list[...], dict[..., ...], Literal['a', 'b'],
    Optional[...], date, datetime, dspy.Image, dspy.Audio, dspy.Code, dspy.File, dspy.History.

    \b
    Examples:
      dspy-cli new demo && cd demo && dspy-cli serve
      dspy-cli new helpdesk -p triage -s "ticket -> team: Literal['billing', 'tech'], urgent: bool"
      dspy-cli new research -m ReAct --model openai/gpt-5-mini
      dspy-cli new shop -m CoT -s "photo: dspy.Image -> title, tags: list[str]"
    """
    from dspy_cli.project import scaffold

    chosen = scaffold.Options(**options)
    _tell_made(scaffold.new_project(Path.cwd(), name, chosen, program=program, model=model), chosen.note)
    click.echo(f"\nNext:\n  cd {name}\n  dspy-cli serve")


@cli.group()
def generate() -> None:
    """Add a program, or a part of one, to the project you are in.

    \b
    Examples:
      dspy-cli generate scaffold triage -s "ticket -> team: Literal['billing', 'tech']" -m CoT
      dspy-cli generate gateway hook --kind api
    """


@generate.command("scaffold")
@click.argument("name")
@_describes_a_program
@_force
def generate_scaffold(name: str, force: bool, **options: str) -> None:
    """Add the program NAME: its signature, module and test.

    \b
    Examples:
      dspy-cli generate scaffold summary -s "text -> summary, words: int"
      dspy-cli generate scaffold answer -m ReAct -d "Answer from the notes."
    """
    from dspy_cli.project import scaffold

    chosen = scaffold.Options(**options)
    _tell_made(scaffold.new_scaffold(Path.cwd(), name, chosen, force=force), chosen.note)


@generate.command("signature")
@click.argument("name")
@_describes_a_program
@_force
def generate_signature(name: str, force: bool, **options: str) -> None:
    """Add the signature of the program NAME.

    \b
    Example:
      dspy-cli generate signature summary -s "text -> summary, words: int"
    """
    from dspy_cli.project import scaffold

    _tell_made(scaffold.new_signature(Path.cwd(), name, scaffold.Options(**options), force=force))


@generate.command("module")
@click.argument("name")
@_describes_a_program
@_force
def generate_module(name: str, force: bool, **options: str) -> None:
    """Add the module and test of the program NAME.

    Without -s it is built on signatures/NAME.py, which is read, not run.

    \b
    Examples:
      dspy-cli generate module summary -m CoT
      dspy-cli generate module summary -m Refine --force
    """
    from dspy_cli.project import scaffold

    chosen = scaffold.Options(**options)
    _tell_made(scaffold.new_module(Path.cwd(), name, chosen, force=force), chosen.note)


@generate.command("gateway")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["api", "cron"]),
    default="api",
    show_default=True,
    help="api: a path of its own; cron: a schedule.",
)
@_force
def generate_gateway(name: str, kind: str, force: bool) -> None:
    """Add the gateway NAME: another way to a program.

    \b
    Examples:
      dspy-cli generate gateway hook
      dspy-cli generate gateway nightly --kind cron
    """
    from dspy_cli.project import scaffold

    made = scaffold.new_gateway(Path.cwd(), name, kind, force=force)
    _tell_made(made)
    click.echo(f"\nAttach it to a program:\n{scaffold.how_to_attach(made[0])}")


def _tell_made(files: Sequence[Path], note: str = "") -> None:
    for file in files:
        click.echo(f"  {file.relative_to(Path.cwd(), walk_up=True)}")
    if note:
        click.echo(f"Note: {note}", err=True)


# --- keys ---------------------------------------------------------------------------------------------------


@cli.group()
def keys() -> None:
    """Make, list and revoke the API keys that `serve --auth` asks for.

    \b
    Examples:
      dspy-cli keys create --name ci
      KEY=$(dspy-cli keys create) && curl -H "Authorization: Bearer $KEY" localhost:8000/programs
      dspy-cli keys revoke 1a2b3c4d
    """


_project = click.option(
    "--project",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="Directory of the project, which keeps its keys in .dspy-cli/auth.db.  [default: this one]",
)


@keys.command("create")
@click.option("--name", default="", help="What the key is for, as `keys list` shows it.")
@_project
def create_key(name: str, project: Path) -> None:
    """Make an API key and print it, once: only its hash is kept."""
    known, key = _auth(project, make=True).create_key(name)
    click.echo(key)
    click.echo(f"Keep it: it is not shown again. `dspy-cli keys revoke {known.id}` ends it.", err=True)


@keys.command("list")
@_project
def list_keys(project: Path) -> None:
    """Show the id, name, birth and last use of each key."""
    found = _auth(project).known_keys()
    for key in found:
        used = f"used {key.used:%Y-%m-%d %H:%MZ}" if key.used else "never used"
        click.echo(f"{key.id}  made {key.created:%Y-%m-%d %H:%MZ}  {used:<22}  {key.name}".rstrip())
    if not found:
        click.echo(f"No keys in {project.resolve()}; `dspy-cli keys create` makes one.", err=True)


@keys.command("revoke")
@click.argument("id")
@_project
def revoke_key(id: str, project: Path) -> None:
    """Refuse a key from now on, and the browser sessions opened with it."""
    _auth(project).revoke_key(id)
    click.echo(f"Revoked {id}.")


def _auth(project: Path, *, make: bool = False) -> "Auth":
    """Return the keys of a project; none, and no file is made, where there is no file yet."""
    from dspy_cli.server.auth import FILE, Auth

    path = project / FILE
    return Auth(path if make or path.exists() else None, environ={})


# --- run ----------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("signature")
@click.argument("inputs", nargs=-1, metavar="[INPUT=VALUE]...")
@click.option(
    "-m", "--model", metavar="MODEL", help="An alias of the project, provider/name, local, or FILE.gguf."
)
@click.option("--strategy", metavar="STRATEGY", default="Predict", help="Predict (default), CoT or PoT.")
@click.option("--json", "as_json", is_flag=True, help="Print the outputs as a JSON object.")
@click.option("--debug", is_flag=True, help="Show the traceback of what goes wrong.")
def run(
    signature: str, inputs: Sequence[str], model: str | None, strategy: str, as_json: bool, debug: bool
) -> None:
    """Answer a SIGNATURE once, such as "question -> answer".

    On a terminal you watch the answer being written. The outputs alone go to stdout: one as plain text,
    several as "name: value" lines. One missing input is read from a pipe; INPUT=@FILE is read from a file.

    The model is the project's default inside a project, else what DSPY_MODEL names, else a small model inside
    the process, which needs no key and no network.

    \b
    Examples:
      dspy-cli run "question -> answer" question="What is the capital of France?"
      dspy-cli run -m openai/gpt-5-mini "text -> summary, tags: list[str]" text=@notes.txt --json
      dspy-cli run "a: int, b: int -> total: int" a=1 b=2 --strategy CoT
      git log -5 | dspy-cli run "commits -> release_notes" > notes.md
    """
    from dspy_cli.project.signature import parse

    parsed = parse(signature)  # before what takes a second to import
    from dspy_cli.project import adhoc, arguments

    values = arguments.inputs(parsed, inputs, sys.stdin)
    program, lm = adhoc.program(parsed, strategy), adhoc.lm(model, Path.cwd())
    try:
        with adhoc.shown():
            prediction = adhoc.answer(program, values, lm)
    except CannotAnswer as error:
        if debug and error.__cause__:
            raise error.__cause__ from None
        raise
    click.echo(adhoc.printed(adhoc.outputs(parsed, prediction), as_json=as_json))


# --- check --------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("target", metavar="[PATH]", default=".")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--traceback", is_flag=True, help="Also show where your code raised what it raised.")
def check(target: str, as_json: bool, traceback: bool) -> None:
    """Report what would fail when PATH is served, and why. Nothing is run but imports.

    PATH is a project (default: this one), a file.py, or package.module:ClassName. Looked at are
    dspy.config.yaml, the models and their keys, each file, each program. Exits 1 if anything would fail.

    \b
    Examples:
      dspy-cli check
      dspy-cli check demo --traceback
      dspy-cli check answer.py
      dspy-cli check --json | jq '.checks[] | select(.status == "fail")'
    """
    import json

    from rich.console import Console

    from dspy_cli.project import report
    from dspy_cli.server.guard import check_hosts, check_origins

    found = report.examine(target, checks={"allowed_hosts": check_hosts, "allowed_origins": check_origins})
    if as_json:
        click.echo(json.dumps(found.json(), indent=2))
    else:
        report.show(found, Console())
    for text in found.tracebacks if traceback else ():
        click.echo(f"\n{text}".rstrip(), err=True)
    sys.exit(1 if found.failed else 0)


@cli.command()
@click.argument("target", default=".", metavar="[PATH]")
@click.option("--host", help="Where to listen; default 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default 8000; 0 is any free one.")
@click.option("--reload", is_flag=True, help="Start again when a file changes; shows errors in full.")
@click.option(
    "--events", metavar="URL", help="Where runs are kept: sqlite:///FILE, redis://, amqp://, nats://."
)
@click.option("--auth", is_flag=True, help="Ask everybody for an API key.")
@click.option("--insecure", is_flag=True, help="Listen beyond this machine although nobody needs a key.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, help="Processes that share the port.")
@click.option("--mcp", is_flag=True, help="Serve the programs as MCP tools too, at /mcp.")
@click.option("--allow-host", "allowed_hosts", multiple=True, help="A name the server is reached by.")
@click.option("--debug", is_flag=True, help="Tell clients what programs say when they fail.")
def serve(target: str, **options: Any) -> None:
    """Serve the programs of PATH over HTTP, with a page to try and watch them.

    PATH is a project directory, a file.py, or package.module:ClassName; this directory if left out.

    \b
    Examples:
      dspy-cli serve
      dspy-cli serve program.py --port 8080
      dspy-cli serve my_package.modules.triage:Triage --reload
      dspy-cli serve --host 0.0.0.0 --auth --events redis://localhost:6379 --workers 2
    """
    from dspy_cli.server.serve import Options
    from dspy_cli.server.serve import serve as run

    run(Options(target=target, **options), click.echo)


def main() -> None:
    """Run a command; what was raised on purpose is told in a line, and exits 1."""
    try:
        cli()
    except DspyCliError as error:
        click.echo(f"dspy-cli: {error}", err=True)
        sys.exit(1)
