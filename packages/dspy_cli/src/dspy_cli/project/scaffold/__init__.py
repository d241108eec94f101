"""Projects and their parts, written from templates."""

from dspy_cli.project.scaffold.making import (
    Options,
    how_to_attach,
    new_gateway,
    new_module,
    new_project,
    new_scaffold,
    new_signature,
)
from dspy_cli.project.scaffold.strategies import STRATEGIES
from dspy_cli.project.scaffold.texts import KINDS

__all__ = [
    "KINDS",
    "STRATEGIES",
    "Options",
    "how_to_attach",
    "new_gateway",
    "new_module",
    "new_project",
    "new_scaffold",
    "new_signature",
]
