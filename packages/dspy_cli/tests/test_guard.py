"""The guard: who and what gets through, tried through httpx and with raw requests no client would send."""

import asyncio
import json
import re
import socket
import threading
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

import httpx
import pytest
import uvicorn
from dspy_cli.errors import BadSetting, ExposedBinding
from dspy_cli.project.config import ServerSettings
from dspy_cli.server import guard
from dspy_cli.server.app import create_app
from dspy_cli.server.auth import Auth
from dspy_cli.server.guard import LOGIN, PUBLIC, SECURITY_HEADERS, Guard, Route, check_binding
from dspy_cli.server.problems import install
from fastapi import FastAPI
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = ((b"host", b"localhost:8000"),)
JSON = {"content-type": "application/json"}
OPEN = ServerSettings()


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        return json.loads(self.body)


async def let_in(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that says what came in."""
    body, more = b"", scope["type"] == "http"
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await PlainTextResponse(f"{scope['method']} {scope['path']} {len(body)}")(scope, receive, send)


async def raw(
    app: ASGIApp,
    path: str = "/programs",
    *,
    method: str = "GET",
    headers: Iterable[tuple[bytes, bytes]] = (),
    host: bool = True,
    body: Sequence[bytes] = (b"",),
    **scope: object,
) -> Answer:
    """Send one request as a server hands it over, which may be one that no client would write."""
    chunks = [
        {"type": "http.request", "body": chunk, "more_body": n + 1 < len(body)}
        for n, chunk in enumerate(body)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return chunks.pop(0) if chunks else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(
        {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode("utf-8", "surrogatepass"),
            "query_string": b"",
            "root_path": "",
            "headers": [*(HEADERS if host else ()), *headers],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
        }
        | scope,
        receive,
        send,
    )
    start, *rest = sent
    assert [message["type"] for message in sent].count("http.response.start") == 1
    told = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Answer(start["status"], told, b"".join(message["body"] for message in rest))


def guarded(app: ASGIApp = let_in, *, settings: ServerSettings = OPEN, **options: Any) -> Guard:
    return Guard(app, settings=settings, **options)


@asynccontextmanager
async def client(app: ASGIApp, **options: Any) -> AsyncGenerator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000", **options) as opened:
        yield opened


@pytest.fixture
def auth() -> Auth:
    return Auth(None, environ={})


@pytest.fixture
def key(auth: Auth) -> bytes:
    return auth.create_key()[1].encode()


# --- where the server may listen ---


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "::1", "[::1]", "0:0:0:0:0:0:0:1"]
)
def test_loopback_needs_no_key(host: str) -> None:
    check_binding(host, auth=False, insecure=False)


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "::",
        "[::]",
        "",
        "192.168.1.7",
        "example.com",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "127.1",
    ],
)
def test_anywhere_else_needs_keys_or_a_clear_word(host: str) -> None:
    """Row C1: the default was 0.0.0.0, without any authentication."""
    with pytest.raises(ExposedBinding, match=r"--auth and make keys with `dspy-cli keys create`.*--insecure"):
        check_binding(host, auth=False, insecure=False)

    check_binding(host, auth=True, insecure=False)
    check_binding(host, auth=False, insecure=True)


# --- who gets in ---


@pytest.mark.parametrize(
    "header",
    [(b"authorization", b"Bearer %s"), (b"authorization", b"bearer  %s "), (b"x-api-key", b"%s")],
)
async def test_a_key_opens_the_door(auth: Auth, key: bytes, header: tuple[bytes, bytes]) -> None:
    name, value = header

    answer = await raw(guarded(auth=auth), headers=[(name, value % key)])

    assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer wrong")],
        [(b"authorization", "Bearer schlüssel".encode())],
        [(b"authorization", b"Bearer \xff\xfe\x00")],
        [(b"authorization", b"Basic %(key)s")],
        [(b"authorization", b"%(key)s")],
        [(b"authorization", b"Bearer %(key)s x")],
        [(b"authorization", b"Bearer %(key)s"), (b"authorization", b"Bearer x")],
        [(b"x-api-key", b"")],
        [(b"x-api-key", "schlüssel".encode("latin-1"))],
        [(b"x-api-key", b"%(key)s, %(key)s")],
        [(b"cookie", b"%(cookie)s=")],
        [(b"cookie", b"%(cookie)s=%(key)s")],
        [(b"cookie", b"other=%(session)s")],
        [(b"cookie", b"x%(cookie)s=%(session)s")],
        [(b"cookie", b"\xff=\xff; ;=;==")],
    ],
)
async def test_nothing_else_does_and_nothing_is_a_500(
    auth: Auth, key: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    """Rows C2 and C6: a request without a key, or with one beyond ASCII, was a 500."""
    session = auth.open_session(key)
    assert session
    values = {b"key": key, b"session": session.encode(), b"cookie": auth.cookie.encode()}
    sent = [(name, value % values if b"%(" in value else value) for name, value in headers]

    answer = await raw(guarded(auth=auth), headers=sent)

    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.problem["detail"].startswith("This server asks for a key")
    assert answer.headers["cache-control"] == "no-store"


async def test_without_auth_everybody_on_this_machine_gets_in() -> None:
    assert (await raw(guarded())).status == 200


async def test_a_session_cookie_opens_the_door_until_the_logout(auth: Auth, key: bytes) -> None:
    app = FastAPI()
    install(app)
    app.include_router(auth.router())
    app.add_api_route("/programs", lambda: [])

    async with client(guarded(app, auth=auth)) as browser:
        assert (await browser.get("/programs")).status_code == 401
        assert (await browser.post("/session", json={"key": "wrong"})).status_code == 401
        assert (await browser.post("/session", json={"key": key.decode()})).status_code == 200
        assert (await browser.get("/programs")).status_code == 200
        stolen = browser.cookies[auth.cookie]
        assert (await browser.delete("/session")).status_code == 200
        browser.cookies[auth.cookie] = stolen
        assert (await browser.get("/programs")).status_code == 401


async def test_revoking_a_key_ends_its_sessions_and_requests(auth: Auth) -> None:
    id, key = auth.create_key()
    session = auth.open_session(key.encode())
    guard = guarded(auth=auth)
    visits = [[(b"x-api-key", key.encode())], [(b"cookie", f"a=b; {auth.cookie}={session}".encode())]]
    assert [(await raw(guard, headers=headers)).status for headers in visits] == [200, 200]

    auth.revoke_key(id.id)

    assert [(await raw(guard, headers=headers)).status for headers in visits] == [401, 401]


@pytest.mark.parametrize("with_cookie", [False, True])
async def test_revoking_a_key_ends_the_streams_it_opened(auth: Auth, with_cookie: bool) -> None:
    doomed, key = auth.create_key()

    async def frames() -> AsyncGenerator[bytes]:
        yield b"before"
        auth.revoke_key(doomed.id)
        yield b" after"

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(frames())(scope, receive, send)

    guard = guarded(stream, auth=auth)
    cookie = f"{auth.cookie}={auth.open_session(key.encode())}".encode()
    header = (b"cookie", cookie) if with_cookie else (b"x-api-key", key.encode())
    assert (await raw(guard, headers=[header])).body == b"before"


async def test_a_token_may_expire_while_its_stream_goes_on(auth: Auth) -> None:
    async def frames() -> AsyncGenerator[bytes]:
        yield b"before"
        while auth.verify(token, "r1"):  # noqa: ASYNC110 - a clock rings no bell
            await asyncio.sleep(0.01)
        yield b" after"

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(frames())(scope, receive, send)

    token = auth.sign("r1", 1)
    async with asyncio.timeout(5):
        answer = await raw(
            guarded(stream, auth=auth), "/runs/r1/events", query_string=f"token={token}".encode()
        )

    assert answer.body == b"before after"


async def test_when_keys_cannot_be_read_nobody_gets_in(tmp_path: Path) -> None:
    auth = Auth(tmp_path / "auth.db", environ={})
    _, key = auth.create_key()
    (tmp_path / "auth.db").unlink()
    (tmp_path / "auth.db").mkdir()

    async with client(guarded(auth=auth)) as browser:
        answer = await browser.get("/programs", headers={"x-api-key": key})

    assert answer.status_code == 500
    assert str(tmp_path) not in answer.text
    assert answer.headers["content-type"] == "application/problem+json"


# --- what is public ---


@pytest.mark.parametrize(("method", "path"), sorted(PUBLIC))
async def test_what_it_takes_to_log_in_is_public(auth: Auth, method: str, path: str) -> None:
    assert (await raw(guarded(auth=auth), path, method=method)).status == 200


def test_the_login_page_loads_nothing_that_needs_a_key() -> None:
    ui = Path(guard.__file__).parents[1] / "ui"
    loaded = re.findall(r'(?:src|href)="(?!data:)([^"]*)"', (ui / "login.html").read_text())

    assert sorted(loaded) == ["login.js", "style.css"]
    assert {("GET", f"/ui/{name}") for name in loaded} <= PUBLIC
    assert not re.search(r"^\s*import\b|\bimport\(", (ui / "login.js").read_text(), re.MULTILINE)


async def test_what_can_be_got_can_be_asked_for_its_headers(auth: Auth) -> None:
    assert (await raw(guarded(auth=auth), "/healthz", method="HEAD")).status == 200


NASTY = [
    "/uileak",
    "/ui",
    "/ui/",
    "/ui/app.js",
    "/ui/../programs",
    "/ui/login.html/../../programs",
    "/ui/login.html/",
    "/ui/login.html\x00",
    "/ui/login.html%00",
    "/ui/login.html;x",
    "/ui/login.html\n",
    "/UI/login.html",
    "/ui/Login.html",
    "/ui//login.html",
    "//ui/login.html",
    "/./ui/login.html",
    "\\ui\\login.html",
    "/ui\\login.html",
    "ui/login.html",
    "/staticleak",
    "//programs",
    "/healthz/",
    "/healthz/../programs",
    "/healthzz",
    "/HEALTHZ",
    "/%2e%2e/programs",
    "/%68ealthz",
    "/ui/%2e%2e/programs",
    "/session/",
    "/session/../programs",
    "/\u017fession",
    "/\u2025/programs",
    "",
    "*",
    "http://localhost/healthz",
    "/healthz?",
    "/healthz#",
    " /healthz",
    "/healthz ",
]


@pytest.mark.parametrize("path", NASTY)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_nothing_is_public_by_resemblance(auth: Auth, path: str, method: str) -> None:
    """Row C3: whatever began with `/static` was public, `/staticleak` too."""
    answer = await raw(
        guarded(auth=auth), path, method=method, headers=[(b"content-type", b"application/json")]
    )

    assert answer.status == 401


@pytest.mark.parametrize(
    "route", [("POST", "/healthz"), ("PUT", "/session"), ("get", "/healthz"), ("", "/readyz")]
)
async def test_a_public_path_is_public_for_its_method(auth: Auth, route: Route) -> None:
    assert (await raw(guarded(auth=auth), route[1], method=route[0])).status == 401


paths = st.one_of(
    st.text(),
    st.text().map(lambda text: f"/{text}"),
    st.builds(
        "".join,
        st.lists(
            st.sampled_from(
                [
                    "/",
                    "//",
                    "..",
                    ".",
                    "%2e",
                    "%2f",
                    "%00",
                    "\\",
                    ";",
                    "?",
                    "ui",
                    "UI",
                    "login.html",
                    "healthz",
                    "session",
                ]
            )
        ),
    ),
    st.builds(lambda route, end: route[1] + end, st.sampled_from(sorted(PUBLIC)), st.text(min_size=1)),
    st.builds(lambda start, route: start + route[1], st.text(min_size=1), st.sampled_from(sorted(PUBLIC))),
)


@given(paths, st.sampled_from(["GET", "POST", "HEAD", "DELETE", "OPTIONS", "PUT", "FOO"]), st.integers(0, 3))
@example("/ui/%2e%2e/programs", "GET", 1)
async def test_no_path_but_a_public_one_is_let_through(path: str, method: str, encodings: int) -> None:
    """However often it is percent-encoded: a server decodes once, and that is what is compared."""
    for _ in range(encodings):
        path = quote(path, safe="", errors="surrogatepass")
    decoded = unquote(path, errors="replace")

    answer = await raw(
        guarded(auth=LOCKED), decoded, method=method, raw_path=path.encode("utf-8", "surrogatepass")
    )

    listed = ("GET" if method == "HEAD" else method, decoded) in PUBLIC
    assert (answer.status == 200) == listed
    assert listed or answer.status == 401


LOCKED = Auth(None, environ={})


async def test_a_gateway_may_be_public_by_its_exact_route(auth: Auth) -> None:
    guard = guarded(auth=auth, public=[("post", "/hooks/x")])
    tried = [
        ("POST", "/hooks/x"),
        ("GET", "/hooks/x"),
        ("POST", "/hooks/x/"),
        ("POST", "/hooks/xy"),
        ("POST", "/hooks"),
    ]

    assert [(await raw(guard, path, method=method)).status for method, path in tried] == [
        200,
        401,
        401,
        401,
        401,
    ]


@pytest.mark.parametrize("inner_first", [False, True])
async def test_a_mounted_app_has_its_own_paths(auth: Auth, key: bytes, inner_first: bool) -> None:
    inner = FastAPI()
    inner.add_middleware(Guard, settings=OPEN, auth=auth)
    for path in ("/healthz", "/programs"):
        inner.add_api_route(path, lambda: "in")
    outer = Starlette(routes=[Mount("/ai", app=inner)])

    async with client(outer) as browser:
        statuses = {
            path: (await browser.get(path)).status_code
            for path in (
                "/ai/healthz",
                "/ai/programs",
                "/ai/ai/healthz",
                "/healthz",
                "/ai/healthz/../programs",
            )
        }
        allowed = await browser.get("/ai/programs", headers={"x-api-key": key.decode()})
        visit = await browser.get("/ai/runs/1?x=2", headers={"accept": "text/html"})

    assert statuses["/ai/healthz"] == 200
    assert statuses["/ai/programs"] == statuses["/ai/ai/healthz"] == 401
    assert statuses["/ai/healthz/../programs"] == 401
    assert statuses["/healthz"] == 404
    assert allowed.json() == "in"
    assert visit.headers["location"] == "/ai/ui/login.html?next=/ai/runs/1%3Fx%3D2"


# --- visitors without a key ---


@pytest.mark.parametrize("mode", [{}, {"sec-fetch-mode": "navigate"}])
async def test_a_browser_that_visits_is_sent_to_the_login(auth: Auth, mode: dict[str, str]) -> None:
    """Row C2: curl was sent to a page, too."""
    async with client(guarded(auth=auth)) as browser:
        answer = await browser.get(
            "/runs/a b?c=d&e=é", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"} | mode
        )

    assert answer.status_code == 303
    location = urlsplit(answer.headers["location"])
    assert (location.scheme, location.netloc, location.path) == ("", "", LOGIN)
    assert parse_qs(location.query) == {"next": ["/runs/a b?c=d&e=%C3%A9"]}
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"accept": "*/*"}),
        ("GET", {"accept": "application/json"}),
        ("GET", {"accept": "text/event-stream"}),
        ("GET", {"accept": "text/html", "sec-fetch-mode": "cors"}),
        ("GET", {"accept": "text/html", "sec-fetch-mode": "no-cors"}),
        ("POST", {"accept": "text/html"}),
        ("DELETE", {"accept": "text/html"}),
    ],
)
async def test_a_program_that_calls_is_told_in_json(auth: Auth, method: str, headers: dict[str, str]) -> None:
    async with client(guarded(auth=auth)) as browser:
        answer = await browser.request(method, "/runs", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "//evil.example/..",
        "/\\evil.example",
        "\\\\evil.example",
        "/a\\b",
        "/a\r\nSet-Cookie: x",
        "https://evil.example",
        "",
    ],
)
async def test_the_login_leads_nowhere_else(auth: Auth, path: str) -> None:
    answer = await raw(guarded(auth=auth), path, headers=[(b"accept", b"text/html")])

    assert answer.status == 303
    assert answer.headers["location"] == LOGIN


@given(st.text(), st.binary())
async def test_whatever_is_visited_the_login_is_local(path: str, query: bytes) -> None:
    answer = await raw(
        guarded(auth=LOCKED), f"/x{path}", headers=[(b"accept", b"text/html")], query_string=query
    )

    location = urlsplit(answer.headers["location"])
    assert (location.scheme, location.netloc, location.path) == ("", "", LOGIN)
    assert all(next.startswith("/x") for next in parse_qs(location.query).get("next", []))


async def test_a_script_in_the_address_is_not_in_the_answer(auth: Auth) -> None:
    """Row C4: `/login?error=<script>` was in the page."""
    async with client(guarded(auth=auth)) as browser:
        for headers in ({"accept": "text/html"}, {}):
            answer = await browser.get("/runs?error=<script>alert(1)</script>", headers=headers)
            assert "<script>" not in answer.text + str(answer.headers)


# --- tokens for EventSource ---


async def test_a_token_opens_the_events_of_its_run_and_nothing_else(auth: Auth) -> None:
    guard = guarded(auth=auth)
    query = f"after=3&token={auth.sign('r1')}".encode()
    tried = [
        ("GET", "/runs/r1/events"),
        ("GET", "/runs/r2/events"),
        ("GET", "/runs/r1"),
        ("GET", "/runs/r1/events/"),
        ("GET", "/runs/r1/events\n"),
        ("GET", "/runs//r1/events"),
        ("GET", "/x/runs/r1/events"),
        ("GET", "/runs/r1/../r1/events"),
        ("GET", "/RUNS/r1/events"),
        ("POST", "/runs/r1/events"),
        ("HEAD", "/runs/r1/events"),
        ("GET", "/runs"),
        ("GET", "/programs"),
    ]

    statuses = [(await raw(guard, path, method=method, query_string=query)).status for method, path in tried]

    assert statuses == [200] + [401] * 12


async def test_an_expired_a_changed_and_a_repeated_token_open_nothing(auth: Auth) -> None:
    guard, good = guarded(auth=auth), auth.sign("r1")
    expires, _, signature = good.partition(".")
    wrong = [
        f"token={auth.sign('r1', -1)}",
        f"token={int(expires) + 60}.{signature}",
        f"token={good[:-1]}",
        f"token={good}&token={good}",
        f"token={good}&token=x",
        f"TOKEN={good}",
        "token=",
        "token=%ff%fe",
        "token=" + "9" * 60_000,
    ]

    for query in wrong:
        answer = await raw(guard, "/runs/r1/events", query_string=query.encode())
        assert answer.status == 401, query


# --- hosts ---


async def visit(guard: Guard, host: bytes) -> int:
    return (await raw(guard, host=False, headers=[(b"host", host)])).status


@pytest.mark.parametrize(
    "host",
    [b"localhost", b"localhost:1", b"LocalHost:65535", b"127.0.0.1", b"127.0.0.1:9", b"[::1]", b"[::1]:8000"],
)
async def test_this_machine_is_called_by_its_names(host: bytes) -> None:
    assert await visit(guarded(), host) == 200


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"evil.example:8000",
        b"localhost.evil.example",
        b"evil.example@localhost",
        b"localhost@evil.example",
        b"localhost:8000@evil.example",
        b"localhost:x",
        b"localhost/",
        b"localhost ",
        b"localhost,evil.example",
        b"127.0.0.1.nip.io",
        b"127.0.0.2",
        b"0.0.0.0",
        b"192.168.1.7",
        b"::1",
        b"[::1",
        b"*",
        b"",
        b"\xff\xfe",
    ],
)
async def test_a_name_that_was_rebound_to_us_is_refused(host: bytes) -> None:
    answer = await raw(guarded(), host=False, headers=[(b"host", host)])

    assert answer.status == 421
    assert "server.allowed_hosts" in answer.problem["detail"]


async def test_no_host_or_two_are_refused() -> None:
    assert (await raw(guarded(), host=False)).status == 421
    assert (await raw(guarded(), headers=[(b"host", b"localhost:8000")])).status == 421
    assert (await raw(guarded(), headers=[(b"host", b"evil.example")])).status == 421


async def test_hosts_are_added_by_name_by_port_or_all() -> None:
    named = guarded(
        settings=ServerSettings(allowed_hosts=("App.example.com", "b.example:8443", "[2001:db8::1]"))
    )
    hosts = (b"app.example.com", b"app.example.com:9", b"b.example:8443", b"[2001:db8::1]:1", b"localhost")
    assert [await visit(named, host) for host in hosts] == [200] * 5
    assert [await visit(named, host) for host in (b"b.example", b"x.app.example.com")] == [421, 421]

    anything = guarded(settings=ServerSettings(allowed_hosts=("*",)))
    assert await visit(anything, b"whatever.example") == 200


async def test_the_bound_host_is_ours_and_a_wildcard_is_every_number_but_no_name() -> None:
    """Who rebinds a name cannot choose that a browser sends a number; probes and docker send numbers."""
    assert await visit(guarded(settings=ServerSettings(host="192.168.1.7")), b"192.168.1.7:80") == 200
    assert await visit(guarded(settings=ServerSettings(host="2001:db8::7")), b"[2001:db8::7]:80") == 200
    everywhere = guarded(settings=ServerSettings(host="0.0.0.0"))
    assert await visit(everywhere, b"10.1.2.3:8000") == 200
    assert await visit(everywhere, b"[fe80::1]:8000") == 200
    assert await visit(everywhere, b"evil.example") == 421


@pytest.mark.parametrize("host", ["https://example.com", "example.com/x", "a b", "", "*.example.com", "::1"])
def test_a_host_that_would_never_match_is_refused_at_the_start(host: str) -> None:
    with pytest.raises(BadSetting, match="allowed_hosts"):
        guarded(settings=ServerSettings(allowed_hosts=(host,)))


# --- origins ---

FRIENDLY = ServerSettings(allowed_origins=("https://app.example.com", "http://localhost:5173"))


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost:8000"},
        {"origin": "http://LOCALHOST:8000", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
    ],
)
async def test_our_own_pages_and_programs_may_call(method: str, headers: dict[str, str]) -> None:
    async with client(guarded()) as browser:
        assert (await browser.request(method, "/x", headers=headers)).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://localhost:3000", "cookie": "session=sent along"},
        {"origin": "http://localhost"},
        {"origin": "http://localhost:8000.evil.example"},
        {"origin": "http://evil.example@localhost:8000"},
        {"origin": "ftp://localhost:8000"},
        {"origin": "localhost:8000"},
        {"origin": "http://localhost:8000", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"origin": "https://evil.example", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    ],
)
async def test_pages_of_other_sites_may_not(method: str, headers: dict[str, str]) -> None:
    preflight = {"access-control-request-method": "POST"} if method == "OPTIONS" else {}
    async with client(guarded(settings=FRIENDLY)) as browser:
        answer = await browser.request(method, "/x", headers=headers | preflight)

    assert answer.status_code == 403
    assert "server.allowed_origins" in answer.json()["detail"]
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_two_origins_are_none() -> None:
    twice = [(b"origin", b"http://localhost:8000"), (b"origin", b"https://evil.example")]

    assert (await raw(guarded(), headers=twice)).status == 403


async def test_a_link_from_elsewhere_may_be_followed_but_not_a_form_sent() -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    async with client(guarded()) as browser:
        assert (await browser.get("/", headers=link)).status_code == 200
        assert (await browser.post("/", headers=link)).status_code == 403


@pytest.mark.parametrize("path", ["/hook/get", "/hook/get\n", "/hook/by/7", "/hook/by/7\n"])
async def test_no_link_from_elsewhere_leads_to_a_gateway(path: str) -> None:
    """A GET runs a program there. The router, too, takes a line's end after a path for nothing."""
    guard = guarded(any_content=[("GET", "/hook/get"), ("get", "/hook/by/{id}")])
    link = [
        (b"sec-fetch-site", b"cross-site"),
        (b"sec-fetch-mode", b"navigate"),
        (b"sec-fetch-dest", b"document"),
    ]

    assert (await raw(guard, path, headers=link)).status == 403
    assert (await raw(guard, path)).status == 200
    assert (await raw(guard, path, headers=[(b"sec-fetch-site", b"none"), *link[1:]])).status == 200
    assert (await raw(guard, "/hook/by/7/more", headers=link)).status == 200


async def test_an_insecure_page_of_the_same_name_is_another_origin() -> None:
    page = [(b"origin", b"http://localhost:8000")]

    assert (await raw(guarded(), headers=page, scheme="https")).status == 403
    assert (
        await raw(guarded(), headers=[(b"origin", b"https://localhost:8000")], scheme="http")
    ).status == 200


@pytest.mark.parametrize("origin", FRIENDLY.allowed_origins)
async def test_allowed_origins_are_told_they_may_call(origin: str, auth: Auth, key: bytes) -> None:
    async with client(guarded(settings=FRIENDLY, auth=auth), headers={"origin": origin}) as browser:
        preflight = await browser.options(
            "/runs", headers={"access-control-request-method": "POST", "sec-fetch-site": "cross-site"}
        )
        called = await browser.post(
            "/runs", headers={"x-api-key": key.decode(), "sec-fetch-site": "cross-site"}
        )
        refused = await browser.get("/runs")

    assert (preflight.status_code, called.status_code, refused.status_code) == (204, 200, 401)
    for answer in (preflight, called, refused):
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "Origin"
    assert "X-API-Key" in preflight.headers["access-control-allow-headers"]


async def test_nobody_else_is_told_anything(auth: Auth) -> None:
    async with client(guarded(settings=FRIENDLY)) as browser:
        plain = await browser.get("/runs")
    async with client(guarded()) as browser:
        closed = await browser.get("/runs")

    assert plain.headers["vary"] == "Origin"
    assert "vary" not in closed.headers
    for answer in (plain, closed):
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "origin", ["*", "null", "https://example.com/", "example.com", "https://*.example.com", ""]
)
def test_an_origin_is_named_in_full_and_never_all(origin: str) -> None:
    with pytest.raises(BadSetting, match="allowed_origins"):
        guarded(settings=ServerSettings(allowed_origins=(origin,)))


@pytest.mark.parametrize("setting", [{"allowed_hosts": ("a b",)}, {"allowed_origins": ("*",)}])
def test_an_app_is_not_made_with_names_that_match_nothing(setting: dict[str, Any]) -> None:
    """Starlette makes its middleware at the first request, where this would be a 500 for ever."""
    with pytest.raises(BadSetting, match=next(iter(setting))):
        create_app([], settings=ServerSettings(**setting))


# --- content types ---


@pytest.mark.parametrize(
    "content",
    [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/problem+json",
        "application/vnd.api+json",
    ],
)
async def test_json_may_be_sent(content: str) -> None:
    async with client(guarded()) as browser:
        assert (
            await browser.post("/x", content=b"{}", headers={"content-type": content})
        ).text == "POST /x 2"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize(
    "content",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
        "text/json",
        "application/jsonx",
        "application/xjson",
        "application/json, text/plain",
        "",
        ";application/json",
        "\xff",
    ],
)
@pytest.mark.parametrize("body", [b"{}", b""])
async def test_what_a_form_can_send_is_refused(method: str, content: str, body: bytes) -> None:
    """Cross-site request forgery: a form can send three content types without asking, and none is JSON."""
    headers = [(b"content-type", content.encode("latin-1")), (b"content-length", b"%d" % len(body))]

    answer = await raw(guarded(), "/x", method=method, headers=headers, body=[body])

    assert answer.status == 415
    assert answer.headers["accept"] == "application/json"


@pytest.mark.parametrize("framing", [(b"content-length", b"2"), (b"transfer-encoding", b"chunked")])
async def test_a_body_needs_a_content_type_and_no_body_needs_none(framing: tuple[bytes, bytes]) -> None:
    assert (await raw(guarded(), method="POST", headers=[framing], body=[b"{}"])).status == 415
    assert (await raw(guarded(), method="POST")).status == 200
    assert (await raw(guarded(), method="POST", headers=[(b"content-length", b"0")])).status == 200


async def test_a_gateway_may_take_other_content() -> None:
    guard = guarded(any_content=[("POST", "/hooks/form"), ("POST", "/hooks/of/{name}")])
    form = [(b"content-type", b"application/x-www-form-urlencoded")]

    assert (await raw(guard, "/hooks/form", method="POST", headers=form)).status == 200
    assert (await raw(guard, "/hooks/of/ada", method="POST", headers=form)).status == 200
    assert (await raw(guard, "/hooks/of/", method="POST", headers=form)).status == 415
    assert (await raw(guard, "/hooks/other", method="POST", headers=form)).status == 415


# --- sizes ---

SMALL = ServerSettings(max_request_bytes=10)
SENT = (b"content-type", b"application/json")


@pytest.mark.parametrize("body", [[b"x" * 10], [b"x"] * 10, [b""]])
async def test_a_body_of_the_limit_is_taken(body: list[bytes]) -> None:
    answer = await raw(guarded(settings=SMALL), method="POST", headers=[SENT], body=body)

    assert answer.body == b"POST /programs %d" % sum(map(len, body))


@pytest.mark.parametrize(
    ("lengths", "body"),
    [
        ([b"11"], [b"x" * 11]),
        ([b"9" * 18], [b""]),
        ([b"9" * 5000], [b""]),
        ([b"10"], [b"x" * 11]),
        ([b"0"], [b"x" * 6, b"x" * 6]),
        ([], [b"x" * 11]),
        ([], [b"x"] * 11),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a_larger_body_is_refused_whatever_it_says_of_its_length(
    lengths: list[bytes], body: list[bytes], method: str
) -> None:
    headers = [SENT, *((b"content-length", length) for length in lengths)]

    answer = await raw(guarded(settings=SMALL), method=method, headers=headers, body=body)

    assert answer.status == 413
    assert answer.problem["max_bytes"] == 10
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("lengths", [[b"-1"], [b"ten"], [b""], [b"5", b"5"], [b"5", b"6"], ["٣".encode()]])
async def test_a_length_that_is_none_is_refused(lengths: list[bytes]) -> None:
    headers = [SENT, *((b"content-length", length) for length in lengths)]

    assert (await raw(guarded(settings=SMALL), method="POST", headers=headers)).status == 400


class Inputs(BaseModel):
    text: str


def fastapi_app(settings: ServerSettings = SMALL) -> FastAPI:
    app = FastAPI()
    install(app, debug=settings.debug)
    app.add_middleware(Guard, settings=settings)

    @app.post("/ask")
    async def ask(inputs: Inputs) -> str:
        return inputs.text

    @app.get("/boom")
    def boom() -> None:
        raise RuntimeError("postgres://admin:hunter2@db/prod")

    @app.get("/late")
    def late() -> StreamingResponse:
        def frames() -> Generator[bytes]:
            yield b"first"
            raise RuntimeError("too late for a status")

        return StreamingResponse(frames())

    return app


async def test_fastapi_cannot_turn_a_413_into_something_else() -> None:
    """FastAPI answers 400 to whatever goes wrong while it reads a body."""

    async def chunks() -> AsyncGenerator[bytes]:
        for _ in range(20):
            yield b"x"

    async with client(fastapi_app()) as browser:
        answer = await browser.post("/ask", content=chunks(), headers=JSON)

    assert answer.status_code == 413
    assert answer.json()["max_bytes"] == 10


async def test_an_app_that_has_begun_to_answer_finishes_and_reads_no_more() -> None:
    async def eager(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        read = [(await receive())["type"] for _ in range(4)]
        await send({"type": "http.response.body", "body": " ".join(read).encode()})

    answer = await raw(guarded(eager, settings=SMALL), method="POST", headers=[SENT], body=[b"x" * 8] * 3)

    assert answer.status == 200
    assert answer.body == b"http.request http.disconnect http.disconnect http.disconnect"


@contextmanager
def served(app: ASGIApp) -> Generator[int]:
    """Serve on a free port, over a real socket."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.mark.parametrize(
    "request_",
    [
        b"Content-Length: 2000000000\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n14\r\n" + b"x" * 20 + b"\r\n14\r\n",
    ],
)
def test_over_a_socket_too_it_is_answered_before_it_is_read(request_: bytes) -> None:
    head = b"POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with (
        served(fastapi_app()) as port,
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
    ):
        connection.sendall(head + request_)
        answer = b""
        while more := connection.recv(65536):
            answer += more

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer
    assert b'"max_bytes": 10' in answer


# --- what goes out ---


async def answers(app: ASGIApp, *requests: tuple[str, str, dict[str, str]]) -> list[httpx.Response]:
    async with client(app) as browser:
        return [await browser.request(method, path, headers=headers) for method, path, headers in requests]


async def test_every_response_has_security_headers(auth: Auth) -> None:
    whole = await answers(
        fastapi_app(),
        ("GET", "/openapi.json", {}),
        ("GET", "/nothing", {}),
        ("GET", "/boom", {}),
        ("GET", "/late", {}),
        ("GET", "/x", {"host": "evil.example"}),
        ("POST", "/ask", {"content-type": "text/plain"}),
        ("GET", "/x", {"origin": "null"}),
    )
    locked = await answers(guarded(auth=auth), ("GET", "/", {}), ("GET", "/", {"accept": "text/html"}))

    assert [answer.status_code for answer in [*whole, *locked]] == [
        200,
        404,
        500,
        200,
        421,
        415,
        403,
        401,
        303,
    ]
    for answer in [*whole, *locked]:
        for name, value in SECURITY_HEADERS:
            assert answer.headers[name.decode()] == value.decode(), (answer.status_code, name)


async def test_no_script_runs_that_is_not_ours() -> None:
    policy = dict(SECURITY_HEADERS)[b"content-security-policy"].decode()

    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in policy
    assert "http" not in policy


async def test_an_app_may_choose_a_header_itself() -> None:
    async def own(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({}, headers={"X-Frame-Options": "SAMEORIGIN"})(scope, receive, send)

    [answer] = await answers(guarded(own), ("GET", "/", {}))

    assert answer.headers.get_list("x-frame-options") == ["SAMEORIGIN"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(("debug", "told"), [(False, False), (True, True)])
async def test_a_crash_tells_nothing_unless_debugging(debug: bool, told: bool) -> None:
    app = fastapi_app(ServerSettings(debug=debug))

    [answer] = await answers(app, ("GET", "/boom", {}))

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("hunter2" in answer.text) is told


async def test_a_crash_still_reaches_the_servers_log() -> None:
    with pytest.raises(RuntimeError, match="hunter2"):
        await raw(fastapi_app(), "/boom")


async def test_frames_pass_through_one_by_one_as_they_are() -> None:
    frames = [b"id: 0\n\n", b"", b"id: 1\n\n"]
    passed: list[Message] = []
    waiting = asyncio.Event()

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream")],
            }
        )
        for frame in frames:
            await send({"type": "http.response.body", "body": frame, "more_body": True})
            assert passed[-1]["body"] is frame  # sent on before the next was made
        await waiting.wait()

    async def send(message: Message) -> None:
        passed.append(message)
        if message.get("body") is frames[-1]:
            waiting.set()

    async def receive() -> Message:
        return {"type": "http.request"}

    async with asyncio.timeout(5):
        await guarded(stream)(
            {"type": "http", "method": "GET", "path": "/", "headers": list(HEADERS)}, receive, send
        )

    assert [message.get("body") for message in passed[1:]] == frames
    assert (b"content-type", b"text/event-stream") in passed[0]["headers"]


async def test_a_cancelled_stream_is_cancelled() -> None:
    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await raw(guarded(endless))


# --- other kinds of connection ---


@pytest.mark.parametrize(
    ("headers", "opened"),
    [
        ([], False),
        ([(b"authorization", b"Bearer %s")], True),
        ([(b"authorization", b"Bearer %s"), (b"origin", b"https://evil.example")], False),
    ],
)
async def test_websockets_are_guarded_too(
    auth: Auth, key: bytes, headers: list[tuple[bytes, bytes]], opened: bool
) -> None:
    sent: list[Message] = []

    async def accept(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    carried = [(name, value % key if b"%s" in value else value) for name, value in headers]
    scope = {"type": "websocket", "path": "/healthy", "headers": [*HEADERS, *carried], "scheme": "ws"}
    await guarded(accept, auth=auth)(scope, receive, send)

    assert [message["type"] for message in sent] == ["websocket.accept" if opened else "websocket.close"]


async def test_the_lifespan_passes_through() -> None:
    began: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        began.append(scope["type"])

    await guarded(app)({"type": "lifespan"}, _never, _never_send)

    assert began == ["lifespan"]


async def _never() -> Message:
    raise AssertionError


async def _never_send(message: Message) -> None:
    raise AssertionError(message)
