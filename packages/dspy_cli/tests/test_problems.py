"""Problems: every error a client sees is a document of RFC 9457 that says where, and keeps secrets."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
from dspy_cli.errors import DspyCliError
from dspy_cli.server.app import create_app
from dspy_cli.server.problems import Problem, install, response
from fastapi import FastAPI, HTTPException, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, field_validator


class Inner(BaseModel):
    size: int


class Inputs(BaseModel):
    model_config = ConfigDict(extra="forbid")

    question: str
    mood: Literal["calm", "wild"] = "calm"
    inner: dict[str, Inner] = {}

    @field_validator("question")
    @classmethod
    def _short(cls, question: str) -> str:
        if question.startswith("reject"):
            raise ValueError(f"I do not like {question}")
        return question


def app(*, debug: bool = False) -> FastAPI:
    made = FastAPI()
    install(made, debug=debug)

    @made.post("/ask")
    def ask(inputs: Inputs, limit: Annotated[int, Query(le=10)] = 5) -> int:
        return limit

    @made.get("/full")
    def full() -> None:
        raise Problem(429, "Eight runs wait.", headers={"Retry-After": "7"}, waiting=8)

    @made.get("/gone")
    def gone() -> None:
        raise HTTPException(410, {"reason": "cut"}, {"X-Why": "retention"})

    @made.get("/surrogate")
    def surrogate() -> None:
        raise RequestValidationError([{"type": "extra", "loc": ("body", "\ud800"), "msg": "not \udfff"}])

    @made.get("/boom")
    def boom() -> None:
        raise RuntimeError("postgres://admin:hunter2@db/prod")

    return made


async def said(method: str, path: str, *, debug: bool = False, **request: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app(debug=debug), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, path, **request)


def document(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    read = answer.json()
    assert read["status"] == answer.status_code
    return read


async def test_a_problem_is_sent_with_its_headers_and_members() -> None:
    answer = await said("GET", "/full")

    assert answer.headers["retry-after"] == "7"
    assert document(answer) == {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "Eight runs wait.",
        "waiting": 8,
    }


def test_a_problem_is_one_of_our_errors_and_reads_like_one() -> None:
    problem = Problem(418, "Short and stout.", title="Teapot", type="https://example.com/teapot")

    assert isinstance(problem, DspyCliError)
    assert str(problem) == "Short and stout."
    assert problem.document()["type"] == "https://example.com/teapot"
    assert problem.document()["title"] == "Teapot"


def test_a_status_without_a_name_and_a_problem_without_details_are_documents_too() -> None:
    assert json.loads(bytes(response(Problem(599)).body)) == {
        "type": "about:blank",
        "title": "Status 599",
        "status": 599,
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "title"),
    [("GET", "/nothing", 404, "Not Found"), ("GET", "/ask", 405, "Method Not Allowed")],
)
async def test_the_routers_own_errors_are_problems(method: str, path: str, status: int, title: str) -> None:
    answer = await said(method, path)

    assert document(answer) == {"type": "about:blank", "title": title, "status": status}


async def test_an_http_exception_keeps_its_headers_and_its_detail() -> None:
    answer = await said("GET", "/gone")

    assert answer.headers["x-why"] == "retention"
    assert document(answer)["detail"] == "{'reason': 'cut'}"


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ({}, "#/question", "Field required"),
        ({"question": "q", "mood": "sad"}, "#/mood", "Input should be 'calm' or 'wild'"),
        ({"question": "q", "inner": {"a": {}}}, "#/inner/a/size", "Field required"),
        ({"question": "q", "x/y~z é": 1}, "#/x~1y~0z%20%C3%A9", "Extra inputs are not permitted"),
    ],
)
async def test_a_wrong_input_is_pointed_at(body: object, pointer: str, detail: str) -> None:
    answer = await said("POST", "/ask", json=body)

    assert answer.status_code == 422
    assert document(answer)["errors"] == [{"pointer": pointer, "detail": detail}]


async def test_a_wrong_parameter_is_named() -> None:
    answer = await said("POST", "/ask?limit=11", json={"question": "q"})

    assert document(answer)["errors"] == [
        {"parameter": "limit", "in": "query", "detail": "Input should be less than or equal to 10"}
    ]


async def test_broken_json_is_pointed_at_by_character() -> None:
    answer = await said(
        "POST", "/ask", content=b'{"question": ', headers={"content-type": "application/json"}
    )

    assert document(answer)["errors"] == [
        {"pointer": "#", "detail": "not JSON at character 13: Expecting value"}
    ]


@pytest.mark.parametrize(
    "body",
    [{"question": "reject" + "x" * 10_000}, {"question": "q", "k" * 10_000: 1}, {"question": ["x" * 10_000]}],
)
async def test_what_a_client_sent_is_not_sent_back_at_length(body: object) -> None:
    answer = await said("POST", "/ask", json=body)

    assert answer.status_code == 422
    assert len(answer.content) < 700
    assert all(len(text) <= 200 for error in document(answer)["errors"] for text in error.values())


async def test_the_value_that_was_refused_is_not_repeated() -> None:
    answer = await said("POST", "/ask", json={"question": "q", "mood": "my password is hunter2"})

    assert "hunter2" not in answer.text


async def test_text_that_has_no_utf8_is_told_of_all_the_same() -> None:
    answer = await said("GET", "/surrogate")

    assert answer.status_code == 422
    assert document(answer)["errors"] == [{"pointer": "#/%3F", "detail": "not \udfff"}]


async def test_what_a_program_raised_stays_in_the_log() -> None:
    """Row C7: the password in an exception's text was sent to the client."""
    answer = await said("GET", "/boom")

    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    assert "RuntimeError" not in answer.text
    assert document(answer)["title"] == "Internal Server Error"


async def test_debug_tells_what_a_program_raised() -> None:
    answer = await said("GET", "/boom", debug=True)

    assert document(answer)["detail"] == "RuntimeError: postgres://admin:hunter2@db/prod"


async def test_a_log_that_refuses_is_a_503_that_names_no_file(tmp_path: Path) -> None:
    served = create_app([], events=f"sqlite:///{tmp_path}/nowhere/x.db")
    transport = httpx.ASGITransport(served, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as browser:
        answer = await browser.get("/runs")

    assert answer.status_code == 503
    assert "event log" in answer.json()["detail"]
    assert "nowhere" not in answer.text
