"""How a run stands and ends: statuses, codes of errors, and the problem that a client is told."""

from collections.abc import Mapping
from typing import Literal, cast

import streamll
from streamll.core.events import JsonValue

from dspy_cli.server.problems import Problem

type Stop = Literal["cancelled", "timeout", "interrupted"]
type Status = Literal["queued", "running", "ok", "error", "orphaned"] | Stop

HINTS: Mapping[str, str] = {
    "cancelled": "The caller stopped waiting or asked it to stop.",
    "interrupted": "The server was stopped before the program returned; run it again.",
    "orphaned": "The server that ran it is gone; run it again.",
    "timeout": "No answer in time; raise timeout_seconds or ask for less.",
}
"""Why a run ended that did not end itself, and what to do. The code is its status, too."""

_HTTP_STATUS: Mapping[str, int] = {
    "authentication": 502,
    "cancelled": 409,
    "connection": 502,
    "content_filter": 422,
    "context_length": 422,
    "interrupted": 503,
    "orphaned": 503,
    "parse": 502,
    "rate_limit": 503,
    "timeout": 504,
}
"""Of a run that failed, by the code of its error; 500 for any other."""


def status(ended: bool, code: str | None) -> Status:
    """Return how a run stands whose log has ended, or not, with the code of an error, or without."""
    if not ended:
        return "running"
    if code is None:
        return "ok"
    return cast("Status", code) if code in HINTS else "error"


def error_of(last: streamll.Event | None) -> tuple[str, str]:
    """Return code and hint of the error that a log's last event tells of."""
    error = last.data.get("error") if last is not None else None
    told = error if isinstance(error, dict) else {}
    return str(told.get("code", "program")), str(told.get("hint", "See the server's log."))


def failed(run_id: str, code: str, hint: str, *, error: str | None = None) -> Problem:
    """Return what a client is told of a failed run; `error` is what the program says."""
    title = "The run was stopped" if code in HINTS else "The program failed"
    told: dict[str, JsonValue] = {"code": code, "run": run_id, **({"error": error} if error else {})}
    return Problem(_HTTP_STATUS.get(code, 500), hint, title=title, **told)  # pyright: ignore[reportArgumentType]
