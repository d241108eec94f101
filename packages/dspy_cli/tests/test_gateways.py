"""API gateways: their own paths, what hooks see and may answer, and what is refused."""

import asyncio
import hashlib
import hmac
import json
import logging
import re
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import dspy
import httpx
import pytest
from dspy_cli.errors import InvalidGateway
from dspy_cli.gateways import APIGateway, Gateway, Refuse, Request
from dspy_cli.gateways.api import paths, routes
from dspy_cli.project.config import ServerSettings
from dspy_cli.project.programs import Program, program
from dspy_cli.server import problems
from dspy_cli.server.app import create_app
from dspy_cli.server.auth import Auth
from dspy_cli.server.metrics import Metrics
from dspy_cli.server.runs import Runs
from fastapi import FastAPI
from logs import new_name
from pydantic import BaseModel
from scripted import chat, lm
from starlette.responses import PlainTextResponse

ANSWER = chat(answer="42")


def served(gateway: type[Gateway] | None, *, name: str = "QA", reply: Any = ANSWER) -> Program:
    class Module(dspy.Module):
        """Answers questions."""

        def __init__(self) -> None:
            super().__init__()
            self.predict = dspy.Predict("question, count: int -> answer")

        def forward(self, question: str, count: int = 1) -> dspy.Prediction:
            return self.predict(question=question, count=count)

    Module.gateway = gateway  # pyright: ignore[reportAttributeAccessIssue]
    return program(Module, name=name, lm=lm(reply))


@asynccontextmanager
async def client(*programs: Program) -> AsyncGenerator[httpx.AsyncClient]:
    runs = Runs(f"memory:{new_name()}", ServerSettings(), observer=Metrics())
    app = FastAPI()
    problems.install(app)
    app.include_router(routes(programs, runs))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=20) as opened:
        yield opened
    await runs.drain()


async def answered(
    gateway: type[Gateway], *, method: str = "POST", path: str = "/hook", **sent: Any
) -> httpx.Response:
    async with client(served(gateway)) as opened:
        return await opened.request(method, path, **sent)


# --- requests and responses ---------------------------------------------------------------------------------


class Hook(APIGateway):
    path = "/hook"

    def to_pipeline_inputs(self, request: Request) -> dict[str, Any]:
        return {"question": request["event"]["text"]}

    def from_pipeline_output(self, output: Mapping[str, Any]) -> dict[str, Any]:
        return {"reply": output["answer"]}


async def test_a_gateway_has_its_own_path_request_and_response() -> None:
    response = await answered(Hook, json={"event": {"text": "6 * 7?"}})

    assert response.json() == {"reply": "42"}
    assert response.headers["run-id"]


async def test_hooks_may_be_coroutine_functions() -> None:
    class Async(APIGateway):
        path = "/hook"

        async def to_pipeline_inputs(self, request: Request) -> dict[str, Any]:
            await asyncio.sleep(0)
            return {"question": request.json()}

        async def from_pipeline_output(self, output: Mapping[str, Any]) -> list[Any]:
            await asyncio.sleep(0)
            return [output["answer"]]

    assert (await answered(Async, json="6 * 7?")).json() == ["42"]


async def test_a_plain_hook_that_blocks_does_not_block_the_server() -> None:
    threads: list[threading.Thread] = []

    class Blocking(APIGateway):
        path = "/hook"

        def to_pipeline_inputs(self, request: Request) -> dict[str, Any]:
            threads.append(threading.current_thread())
            return request.json()

    await answered(Blocking, json={"question": "?"})

    assert threads[0] is not threading.main_thread()


async def test_without_hooks_it_is_the_program_at_another_address() -> None:
    class Plain(APIGateway):
        pass

    assert (await answered(Plain, path="/QA", json={"question": "?"})).json() == {"answer": "42"}


async def test_a_get_takes_its_inputs_from_the_query() -> None:
    class Read(APIGateway):
        path, method = "/hook", "GET"

    response = await answered(Read, method="GET", params={"question": "?", "count": "3"})

    assert response.json() == {"answer": "42"}


async def test_a_hook_sees_the_whole_request() -> None:
    seen: list[Request] = []

    class Seeing(APIGateway):
        path = "/hooks/{source}"

        def to_pipeline_inputs(self, request: Request) -> dict[str, Any]:
            seen.append(request)
            return {"question": "?"}

    body = b" not JSON \xff"
    await answered(Seeing, path="/hooks/github?a=1&b=%20", content=body, headers={"X-Event": "push"})

    request = seen[0]
    assert (request.method, request.path, request.body) == ("POST", "/hooks/github", body)
    assert (request.query, request.path_params) == ({"a": "1", "b": " "}, {"source": "github"})
    assert request.headers["x-event"] == "push"


async def test_a_request_cannot_be_changed() -> None:
    request = Request(method="POST", path="/", headers={}, query={}, path_params={}, body=b"1")

    with pytest.raises(AttributeError):
        request.body = b"2"  # pyright: ignore[reportAttributeAccessIssue]


async def test_keys_with_an_underscore_are_notes_and_not_inputs() -> None:
    class Noting(APIGateway):
        path = "/hook"

        def to_pipeline_inputs(self, request: Request) -> dict[str, Any]:
            return {"question": "?", "_meta": {"id": 7}}

    assert (await answered(Noting)).status_code == 200


class Verdict(BaseModel):
    label: str
    score: float


@pytest.mark.parametrize(
    ("returned", "body"),
    [
        (Verdict(label="a", score=0.5), b'{"label":"a","score":0.5}'),
        ([1, None, "\N{SNOWMAN}"], '[1,null,"\N{SNOWMAN}"]'.encode()),
        ({"x": float("nan")}, b'{"x":null}'),
        (None, b"null"),
        (PlainTextResponse("done", 201), b"done"),
    ],
)
async def test_a_response_is_whatever_has_a_json_form_or_a_response(returned: object, body: bytes) -> None:
    class Returning(APIGateway):
        path = "/hook"

        def from_pipeline_output(self, output: Mapping[str, Any]) -> object:
            return returned

    response = await answered(Returning, json={"question": "?"})

    assert response.content == body
    assert response.status_code == (201 if body == b"done" else 200)


# --- refusals -----------------------------------------------------------------------------------------------


class Default(APIGateway):
    path = "/hook"


@pytest.mark.parametrize(
    ("gateway", "body", "status", "told"),
    [
        (Hook, b"{", 400, "must be JSON"),
        (Hook, b"", 400, "must be JSON"),
        (Hook, b"[1]", 422, "'event'"),
        (Hook, b"{}", 422, "'event'"),
        (Default, b"{}", 422, "question"),
        (Default, b"[]", 422, "errors"),
        (Default, b'{"question": "?", "other": 1}', 422, "other"),
        (Default, b'{"question": "?", "count": "many"}', 422, "count"),
    ],
)
async def test_wrong_inputs_are_refused(gateway: type[Gateway], body: bytes, status: int, told: str) -> None:
    response = await answered(gateway, content=body)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert told in response.text


async def test_a_hook_refuses_a_request_and_nothing_is_run() -> None:
    class Refusing(APIGateway):
        path = "/hook"

        def to_pipeline_inputs(self, request: Request) -> dict[str, Any]:
            raise Refuse(401, "Wrong signature.", headers={"WWW-Authenticate": "Signature"})

    response = await answered(Refusing)

    assert (response.status_code, response.json()["detail"]) == (401, "Wrong signature.")
    assert response.headers["www-authenticate"] == "Signature"
    assert "run-id" not in response.headers


class BrokenBefore(APIGateway):
    path = "/hook"

    def to_pipeline_inputs(self, request: Request) -> dict[str, Any]:
        raise KeyError("hunter2")


class BrokenAfter(APIGateway):
    path = "/hook"

    async def from_pipeline_output(self, output: Mapping[str, Any]) -> object:
        raise ValueError("hunter2")


class Unserialisable(APIGateway):
    path = "/hook"

    def from_pipeline_output(self, output: Mapping[str, Any]) -> object:
        return {"hunter2": object()}


@pytest.mark.parametrize("gateway", [BrokenBefore, BrokenAfter, Unserialisable])
async def test_a_hook_that_fails_is_logged_and_its_words_are_not_told(
    gateway: type[Gateway], caplog: pytest.LogCaptureFixture
) -> None:
    response = await answered(gateway, json={"question": "?"})

    assert response.status_code == 500
    assert gateway.__name__ in response.json()["detail"]
    assert "hunter2" not in response.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_program_that_fails_is_a_problem() -> None:
    async with client(served(Default, reply=ValueError("hunter2"))) as opened:
        response = await opened.post("/hook", json={"question": "?"})

    assert response.status_code >= 500
    assert response.json()["title"] == "The program failed"
    assert "hunter2" not in response.text


# --- once ---------------------------------------------------------------------------------------------------


async def test_a_delivery_that_is_repeated_runs_once() -> None:
    class Delivered(APIGateway):
        path = "/hook"

        def idempotency_key(self, request: Request) -> str | None:
            return request.headers["x-delivery"]

    async with client(served(Delivered)) as opened:
        runs = [
            (await opened.post("/hook", json={"question": "?"}, headers={"X-Delivery": id})).headers["run-id"]
            for id in ("a", "a", "b")
        ]

    assert runs[0] == runs[1] != runs[2]


async def test_a_key_of_one_program_opens_no_run_of_another() -> None:
    class Other(APIGateway):
        path = "/other"

    async with client(served(Default), served(Other, name="Other")) as opened:
        sent = {"json": {"question": "?"}, "headers": {"Idempotency-Key": "k"}}
        one, other = [(await opened.post(path, **sent)).headers["run-id"] for path in ("/hook", "/other")]

    assert one != other


# --- a webhook that is signed -------------------------------------------------------------------------------

SECRET = b"It's a Secret to Everybody"


class GitHub(APIGateway):
    path = "/webhooks/github"
    requires_auth = False

    def to_pipeline_inputs(self, request: Request) -> dict[str, Any]:
        wanted = "sha256=" + hmac.new(SECRET, request.body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(wanted.encode(), request.headers.get("x-hub-signature-256", "").encode()):
            raise Refuse(401, "Wrong signature.")
        return {"question": request["issue"]["title"]}


@pytest.mark.parametrize(("secret", "status"), [(SECRET, 200), (b"guessed", 401)])
async def test_a_signature_over_the_body_can_be_checked(secret: bytes, status: int) -> None:
    body = json.dumps({"issue": {"title": "It is broken"}}, indent=1).encode()
    signature = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()

    response = await answered(
        GitHub, path="/webhooks/github", content=body, headers={"X-Hub-Signature-256": signature}
    )

    assert response.status_code == status


# --- in the app ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def app_client(*programs: Program) -> AsyncGenerator[httpx.AsyncClient]:
    """Of the whole app, which asks for keys."""
    app = create_app(programs, auth=Auth())
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=20) as opened,
    ):
        yield opened


class Form(APIGateway):
    path = "/forms/ask"
    requires_auth = False

    def to_pipeline_inputs(self, request: Request) -> dict[str, Any]:
        return {"question": dict(parse_qsl(request.body.decode()))["text"]}


async def test_a_public_gateway_needs_no_key_and_opens_nothing_else() -> None:
    async with app_client(served(Form)) as opened:
        answers = [
            await opened.post("/forms/ask", data={"text": "6 * 7?"}),
            await opened.post("/QA", json={"question": "?"}),
            await opened.post("/forms/ask/", data={"text": "?"}),
            await opened.get("/runs"),
        ]

    assert answers[0].json() == {"answer": "42"}
    assert [answer.status_code for answer in answers] == [200, 401, 401, 401]


async def test_a_private_gateway_needs_a_key() -> None:
    async with app_client(served(Default)) as opened:
        assert (await opened.post("/hook", json={"question": "?"})).status_code == 401


async def test_a_gateway_at_the_programs_own_path_is_what_answers_there() -> None:
    class Own(APIGateway):
        requires_auth = False

        def from_pipeline_output(self, output: Mapping[str, Any]) -> str:
            return "mine"

    async with app_client(served(Own)) as opened:
        assert (await opened.post("/QA", json={"question": "?"})).json() == "mine"


# --- what is shown ------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[3]
SIGNED = b'{"issue": {"title": "It is broken"}}'
SIGNATURE = "sha256=" + hmac.new(SECRET, SIGNED, hashlib.sha256).hexdigest()


def shown(file: str) -> Mapping[str, Any]:
    """Return what the Python of a page, or a program, defines."""
    text = (ROOT / file).read_text()
    blocks = (
        re.findall(r"^```py\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if file.endswith(".md") else [text]
    )
    names: dict[str, Any] = {"__name__": "shown"}
    for block in blocks:
        exec(block, names)
    return names


@pytest.mark.parametrize(
    ("file", "module", "gateway"),
    [("docs/gateways.md", "Answers", "GitHubGateway"), ("examples/gateways.py", "Label", "Issues")],
)
async def test_the_webhook_that_is_shown_checks_signatures(
    file: str, module: str, gateway: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = shown(file)
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", SECRET.decode())
    monkeypatch.setattr(names[module], "gateway", names[gateway])
    reply = chat(reasoning="r", answer="42", label="bug")

    async with client(program(names[module], lm=lm(reply))) as opened:
        answers = [
            await opened.post("/webhooks/github", content=SIGNED, headers={"X-Hub-Signature-256": signature})
            for signature in (SIGNATURE, SIGNATURE[:-1] + "x")
        ]

    assert [answer.status_code for answer in answers] == [200, 401]


async def test_the_gateways_that_are_shown_do_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    page = shown("docs/gateways.md")
    async with client(program(page["Answers"], lm=lm(chat(reasoning="r", answer="42")))) as opened:
        answer = await opened.post("/webhooks/slack", json={"event": {"text": "?"}})

    inbox, hourly = page["Inbox"](), shown("examples/gateways.py")["Hourly"]()
    (asked,) = await inbox.get_pipeline_inputs()
    await inbox.on_complete(asked, {"answer": "42"})
    await inbox.on_error(asked, ValueError("full"))
    (other,) = await hourly.get_pipeline_inputs()
    await hourly.on_complete(other, {"label": "order"})

    assert answer.json() == {"response_type": "in_channel", "text": "42"}
    assert capsys.readouterr().out == "7 42\n7 failed: full\n7 order\n"


# --- declarations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/a", "/webhooks/slack", "/v1/{tenant}/ask", "/a-b_c.d~e", "/x/{a}/{b_2}", "/.well-known/ask", ""],
)
def test_a_path_is_segments(path: str) -> None:
    declared = type("Declared", (APIGateway,), {"path": path})

    assert declared.path == path


@pytest.mark.parametrize(
    "path",
    [
        "a", "/", "//a", "/a/", "/a//b", "/a/../b", "/..", "/./a", "/a?b", "/a#b", "/a b", "/a%2e", "/a\n",
        "/\u00e9",         "/{a}", "/a/{}", "/a/{b:path}", "/a/x{b}", "/a\\b", "https://a/b",
    ],
)  # fmt: skip
def test_a_path_that_is_none_is_refused_where_it_stands(path: str) -> None:
    with pytest.raises(InvalidGateway, match="Declared has path = "):
        type("Declared", (APIGateway,), {"path": path})


@pytest.mark.parametrize("method", ["get", "HEAD", "TRACE", "", "POST\n"])
def test_a_method_that_is_none_is_refused(method: str) -> None:
    with pytest.raises(InvalidGateway, match="Declared has method = "):
        type("Declared", (APIGateway,), {"method": method})


def test_a_gateway_is_of_one_of_the_two_kinds() -> None:
    with pytest.raises(InvalidGateway, match="Declared is neither; subclass APIGateway or CronGateway"):
        type("Declared", (Gateway,), {})


def test_only_an_exact_path_can_be_public() -> None:
    with pytest.raises(InvalidGateway, match="is public"):
        type("Declared", (APIGateway,), {"path": "/a/{b}", "requires_auth": False})


def test_public_paths_are_those_of_gateways_that_need_no_key() -> None:
    public = type("Public", (APIGateway,), {"requires_auth": False})

    programs = [
        served(GitHub, name="A"),
        served(Hook, name="B"),
        served(public, name="C"),
        served(None, name="D"),
    ]

    assert paths(programs, public=True) == [("POST", "/webhooks/github"), ("POST", "/C")]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/runs/all", "dspy-cli itself"),
        ("/mcp", "dspy-cli itself"),
        ("/Other", "belongs to Other"),
        ("/Other/x", "belongs to Other"),
        ("/QA/stream", "streams"),
    ],
)
async def test_a_gateway_takes_no_path_of_anothers(path: str, told: str, runs: Runs) -> None:
    gateway = type("Taking", (APIGateway,), {"path": path})

    with pytest.raises(InvalidGateway, match=told):
        routes([served(gateway), served(None, name="Other")], runs)


async def test_two_gateways_do_not_share_a_path(runs: Runs) -> None:
    one = type("One", (APIGateway,), {"path": "/a/{x}"})
    two = type("Two", (APIGateway,), {"path": "/a/{y}"})

    with pytest.raises(InvalidGateway, match="gateway of A has already"):
        routes([served(one, name="A"), served(two, name="B")], runs)


async def test_one_path_may_have_two_methods(runs: Runs) -> None:
    read = type("Read", (APIGateway,), {"path": "/a", "method": "GET"})
    write = type("Write", (APIGateway,), {"path": "/a"})

    assert len(routes([served(read, name="A"), served(write, name="B")], runs).routes) == 2


@pytest.fixture
async def runs() -> Runs:
    return Runs(f"memory:{new_name()}", ServerSettings(), observer=Metrics())
