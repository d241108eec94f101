"""The command line: parse, call, print. What a command needs is imported when it runs."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from mkspy.errors import MkspyError

if TYPE_CHECKING:
    from mkspy.check import Profile, Report
    from mkspy.check.formats import Format as Form
    from mkspy.propose import Proposal
    from mkspy.spec import Task

_FOUND, _UNUSABLE = 1, 2
_INTERRUPTED = 130  # 128 + SIGINT, as a shell says it
_STDIN = "-"
_SKIPPED = frozenset(("__pycache__", "node_modules", "site-packages", "venv"))


class _Unusable(click.ClickException):
    """What was given cannot be used."""

    exit_code = _UNUSABLE


class _Commands(click.Group):
    """Ends every command as a shell expects it, whatever stopped it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            sys.exit(_INTERRUPTED)
        except BrokenPipeError:  # `| head` has what it wanted; Python must not find the pipe broken at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except OSError as error:
            raise _Unusable(_reason(error)) from error
        except MkspyError as error:
            raise _Unusable(str(error)) from error
        return result


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="mkspy", prog_name="mkspy")
def cli() -> None:
    """Make DSPy programs from a typed task, and check programs without running them.

    A FILE that is left out, or is -, is read from stdin. Results go to stdout, all else to stderr.

    Exits 0 when all is well, 1 when something was found, 2 when what was given cannot be used.

    \b
    Examples:
      mkspy library triage > triage.toml
      mkspy generate triage.toml --out program.py
      mkspy check program.py --spec triage.toml
    """


_spec_file = click.argument("file", metavar="[FILE]", default=_STDIN)


# --- spec, library ------------------------------------------------------------------------------------------


@cli.command()
@_spec_file
@click.option(
    "--format",
    "form",
    type=click.Choice(["toml", "json"]),
    default="toml",
    show_default=True,
    help="What to print it as.",
)
def spec(file: str, form: Literal["toml", "json"]) -> None:
    """Say whether a specification holds together, and print it in full.

    FILE is TOML or JSON. What it leaves to be understood, such as the types between steps, is written out.

    \b
    Examples:
      mkspy spec triage.toml
      mkspy spec triage.toml --format json | jq .outputs
      mkspy library invoice | mkspy spec
    """
    from mkspy.spec import dumps

    click.echo(dumps(_task(file), format=form).rstrip("\n"))


@cli.command()
@click.argument("name", required=False)
def library(name: str | None) -> None:
    """List the specifications that come with mkspy, or print the one called NAME.

    \b
    Examples:
      mkspy library
      mkspy library rag > rag.toml
    """
    from mkspy import library as shelf

    if name is None:
        for each in shelf.names():
            click.echo(f"{each:<10} {shelf.get(each).description.partition(chr(10))[0]}")
    elif name in shelf.names():
        click.echo(shelf.read(name).rstrip("\n"))
    else:
        raise _Unusable(f"no specification is called {name!r}; there are {', '.join(shelf.names())}")


# --- generate -----------------------------------------------------------------------------------------------


@cli.command()
@_spec_file
@click.option("--async", "asynchronous", is_flag=True, help="Give modules an aforward beside forward.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Where to write it, instead of to stdout.")
@click.option(
    "--lm", "--model", "model", metavar="MODEL", help="Let this model write a richer one: openai/gpt-5, …"
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 20),
    default=3,
    show_default=True,
    help="How often the model may try until its program passes the check.",
)
@click.option("--force", is_flag=True, help="Write over a file that says something else.")
def generate(
    file: str, asynchronous: bool, out: Path | None, model: str | None, rounds: int, force: bool
) -> None:
    """Print a DSPy program that does what a specification says.

    It takes no language model: the same specification gives the same program. With --lm a model proposes a
    program of its own for the same contract. That one is read and checked, never run; when none passes, the
    program is the one that is made without a model, stderr says so, and the exit status is 1.

    \b
    Examples:
      mkspy generate triage.toml --out program.py
      mkspy library rag | mkspy generate --async
      mkspy generate triage.toml --lm openai/gpt-5 --rounds 5
    """
    from mkspy.generate import generate as make

    task = _task(file)
    if model is None:
        _write(make(task, asynchronous=asynchronous), out, force=force)
        return
    proposal = _proposed(task, model, rounds=rounds, asynchronous=asynchronous)
    _write(proposal.source, out, force=force)
    _tell_proposal(proposal, model)
    sys.exit(_FOUND if proposal.is_baseline else 0)


def _proposed(task: "Task", model: str, *, rounds: int, asynchronous: bool) -> "Proposal":
    import dspy

    from mkspy.propose import propose

    try:
        return propose(task, dspy.LM(model), rounds=rounds, asynchronous=asynchronous)
    except Exception as error:
        text = f"{error}".strip().partition("\n")[0]
        raise _Unusable(f"{model} did not answer: {type(error).__name__}: {text[:300]}") from error


def _tell_proposal(proposal: "Proposal", model: str) -> None:
    for number, findings in enumerate(proposal.refused, start=1):
        _tell(f"Attempt {number} of {model} was refused:")
        for finding in findings:
            _tell(f"  {finding}")
    if not proposal.is_baseline:
        _tell(f"Attempt {proposal.rounds} of {model} passed.")
    elif len(proposal.refused) == proposal.rounds:
        _tell(f"No attempt of {model} passed; this is the program made without it.")
    else:
        _tell(f"{model} had nothing to change; this is the program made without it.")


# --- check, rules -------------------------------------------------------------------------------------------

_profile = click.option(
    "--profile",
    type=click.Choice(["candidate", "project"]),
    default="candidate",
    show_default=True,
    help="candidate: all rules, for generated code; project: structure and meaning, for your own.",
)


def _form[Command: Callable[..., None]](name: str, description: str) -> Callable[[Command], Command]:
    return click.option(f"--{name}", "form", flag_value=name, help=description)


@cli.command()
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@_profile
@click.option("--spec", "spec_file", metavar="FILE", help="Also hold the program to this specification.")
@_form("json", "Print findings and facts as JSON.")
@_form("sarif", "Print SARIF 2.1.0, for code scanning.")
@_form("github", "Print annotations for a GitHub workflow.")
def check(paths: Sequence[str], profile: "Profile", spec_file: str | None, form: "Form | None") -> None:
    """Say what is wrong with DSPy programs, without importing or running them.

    A PATH is a file, or a directory: then every .py file under it that mentions dspy is read. Nothing is
    printed when nothing is found. What passes is well formed and keeps to the rules; that does not make it
    safe to run: a check is no sandbox.

    \b
    Examples:
      mkspy check program.py
      mkspy check --profile project src
      mkspy generate triage.toml | mkspy check --spec triage.toml -
      mkspy check --sarif program.py > mkspy.sarif
    """
    from mkspy.check import RULES
    from mkspy.check import check as examine
    from mkspy.check.formats import render

    if spec_file == _STDIN and (not paths or _STDIN in paths):
        raise click.UsageError("the specification and the program cannot both be stdin")
    task = None if spec_file is None else _task(spec_file)
    reports: dict[str, Report] = {}
    unreadable = False
    for path in _sources(paths or [_STDIN]):
        try:
            reports[path] = examine(_bytes(path), task, profile=profile)
        except OSError as error:
            unreadable = True
            _tell(f"Error: {_reason(error)}")
    shown = render(reports, form or "text", RULES)
    if shown:
        click.echo(shown.rstrip("\n"))
    found = any(not report.ok for report in reports.values())
    sys.exit(_UNUSABLE if unreadable else _FOUND if found else 0)


@cli.command()
@click.option(
    "--profile", type=click.Choice(["candidate", "project"]), help="Only the rules of this profile."
)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def rules(profile: str | None, as_json: bool) -> None:
    """Print what `check` looks for, one rule a line: name, severity, profiles, and what it says.

    \b
    Examples:
      mkspy rules
      mkspy rules --profile project
      mkspy rules --json | jq -r '.[].name'
    """
    import json

    from mkspy.check import RULES

    chosen = [rule for rule in RULES if profile is None or profile in rule.profiles]
    if as_json:
        keys = ("name", "family", "severity", "profiles", "summary")
        click.echo(json.dumps([{key: getattr(rule, key) for key in keys} for rule in chosen], indent=2))
        return
    width = max(len(rule.name) for rule in chosen)
    for rule in chosen:
        click.echo(f"{rule.name:<{width}}  {rule.severity:<7}  {'+'.join(rule.profiles):<17}  {rule.summary}")


# --- files --------------------------------------------------------------------------------------------------


def _task(file: str) -> "Task":
    from mkspy.spec import load

    place = "stdin" if file == _STDIN else file
    try:
        text = _bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unusable(f"{place}: byte {error.start} is no UTF-8; save it as UTF-8") from error
    suffix = Path(file).suffix
    is_json = suffix == ".json" or (suffix != ".toml" and text.lstrip().startswith("{"))
    try:
        return load(f"{text}\n", "json" if is_json else "toml")  # the line break says that it is no path
    except MkspyError as error:
        raise _Unusable(f"{place}: {error}") from error


def _bytes(path: str) -> bytes:
    return sys.stdin.buffer.read() if path == _STDIN else Path(path).read_bytes()


def _sources(paths: Sequence[str]) -> Iterator[str]:
    """Yield files; of a directory those that may be programs."""
    for path in paths:
        if path != _STDIN and Path(path).is_dir():
            yield from map(str, filter(_mentions_dspy, sorted(_walk(Path(path)))))
        else:
            yield path


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root, onerror=_raise):
        folders[:] = [one for one in folders if not one.startswith(".") and one not in _SKIPPED]
        yield from (Path(folder, file) for file in files if file.endswith(".py"))


def _raise(error: OSError) -> NoReturn:
    raise error


def _mentions_dspy(path: Path) -> bool:
    try:
        return b"dspy" in path.read_bytes()
    except OSError:
        return True  # reading it again says why


def _write(text: str, out: Path | None, *, force: bool) -> None:
    if out is None or str(out) == _STDIN:
        click.echo(text.encode(), nl=False)
        return
    if not force and out.exists() and out.read_bytes() != text.encode():
        raise click.UsageError(f"{out} is there and says something else; --force writes over it.")
    out.write_text(text, encoding="utf-8", newline="\n")


def _tell(text: str) -> None:
    click.echo(text, err=True)


def _reason(error: OSError) -> str:
    """Return an operating system's error without its number."""
    about = f"{error.filename}: " if error.filename else ""
    return f"{about}{error.strerror or error}"


def main() -> None:
    """Run a command."""
    cli(prog_name="mkspy")


if __name__ == "__main__":
    main()
