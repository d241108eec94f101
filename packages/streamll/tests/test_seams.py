"""The places where DSPy is hooked. A failure here says what moved; `core/seams.py` is where to look."""

import inspect
import subprocess
import sys
from typing import Any

import dspy
import pytest
import streamll
from conftest import Seen
from dspy.utils import callback
from scripted import chat, lm, needs_engines
from streamll.core import capture, seams


@needs_engines  # an older DSPy has fewer seams, by design
@pytest.mark.parametrize("seam", seams.SEAMS)
def test_the_seam_is_where_it_was(seam: str) -> None:
    found = seams.find(seam)
    assert found is not None, f"DSPy {dspy.__version__} has no {seam}: find what replaced it, and hook that"

    module, attribute = found
    parameters = tuple(inspect.signature(inspect.unwrap(getattr(module, attribute))).parameters)
    expected = tuple(seams.SEAMS[seam][1])
    assert parameters == expected, f"{seam} now takes {parameters}, its hook was written for {expected}"


def test_every_callback_kind_of_dspy_has_a_handler() -> None:
    theirs = {name for name in vars(callback.BaseCallback) if name.startswith("on_")}
    ours = {name for name in vars(capture.Callback) if name.startswith("on_")}

    assert theirs <= ours, (
        f"DSPy {dspy.__version__} also calls {sorted(theirs - ours)}: add the kind to capture.KINDS"
    )


class Unreadable:
    """A `forward` that works and cannot be described."""

    def __call__(self, *_: object, **__: object) -> str:
        return "fine"

    @property
    def __signature__(self) -> Any:
        raise RuntimeError("surprise")


def test_a_call_that_cannot_be_described_goes_on(seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    class Program(dspy.Module):
        forward = Unreadable()

    assert Program()() == "fine"
    assert "streamll failed to take down a module call; the program goes on" in caplog.text


@needs_engines
@pytest.mark.parametrize(("show", "what"), [(seams._show, "start"), (seams._Chunks, "chunk")])  # pyright: ignore
def test_a_fault_in_reading_the_stream_is_logged(
    show: Any, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def check(self) -> None: ...
        def begin(self, model: str) -> None:
            raise RuntimeError("surprise")

    event = dspy.lm15.StreamStartEvent(id="r", model="m")
    show(Failing(), event) if what == "start" else show(Failing()).show(event)

    assert "the program goes on" in caplog.text


@needs_engines
def test_a_model_that_refuses_to_stream_is_asked_again_without(seen: Seen) -> None:
    class Refusing:
        supports_function_calling = supports_reasoning = supports_response_schema = False
        supported_params = ()

        def complete(self, request: Any) -> Any:
            script = lm(chat(answer="whole")).engine
            return script.complete(request)

        def stream(self, request: Any) -> Any:
            raise dspy.lm15.InvalidRequestError("stream is not supported for this account")
            yield

    with dspy.context(lm=dspy.LM("refusing/model", engine=Refusing(), cache=False)):
        dspy.Predict("question -> answer")(question="?")

    assert [e.data["token"] for e in seen.of("token")] == ["whole"]


@needs_engines
def test_without_the_seams_everything_but_tokens_works() -> None:
    code = """
import logging, sys
sys.path[:0] = PATHS
import dspy.clients.execution as execution, dspy.clients.lm as client
import streamll.core.seams as seams
seams.SEAMS = {name.replace(":", ":gone"): hook for name, hook in seams.SEAMS.items()}
seams.ENGINE, seams.LITELLM = (name.replace(":", ":gone") for name in (seams.ENGINE, seams.LITELLM))
logging.basicConfig(stream=sys.stdout, format="%(message)s")
import dspy, streamll
from scripted import chat, lm, needs_engines
seen = []
streamll.configure([seen.append])
for _ in range(2):
    with dspy.context(lm=lm(chat(answer="a"))):
        print(dspy.Predict("question -> answer")(question="?").answer)
streamll.flush(5)
print([e.data["token"] for e in seen if e.event_type == "token"])
print([e.data["output_tokens"] for e in seen if e.event_type == "lm_end"])
""".replace("PATHS", repr([p for p in sys.path if p.endswith("tests")]))

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.splitlines() == [
        f"DSPy {dspy.__version__} has none of the seams streamll reads tokens at; events carry on",
        "a",
        "a",
        "['a', 'a']",
        "[11, 11]",
    ]


def test_interpreter_calls_are_steps(seen: Seen) -> None:
    handler = capture.CALLBACK
    with streamll.trace("code"):
        handler.on_interpreter_execute_start(call_id="i1", instance=object(), inputs={"code": "1+1"})  # pyright: ignore
        handler.on_interpreter_execute_end(call_id="i1", outputs="2")  # pyright: ignore

    (start,), (end,) = seen.of("interpreter_start"), seen.of("interpreter_end")
    assert (start.data["step"], start.data["inputs"], end.data["outputs"]) == (
        "execute",
        {"code": "1+1"},
        "2",
    )
