"""Create DSPy programs, serve them over HTTP, and watch them think."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspy_cli.project.config import ServerSettings
    from dspy_cli.server.app import create_app
    from dspy_cli.server.auth import Auth

__all__ = ["Auth", "ServerSettings", "create_app"]

_HOMES = {"Auth": "server.auth", "ServerSettings": "project.config", "create_app": "server.app"}


def __getattr__(name: str) -> object:
    """Import a public name when it is used: `dspy-cli --help` waits for nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
