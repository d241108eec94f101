"""`python -m dspy_cli`."""

from dspy_cli.cli import main

main()
