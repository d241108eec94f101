"""Every refusal and failure as a problem document: `application/problem+json`, RFC 9457."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import cast
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dspy_cli.errors import DspyCliError

_MAX_TEXT = 200
"""Characters of a client's own text that are sent back to it."""


class Problem(DspyCliError):
    """What a client is told instead of an answer.

    Args:
        status: HTTP status, 400 to 599.
        detail: What was wrong with this request, and what to do.
        title: What kind of problem it is, the same each time; the status's own phrase unless given.
        type: URI of a page about this kind of problem.
        headers: Sent with the answer.
        extra: Further members of the document.
    """

    def __init__(
        self,
        status: int,
        detail: str = "",
        *,
        title: str | None = None,
        type: str = "about:blank",
        headers: Mapping[str, str] | None = None,
        **extra: JsonValue,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.type = status, detail, type
        self.title = phrase(status) if title is None else title
        self.headers = {} if headers is None else dict(headers)
        self.extra = extra

    def document(self) -> dict[str, JsonValue]:
        """Return the members of the problem document."""
        known: dict[str, JsonValue] = {"type": self.type, "title": self.title, "status": self.status}
        return known | ({"detail": self.detail} if self.detail else {}) | self.extra


def phrase(status: int) -> str:
    """Return the name of a status: "Not Found"."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def response(problem: Problem) -> Response:
    """Return `problem` as an answer."""
    # Escaped to ASCII: a lone surrogate in a client's own key has no UTF-8.
    body = json.dumps(problem.document()).encode("ascii")
    return Response(body, problem.status, problem.headers, "application/problem+json")


def install(app: FastAPI, *, debug: bool = False) -> None:
    """Answer what is raised in `app` with problem documents; only `debug` tells what the program said."""
    _on(app, Problem, lambda problem: problem)
    _on(app, HTTPException, _http)
    _on(app, RequestValidationError, _invalid)
    _on(app, Exception, lambda error: unexpected(error, debug=debug))


def unexpected(error: Exception, *, debug: bool = False) -> Problem:
    """Return what to tell of an exception nobody planned for: nothing of its text, unless `debug`."""
    if debug:
        return Problem(500, f"{type(error).__name__}: {error}")
    return Problem(500, "The server failed while it answered; its log says why.")


def _on[E: Exception](app: FastAPI, kind: type[E], told: Callable[[E], Problem]) -> None:
    app.add_exception_handler(kind, _answering(cast("Callable[[Exception], Problem]", told)))


def _answering(told: Callable[[Exception], Problem]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(_: Request, error: Exception) -> Response:
        return response(told(error))

    return answer


def _http(error: HTTPException) -> Problem:
    detail = "" if error.detail == phrase(error.status_code) else str(error.detail)
    return Problem(error.status_code, detail, headers=error.headers)


def _invalid(error: RequestValidationError) -> Problem:
    found = [_finding(each) for each in cast("Sequence[Mapping[str, object]]", error.errors())]
    return Problem(422, "The request is not what this program takes; see `errors`.", errors=found)


def _finding(error: Mapping[str, object]) -> JsonValue:
    """Return one validation error: where, and what was expected; never the value that was given."""
    part, *path = cast("tuple[str | int, ...]", error["loc"])
    detail = _cut(str(error["msg"]))
    if error["type"] == "json_invalid":
        reason = cast("Mapping[str, object]", error["ctx"])["error"]
        return {"pointer": "#", "detail": _cut(f"not JSON at character {path[-1]}: {reason}")}
    if part == "body":
        return {"pointer": _cut("#" + "".join(map(_segment, path))), "detail": detail}
    return {"parameter": _cut("/".join(map(str, path))), "in": str(part), "detail": detail}


def _segment(key: str | int) -> str:
    """Return one step of a JSON pointer in a URI fragment, RFC 6901 section 6."""
    return "/" + quote(str(key).replace("~", "~0").replace("/", "~1"), safe="~", errors="replace")


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
