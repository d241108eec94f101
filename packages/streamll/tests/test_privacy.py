"""What is private stays out of every event: prompts, adapter events, tokens, errors."""

from typing import Any

import dspy
import pytest
import streamll
from conftest import Seen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripted import chat, lm
from streamll import encode

SECRET = "s3cr3t-value-of-the-user"


def tool(query: str) -> str:
    """Look it up."""
    return "found"


class Agent(dspy.Module):
    """Several kinds of call: a step, a ReAct loop with a tool, an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = dspy.ChainOfThought("question -> answer")
        self.react = dspy.ReAct("question -> answer", tools=[tool])

    def forward(self, question: str, fails: bool = False) -> Any:
        self.first(question=question)
        result = self.react(question=question)
        if fails:
            raise ValueError(f"no {question}")
        return result


def replies(text: str) -> list[str]:
    return [
        chat(reasoning=text, answer=text),
        chat(next_thought=text, next_tool_name="tool", next_tool_args=f'{{"query": "{text}"}}'),
        chat(next_thought=text, next_tool_name="finish", next_tool_args="{}"),
        chat(reasoning=text, answer=text),
    ]


def run(seen: Seen, *, question: str, answer: str, fails: bool = False, **privacy: bool) -> None:
    program = type("Private", (Agent,), {})
    streamll.instrument(program, stream_fields=["answer", "reasoning", "next_thought"], **privacy)
    with dspy.context(lm=lm(*replies(answer), thinking=answer)):
        if fails:
            with pytest.raises(ValueError, match="no "):
                program()(question=question, fails=True)
        else:
            program()(question=question)


def holders(seen: Seen, secret: str) -> list[str]:
    return [e.event_type for e in seen.settled() if secret in encode(e).decode()]


@given(fails=st.booleans(), secret=st.from_regex(r"zq[a-z0-9]{8}", fullmatch=True))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_event_has_an_input_when_inputs_are_excluded(fails: bool, secret: str) -> None:
    seen = Seen()
    with streamll.configure([seen.append]):
        run(seen, question=secret, answer="fine", fails=fails, include_inputs=False)

    assert seen.of("lm_end")
    assert holders(seen, secret) == []


@given(fails=st.booleans(), secret=st.from_regex(r"zq[a-z0-9]{8}", fullmatch=True))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_event_has_an_output_when_outputs_are_excluded(fails: bool, secret: str) -> None:
    seen = Seen()
    with streamll.configure([seen.append]):
        run(seen, question="hello", answer=secret, fails=fails, include_outputs=False)

    assert seen.of("lm_end")
    assert not seen.of("token", "reasoning")
    assert holders(seen, secret) == []


def test_without_exclusion_the_secret_is_everywhere(seen: Seen) -> None:
    run(seen, question=SECRET, answer="fine")

    assert {"module_start", "lm_start", "adapter_format_start", "adapter_format_end"} <= set(
        holders(seen, SECRET)
    )


def test_configure_excludes_for_every_program(seen: Seen) -> None:
    with streamll.configure(include_inputs=False, include_outputs=False):
        run(seen, question=SECRET, answer=SECRET)

    assert holders(seen, SECRET) == []


def test_a_parse_error_does_not_quote_a_private_completion(seen: Seen) -> None:
    program = type("Quoting", (Agent,), {})
    streamll.instrument(program, include_outputs=False)

    with dspy.context(lm=lm(SECRET)), pytest.raises(dspy.utils.exceptions.AdapterParseError):
        program()(question="?")

    assert "adapter_parse_error" in seen.types()
    assert holders(seen, SECRET) == []


def test_one_programs_privacy_is_not_anothers(seen: Seen) -> None:
    run(seen, question=SECRET, answer="fine", include_inputs=False)
    run(seen, question="public", answer="fine")

    assert holders(seen, SECRET) == []
    assert holders(seen, "public")


def test_redact_changes_and_withholds(seen: Seen) -> None:
    def redact(event: streamll.Event) -> streamll.Event | None:
        if event.event_type == "token":
            return None
        if event.event_type == "module_start":
            return streamll.with_data(event, {"inputs": "***"})
        return event

    with streamll.configure(redact=redact):
        run(seen, question=SECRET, answer="fine")

    assert "token" not in seen.types()
    assert {str(e.data) for e in seen.of("module_start")} == {"{'inputs': '***'}"}


def test_an_event_that_cannot_be_redacted_is_withheld(seen: Seen) -> None:
    def redact(event: streamll.Event) -> streamll.Event:
        if event.event_type == "lm_start":
            raise RuntimeError("cannot")
        return event

    with streamll.configure(redact=redact):
        run(seen, question="?", answer="fine")

    assert "lm_start" not in seen.types()
    assert "lm_end" in seen.types()


def test_credentials_of_the_lm_are_in_no_event(seen: Seen) -> None:
    key = "sk-abcdefghijklmnop1234"
    model = dspy.LM(
        "openai/gpt-4o-mini", api_key=key, api_base="http://user:pw@127.0.0.1:9/v1", num_retries=0
    )

    with dspy.context(lm=model), pytest.raises(dspy.utils.exceptions.LMError):
        dspy.Predict("question -> answer")(question="?")

    assert seen.of("lm_start")[0].data["endpoint"] == "http://127.0.0.1:9/v1"
    assert seen.of("lm_error")[0].data["error"]["code"] == "connection"  # pyright: ignore
    assert holders(seen, key) == []
    assert holders(seen, ":pw@") == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("redis://me:pw@host/0 is down", "redis://***@host/0 is down"),
        ("bad key sk-proj-1234567890", "bad key ***"),
        ("Authorization: Bearer abcdefgh.ijkl", "Authorization: Bearer ***"),
        ("nothing to hide: a-b-c", "nothing to hide: a-b-c"),
    ],
)
def test_what_looks_like_a_credential_is_scrubbed_from_errors(seen: Seen, text: str, left: str) -> None:
    with pytest.raises(OSError, match=r"."), streamll.trace("step"):
        raise OSError(text)

    assert seen.of("trace_error")[0].data["error"]["message"] == left  # pyright: ignore
