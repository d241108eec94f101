"""The `streamll` command."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import click
from dspy.utils.exceptions import LMError

import streamll
from streamll import local
from streamll.errors import StreamllError

QUESTIONS = ("How tall was the Pharos of Alexandria?", "What destroyed the Eddystone lighthouse?")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="streamll", prog_name="streamll")
def main() -> None:
    """Stream a DSPy program's inner workings to its users, as they happen."""


@main.command()
@click.option("--model", type=click.Path(path_type=Path), help="Another language model: a GGUF file.")
@click.option("--question", "questions", multiple=True, help="What to ask; may be given several times.")
def demo(model: Path | None, questions: Sequence[str]) -> None:
    """Watch a small DSPy program think, on a language model inside this process.

    The program looks a passage up in a bundled text and answers from it. It needs no network, no key and no
    terminal: piped, it prints one line per event.
    """
    try:
        _demo(model, questions or QUESTIONS)
    except (StreamllError, LMError) as error:
        raise click.ClickException(str(error)) from error


def _demo(model: Path | None, questions: Sequence[str]) -> None:
    import dspy

    from streamll.demo import Handbook

    began = perf_counter()
    with dspy.context(lm=local.lm(model, max_tokens=128), adapter=dspy.JSONAdapter()):
        program = Handbook()
        for question in questions:
            click.secho(question, bold=True)
            program(question=question)
            streamll.flush()
            click.echo()
    click.echo(f"{len(questions)} asked, {perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
