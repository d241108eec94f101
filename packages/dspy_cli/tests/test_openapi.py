"""The server holds to its own OpenAPI document, whatever is sent to it."""

import asyncio
from collections.abc import Generator

import dspy
import pytest
import schemathesis
from dspy_cli import ServerSettings, create_app
from dspy_cli.project.programs import program
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR
from scripted import chat, lm
from serving import qa, serve


class Adds(dspy.Module):
    """Takes numbers, a choice and a list; calls no model."""

    def forward(self, a: int, b: float = 0.5, words: list[str] | None = None) -> dspy.Prediction:
        return dspy.Prediction(total=a + b, words=words or [])


PROGRAMS = [
    program(Adds),
    qa(),
    program(dspy.Predict("text -> label: bool"), name="Spam", lm=lm(chat(label="True"))),
]
APP = create_app(PROGRAMS, settings=ServerSettings(timeout_seconds=10.0, shutdown_seconds=1.0, queue=1000))
DOCUMENT = schemathesis.openapi.from_dict(APP.openapi())


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    """Where the app is served while the tests of this file run."""
    with asyncio.Runner() as runner:
        serving = serve(APP)
        yield runner.run(serving.__aenter__()).url
        runner.run(serving.__aexit__(None, None, None))


@DOCUMENT.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_nothing_that_is_sent_makes_the_server_fail(url: str, case: schemathesis.Case) -> None:
    response = case.call(base_url=url)

    case.validate_response(response, checks=[not_a_server_error])


def test_the_document_is_valid_openapi_3_1() -> None:
    document = APP.openapi()

    assert document["openapi"].startswith("3.1")
    OPENAPI_31_VALIDATOR.validate(document)


def test_every_route_is_in_the_document_with_the_programs_own_models() -> None:
    document = APP.openapi()

    assert {
        *("/Adds", "/Adds/stream", "/QA", "/QA/stream", "/programs", "/runs", "/runs/{run_id}"),
        *("/runs/{run_id}/events", "/runs/{run_id}/cancel", "/runs/{run_id}/token"),
        *("/healthz", "/readyz", "/metrics"),
    } <= document["paths"].keys()
    body = document["paths"]["/Adds"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/AddsInputs"}
    inputs = document["components"]["schemas"]["AddsInputs"]
    assert (inputs["required"], inputs["additionalProperties"]) == (["a"], False)
    assert "text/event-stream" in document["paths"]["/QA/stream"]["post"]["responses"]["200"]["content"]


@pytest.mark.parametrize("path", ["/QA", "/runs/{run_id}"])
def test_errors_are_documented_as_problems(path: str) -> None:
    (operation, *_) = APP.openapi()["paths"][path].values()

    assert "application/problem+json" in operation["responses"]["default"]["content"]
