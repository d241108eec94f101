"""API gateways: a path of its own for a program, with its request and response as the caller wants them."""

import json
import logging
import re
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast, override

import pydantic_core
from fastapi import APIRouter, HTTPException
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue, ValidationError
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from dspy_cli.errors import DspyCliError, InvalidGateway
from dspy_cli.gateways.base import Gateway, MaybeAwaitable, Starts, call, visible
from dspy_cli.project.programs import RESERVED, Program

_LOG = logging.getLogger(__name__)
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_SEGMENT = r"(?!\.\.?(/|$))[\w.~-]+"
_PATH = re.compile(rf"(/{_SEGMENT}(/({_SEGMENT}|\{{[a-z_]\w*\}}))*)?", re.ASCII)
_PATH_RULE = (
    'a path is "/" and segments of letters, digits, "-", "_", "." or "~", after the first also {name}; '
    "it has no slash at the end, no empty segment and no dots alone."
)


class Refuse(HTTPException, DspyCliError):
    """Raised by a hook: answer the caller with `status` and tell them `detail`; nothing is run."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request, whole: `headers` by lower-case name, `body` as it was sent (what a signature is over)."""

    method: str
    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    path_params: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # as `json.loads`: only the hook knows what its callers send
        """Return the body's JSON.

        Raises:
            Refuse: 400, it is none.
        """
        return self._json

    def __getitem__(self, key: str) -> Any:
        """Return `key` of a body that is a JSON object.

        Raises:
            Refuse: 422, there is no such key.
        """
        body = self.json()
        if not isinstance(body, dict) or key not in body:
            raise Refuse(422, f"The body must be a JSON object with the key {key!r}.")
        return body[key]  # pyright: ignore[reportUnknownVariableType]

    @cached_property
    def _json(self) -> Any:
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise Refuse(400, "The body must be JSON.") from error


class APIGateway(Gateway):
    """Serve a program at a path of its own.

    The hooks may be plain functions, which run in a thread, or coroutine functions. What they raise is logged
    and answered with 500; they refuse a request with `raise Refuse(401, "Wrong signature.")`.
    """

    path: ClassVar[str] = ""
    """Begins with "/"; a segment `{name}` goes to `request.path_params`. Default: `/{program}`."""
    method: ClassVar[str] = "POST"

    @classmethod
    @override
    def problems(cls) -> list[str]:
        public = not cls.requires_auth
        found = {
            f"has method = {cls.method!r}; it must be one of {', '.join(_METHODS)}.": cls.method
            not in _METHODS,
            f"has path = {cls.path!r:.80}; {_PATH_RULE}": _PATH.fullmatch(cls.path) is None,
            f"is public with path = {cls.path!r:.80}; leave out {{…}} or require auth.": public
            and "{" in cls.path,
        }
        return [problem for problem, is_so in found.items() if is_so]

    def to_pipeline_inputs(self, request: Request) -> MaybeAwaitable[Mapping[str, Any]]:
        """Return the program's inputs; keys that begin with `_` are not passed on. Default: the JSON body."""
        return request.query if request.method == "GET" else request.json()

    def from_pipeline_output(self, output: Mapping[str, JsonValue]) -> MaybeAwaitable[object]:
        """Return the response: anything that has a JSON form, or a `starlette.responses.Response`."""
        return output

    def idempotency_key(self, request: Request) -> str | None:
        """Return what is equal in two deliveries of one request, which then runs once. Default: a header."""
        return request.headers.get("idempotency-key")


def paths(programs: Sequence[Program], *, public: bool = False) -> list[tuple[str, str]]:
    """Return `(method, path)` of each gateway, with `public` of those that let in callers without a key.

    The paths of the public ones are exact; others may have `{name}` for a segment.
    """
    return [
        (gateway.method, _path_of(program, gateway))
        for program, gateway in _declared(programs)
        if not (public and gateway.requires_auth)
    ]


def routes(programs: Sequence[Program], runs: Starts) -> APIRouter:
    """Return the gateways' routes. Include them before `/{program}`, which would match some of them.

    A request is refused with `HTTPException` or `RequestValidationError`; the app gives these their form.

    Raises:
        InvalidGateway: Two gateways want one path, or a gateway wants what is not its program's to have.
    """
    router = APIRouter(tags=["gateways"])
    for program, gateway in _checked(programs):
        router.add_api_route(
            _path_of(program, gateway),
            _endpoint(program, gateway, runs),
            methods=[gateway.method],
            name=f"{type(gateway).__name__} of {program.name}",
            description=program.description,
            response_class=Response,
            responses={"default": {"description": "A problem document (RFC 9457)."}},
        )
    return router


def _path_of(program: Program, gateway: APIGateway) -> str:
    return gateway.path or f"/{program.name}"


def _declared(programs: Sequence[Program]) -> Generator[tuple[Program, APIGateway]]:
    for program in programs:
        if isinstance(program.gateway, APIGateway):
            yield program, program.gateway


def _checked(programs: Sequence[Program]) -> Generator[tuple[Program, APIGateway]]:
    taken: dict[tuple[str, str], str] = {}
    for program, gateway in _declared(programs):
        path = _path_of(program, gateway)
        where = f"{type(gateway).__qualname__} of {program.name} has path = {path!r:.80}"
        if (owner := _owner(path, programs)) not in (None, program.name):
            raise InvalidGateway(f"{where}, which belongs to {owner}; choose another first segment.")
        if path == f"/{program.name}/stream":
            raise InvalidGateway(f"{where}, which streams the program's events; choose another.")
        shape = re.sub(r"\{\w+\}", "{}", path)
        if (other := taken.setdefault((gateway.method, shape), program.name)) != program.name:
            raise InvalidGateway(f"{where}, which the gateway of {other} has already; choose another.")
        yield program, gateway


def _owner(path: str, programs: Sequence[Program]) -> str | None:
    """Return what has the first segment of `path`: a program, or dspy-cli itself."""
    first = path.split("/")[1]
    if first in RESERVED:
        return "dspy-cli itself"
    return first if first in {program.name for program in programs} else None


def _endpoint(
    program: Program, gateway: APIGateway, runs: Starts
) -> Callable[[HTTPRequest], Awaitable[Response]]:
    async def endpoint(request: HTTPRequest) -> Response:
        return await _answer(await _received(request), program, gateway, runs)

    return endpoint


async def _received(request: HTTPRequest) -> Request:
    return Request(
        method=request.method,
        path=request.url.path,
        headers=dict(request.headers),
        query=dict(request.query_params),
        path_params=dict(request.path_params),
        body=await request.body(),
    )


async def _answer(request: Request, program: Program, gateway: APIGateway, runs: Starts) -> Response:
    given = visible(await _hook(gateway, gateway.to_pipeline_inputs, request))
    try:
        inputs = program.inputs(program.request.model_validate(given))
    except ValidationError as error:
        raise RequestValidationError(_found(error), body=given) from error
    key = await _hook(gateway, gateway.idempotency_key, request)
    run = await runs.start(program, inputs, key=key and f"gateway:{program.name}:{key}")
    response = await _hook(gateway, _respond, gateway, await run.outputs())
    response.headers["Run-Id"] = run.id
    return response


def _found(error: ValidationError) -> list[dict[str, object]]:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [{**each, "loc": ("body", *each["loc"])} for each in found]


async def _respond(gateway: APIGateway, output: JsonValue) -> Response:
    answer = await call(gateway.from_pipeline_output, cast("Mapping[str, JsonValue]", output))
    if isinstance(answer, Response):
        return answer
    content = pydantic_core.to_json(answer, inf_nan_mode="null")
    return Response(content, media_type="application/json")


async def _hook[**P, T](
    gateway: APIGateway, hook: Callable[P, MaybeAwaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    try:
        return await call(hook, *args, **kwargs)
    except HTTPException:
        raise
    except Exception as error:
        name = type(gateway).__qualname__
        _LOG.exception("The gateway %s failed.", name)
        raise HTTPException(500, f"The gateway {name} failed; the server's log says why.") from error
