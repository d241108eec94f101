"""What stands before the app: which hosts, origins, people and bodies get in, and headers on what goes out.

Pure ASGI, so a stream passes through frame by frame. Paths are compared as the router will see them, decoded
once by the server, and only whole: what is not on a list is not public, however it is spelled.
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from urllib.parse import parse_qs, quote

from starlette._utils import get_route_path  # the router's own: a copy might read a path otherwise one day
from starlette.responses import RedirectResponse, Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from dspy_cli.errors import BadSetting, ExposedBinding
from dspy_cli.project.config import ServerSettings
from dspy_cli.server.auth import Auth
from dspy_cli.server.problems import Problem, response, unexpected
from dspy_cli.server.streaming import STRAIGHT

LOGIN = "/ui/login.html"

PUBLIC = frozenset(
    {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", LOGIN),
        ("GET", "/ui/login.js"),
        ("GET", "/ui/style.css"),
        ("GET", "/session"),
        ("POST", "/session"),
        ("DELETE", "/session"),
    }
)
"""What needs no key: how the server is, and what it takes to log in and out."""

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        b"connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
)
"""On every response, whatever its type: a browser runs scripts in more than `text/html`."""

_ALWAYS_ALLOWED = ("localhost", "127.0.0.1", "[::1]")
_AUTHORITY = re.compile(rb"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_HOST = re.compile(r"\*|(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_JSON = re.compile(rb"application/([!#$&^_.+a-z0-9-]+\+)?json")
_EVENTS = re.compile(r"/runs/([^/]+)/events")
_LOCAL = re.compile(r"/(?![/\\])[^\\\x00-\x1f\x7f]*")
"""A path no browser takes for another site: `//evil.example` and `/\\evil.example` are."""
_READS = ("GET", "HEAD", "OPTIONS")
_SENDS = ("POST", "PUT", "PATCH")
_OURS = (None, b"same-origin", b"none")

type Route = tuple[str, str]
"""A method and an exact path: `("POST", "/hooks/github")`."""


def check_binding(host: str, *, auth: bool, insecure: bool) -> None:
    """Refuse to listen beyond this machine unless visitors need a key, or someone says they need none.

    Raises:
        ExposedBinding: `host` is not loopback, and neither `auth` nor `insecure` is set.
    """
    if not (auth or insecure or _is_loopback(host)):
        raise ExposedBinding(
            f"Refusing to listen on {host!r}: anyone who reaches it could run programs and read every run."
            " Add --auth and make keys with `dspy-cli keys create`, listen on 127.0.0.1, or say --insecure."
        )


def check_names(settings: ServerSettings) -> None:
    """Refuse allowed hosts and origins that no browser sends: a guard is made when the first request comes.

    Raises:
        BadSetting: One of them is none. Origins are named one by one; there is no "*".
    """
    check_hosts(settings)
    check_origins(settings)


class Guard:
    """ASGI middleware that lets a request through to `app`, or answers it with a problem document.

    Args:
        app: What is guarded.
        settings: `host`, `allowed_hosts`, `allowed_origins`, `max_request_bytes` and `debug` are used.
        auth: Who has keys; without it everybody may come in.
        public: Routes that need no key, besides `PUBLIC`.
        any_content: Routes of gateways, with `{name}` for any segment. They take bodies other than JSON, and
            no link of another site leads to them: what a GET does there is for their programs to say.

    Raises:
        BadSetting: An allowed host or origin is none. Origins are named one by one; there is no "*".
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: ServerSettings,
        auth: Auth | None = None,
        public: Iterable[Route] = (),
        any_content: Iterable[Route] = (),
    ) -> None:
        self._app, self._settings, self._auth = app, settings, auth
        self._public = PUBLIC | {(method.upper(), path) for method, path in public}
        self._gateways = [(method.upper(), compile_path(path)[0]) for method, path in any_content]
        self._hosts = check_hosts(settings)
        self._any_address = settings.host in ("0.0.0.0", "::", "[::]", "")
        self._origins = check_origins(settings)
        self._vary = (_VARY,) if self._origins else ()
        self._checks = (
            self._check_host,
            self._check_origin,
            self._check_person,
            self._check_content,
            self._check_size,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket" if self._refusal(_request(scope)) is not None:
                await WebSocketClose(1008)(scope, receive, send)
            case _:
                await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _request(scope)
        cors = self._origins.get(request.headers.get(b"origin", b""), self._vary)
        exchange = _Exchange(receive, send, self._settings.max_request_bytes, cors)
        try:
            if (refusal := self._refusal(request)) is not None:
                return await exchange.answer(scope, refusal)
            exchange.known = request.known
            scope[STRAIGHT] = exchange.send
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:
            if not exchange.stopped:
                await exchange.answer(scope, unexpected(error, debug=self._settings.debug))
                raise
        if exchange.too_large:
            await exchange.answer(scope, self._too_large(scope))
        elif exchange.stopped:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _refusal(self, request: "_Request") -> "_Answer | None":
        for check in self._checks:
            if (refusal := check(request)) is not None:
                return refusal
        return None

    # --- where it was sent, and from where ---

    def _check_host(self, request: "_Request") -> "_Answer | None":
        """Against DNS rebinding: a page of a name that now has our address still sends that name."""
        host = request.headers.get(b"host", b"").lower()
        name = _host_name(host)
        if name in self._hosts or host.decode("latin-1") in self._hosts or "*" in self._hosts:
            return None
        if self._any_address and _is_address(name):  # who rebinds a name cannot choose to name a number
            return None
        given = host[:80].decode("latin-1")
        return Problem(421, f"This server does not answer to {given!r}; add it to `server.allowed_hosts`.")

    def _check_origin(self, request: "_Request") -> "_Answer | None":
        """Against other sites in the visitor's browser, which has the cookies and the way to localhost."""
        origin = request.headers.get(b"origin")
        if origin in self._origins:
            return Response(status_code=204) if request.is_preflight else None
        site = request.headers.get(b"sec-fetch-site")
        comes = site in _OURS or (request.is_followed_link and not self._is_gateways(request))
        if comes and (origin is None or request.is_from(origin)):
            return None
        given = "another site" if origin is None else repr(origin[:80].decode("latin-1"))
        return Problem(403, f"A page of {given} may not call this server; see `server.allowed_origins`.")

    def _is_gateways(self, request: "_Request") -> bool:
        """Whether the router, whose patterns these are, gives the request to a gateway."""
        method, path = request.route
        return any(method == given and shape.match(path) for given, shape in self._gateways)

    # --- who sent it ---

    def _check_person(self, request: "_Request") -> "_Answer | None":
        if self._auth is None or request.route in self._public or self._has_token(request, self._auth):
            return None
        for known in _credentials(request, self._auth):
            if known():
                request.known = known
                return None
        if request.is_visit:
            return RedirectResponse(request.login, 303, _NO_STORE)
        return Problem(
            401,
            "This server asks for a key: send `Authorization: Bearer KEY` or `X-API-Key: KEY`."
            " Whoever runs it makes one with `dspy-cli keys create`.",
            headers={"WWW-Authenticate": "Bearer"} | _NO_STORE,
        )

    def _has_token(self, request: "_Request", auth: Auth) -> bool:
        run = _EVENTS.fullmatch(request.path)
        if run is None or request.method != "GET":
            return False
        tokens = parse_qs(request.query).get("token", [])
        return len(tokens) == 1 and auth.verify(tokens[0], run[1])

    # --- what it brings ---

    def _check_content(self, request: "_Request") -> "_Answer | None":
        """Against forms of other sites: a form cannot send JSON, not even an empty one."""
        if request.method not in _SENDS or self._is_gateways(request):
            return None
        content = request.headers.get(b"content-type")
        if content is None and not request.has_body:
            return None
        if content is not None and _JSON.fullmatch(content.partition(b";")[0].strip().lower()):
            return None
        given = "no content type" if content is None else repr(content[:80].decode("latin-1"))
        return Problem(
            415,
            f"The body has to be `Content-Type: application/json`, not {given}.",
            headers={"Accept": "application/json"},
        )

    def _check_size(self, request: "_Request") -> "_Answer | None":
        length = request.headers.get(b"content-length", b"0")
        if not length.isdigit():
            return Problem(400, f"Content-Length is a number, not {length[:80].decode('latin-1')!r}.")
        if len(length) > 18 or int(length) > self._settings.max_request_bytes:
            return self._too_large(request.scope)
        return None

    def _too_large(self, scope: Scope) -> Problem:
        limit = self._settings.max_request_bytes
        return Problem(
            413,
            f"The body is larger than the {limit} bytes this server takes; see `server.max_request_bytes`.",
            # HTTP/1 would have to read the rest of it before the next request.
            headers={"Connection": "close"} if scope.get("http_version", "1.1") < "2" else {},
            max_bytes=limit,
        )


type _Answer = Problem | Response
type _Known = Callable[[], bool]
"""Whether a credential is valid, asked again while a stream goes on."""
type _Headers = tuple[tuple[bytes, bytes], ...]

_NO_STORE = {"Cache-Control": "no-store"}
_VARY = (b"vary", b"Origin")


class _Exchange:
    """One request and its response under way: counts what comes in, dresses what goes out.

    It is stopped when the body turns out too large before anything was answered, and when the key that opened
    a stream is revoked. To the app it then looks as if the client had gone away.
    """

    __slots__ = ("_cors", "_left", "_receive", "_send", "_started", "known", "stopped")

    def __init__(self, receive: Receive, send: Send, max_bytes: int, cors: _Headers) -> None:
        self._receive, self._send, self._left, self._cors = receive, send, max_bytes, cors
        self._started = self.stopped = False
        self.known: _Known | None = None

    @property
    def too_large(self) -> bool:
        """Whether it is stopped for its size, and has to be answered."""
        return self.stopped and not self._started

    async def receive(self) -> Message:
        """Receive for the app."""
        if self._left >= 0:
            message = await self._receive()
            self._left -= len(message.get("body", b""))
            if self._left >= 0:
                return message
            self.stopped = not self._started
        return {"type": "http.disconnect"}

    def send(self, message: Message) -> Awaitable[None]:
        """Send for the app. Not a coroutine itself: that would cost every frame of a stream."""
        if self.stopped or (self.known and message.get("more_body") and not self.known()):
            self.stopped = True
            raise OSError("The client is not served any longer.")  # what ASGI servers raise for one that left
        if message["type"] == "http.response.start":
            self._started = True
            message = {**message, "headers": _dressed(message.get("headers", ()), self._cors)}
        return self._send(message)

    async def answer(self, scope: Scope, answer: _Answer) -> None:
        """Answer in place of the app, unless it has begun to."""
        if not self._started:
            self.stopped = False
            whole = response(answer) if isinstance(answer, Problem) else answer
            await whole(scope, self.receive, self.send)


def _dressed(headers: Iterable[tuple[bytes, bytes]], cors: _Headers) -> list[tuple[bytes, bytes]]:
    dressed = list(headers)
    present = {name for name, _ in dressed}
    return [*dressed, *(header for header in SECURITY_HEADERS if header[0] not in present), *cors]


@dataclass(slots=True)
class _Request:
    """What is asked, as far as it matters here."""

    scope: Scope
    method: str
    path: str
    headers: Mapping[bytes, bytes]
    known: _Known | None = None

    @property
    def route(self) -> Route:
        return ("GET" if self.method == "HEAD" else self.method, self.path)

    @property
    def query(self) -> str:
        return self.scope.get("query_string", b"").decode("latin-1")

    @property
    def has_body(self) -> bool:
        return self.headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in self.headers

    @property
    def is_preflight(self) -> bool:
        return self.method == "OPTIONS" and b"access-control-request-method" in self.headers

    @property
    def is_followed_link(self) -> bool:
        """Whether a person follows a link here, which any site may have: it changes and tells nothing."""
        mode, dest = (self.headers.get(name) for name in (b"sec-fetch-mode", b"sec-fetch-dest"))
        return self.method == "GET" and mode == b"navigate" and dest == b"document"

    @property
    def is_visit(self) -> bool:
        """Whether a browser wants a page to show, rather than a program an answer."""
        mode = self.headers.get(b"sec-fetch-mode", b"navigate")
        return (
            self.method == "GET" and mode == b"navigate" and b"text/html" in self.headers.get(b"accept", b"")
        )

    def is_from(self, origin: bytes) -> bool:
        """Whether `origin` is where the request went. A proxy may have made https http, never the reverse."""
        scheme, _, authority = origin.lower().partition(b"://")
        schemes = (b"https",) if self.scope.get("scheme") in ("https", "wss") else (b"http", b"https")
        return scheme in schemes and authority == self.headers.get(b"host", b"").lower()

    @property
    def login(self) -> str:
        """Where to log in, to come back here afterwards."""
        root = self.scope.get("root_path", "").strip("/")
        root = f"/{root}" if root else ""
        back = root + self.path + (f"?{self.query}" if self.query else "")
        if not _LOCAL.fullmatch(back):
            return quote(root + LOGIN)
        return f"{quote(root + LOGIN)}?next={quote(back, errors='replace')}"


def _credentials(request: _Request, auth: Auth) -> Generator[_Known]:
    """Return what a request offers: a key in either header, the session in the cookie."""
    headers = request.headers
    scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        yield partial(auth.knows_key, bearer.strip())
    if b"x-api-key" in headers:
        yield partial(auth.knows_key, headers[b"x-api-key"].strip())
    if b"cookie" in headers:
        yield partial(auth.knows_session, _cookie(headers[b"cookie"], auth.cookie))


def _request(scope: Scope) -> _Request:
    return _Request(scope, scope.get("method", "GET"), get_route_path(scope), _merged(scope["headers"]))


def _merged(pairs: Collection[tuple[bytes, bytes]]) -> Mapping[bytes, bytes]:
    """Return headers by name. One sent twice is joined, as RFC 9110 5.2 reads it, and so matches no list."""
    merged = dict(pairs)
    if len(merged) < len(pairs):
        merged.clear()
        for name, value in pairs:
            joint = b"; " if name == b"cookie" else b", "
            merged[name] = merged[name] + joint + value if name in merged else value
    return merged


@lru_cache(maxsize=256)
def _host_name(authority: bytes) -> str:
    """Return the host without its port, empty when it is none."""
    found = _AUTHORITY.fullmatch(authority)
    return found[1].decode("ascii") if found else ""


def _cookie(header: bytes, name: str) -> bytes:
    """Return the value of the first cookie of that name, empty when there is none."""
    wanted = name.encode()
    for cookie in header.split(b";"):
        found, _, value = cookie.strip().partition(b"=")
        if found == wanted:
            return value
    return b""


def check_hosts(settings: ServerSettings) -> frozenset[str]:
    """Return the names the server answers to. Raises BadSetting: an allowed one would never match."""
    for host in settings.allowed_hosts:
        if not _HOST.fullmatch(host.lower()):
            raise BadSetting(
                f"`server.allowed_hosts` has {host[:80]!r}; it takes names such as example.com,"
                ' example.com:8443, [2001:db8::1], or "*" for any.'
            )
    bound = f"[{settings.host}]" if ":" in settings.host and settings.host[0] != "[" else settings.host
    return frozenset(host.lower() for host in (*_ALWAYS_ALLOWED, bound, *settings.allowed_hosts) if host)


def check_origins(settings: ServerSettings) -> Mapping[bytes, _Headers]:
    """Return what allowed origins are told. Raises BadSetting: one is none."""
    return {_origin(text): _cors(text) for text in settings.allowed_origins}


def _origin(text: str) -> bytes:
    if not _ORIGIN.fullmatch(text):
        raise BadSetting(
            f"`server.allowed_origins` has {text[:80]!r}; it takes origins as a browser sends them, such as"
            " https://app.example.com: scheme, name in lower case, port if unusual, no path, no *."
        )
    return text.encode("ascii")


def _cors(origin: str) -> _Headers:
    """Return what lets pages of `origin`, which the settings name, call this server and read what it says."""
    return (
        (b"access-control-allow-origin", origin.encode("ascii")),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-allow-methods", b"GET, POST, DELETE"),
        (
            b"access-control-allow-headers",
            b"Authorization, Content-Type, Idempotency-Key, Last-Event-ID, On-Disconnect, Prefer, X-API-Key",
        ),
        (b"access-control-expose-headers", b"Location, Retry-After, Run-Id"),
        (b"access-control-max-age", b"600"),
        _VARY,
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    name = host.strip("[]")
    return host.lower() == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)
