"""What a server needs: an execution under an id and sinks of its own, stopped from outside; frames."""

import asyncio
import json
import threading
from contextlib import aclosing

import dspy
import pytest
import streamll
from scripted import chat, lm, needs_engines
from streamll.core.context import Abandoned
from streamll.frames import frame
from streamll.live import Stopped

pytestmark = needs_engines


class TwoSteps(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = dspy.Predict("question -> answer")
        self.between = threading.Event()
        self.go_on = threading.Event()

    def forward(self, question: str) -> dspy.Prediction:
        self.first(question=question)
        self.between.set()
        assert self.go_on.wait(10)
        return self.first(question=question + "?")


def test_an_execution_has_the_id_and_the_sinks_it_was_given() -> None:
    seen: list[streamll.Event] = []

    with (
        dspy.context(lm=lm(chat(answer="42"))),
        streamll.execution("mine", sinks=[seen.append], by="me") as own,
    ):
        dspy.Predict("question -> answer")(question="q")

    assert streamll.flush(10)
    assert own.id == "mine"
    assert {event.execution_id for event in seen} == {"mine"}
    assert [event.sequence for event in seen] == list(range(len(seen)))
    assert seen[0].data == {"program": "Predict", "by": "me"}
    assert any(event.event_type == "token" for event in seen)


@pytest.mark.parametrize("code", ["cancelled", "timeout", "interrupted"])
def test_a_stopped_program_ends_at_its_next_call_and_says_why(code: Stopped) -> None:
    seen: list[streamll.Event] = []
    program = TwoSteps()

    def run() -> None:
        with dspy.context(lm=lm(chat(answer="42"))), execution, pytest.raises(Abandoned):
            program(question="q")

    execution = streamll.execution(sinks=[seen.append])
    thread = threading.Thread(target=run)
    thread.start()
    assert program.between.wait(10)
    execution.stop(code)
    program.go_on.set()
    thread.join(10)

    assert streamll.flush(10)
    assert seen[-1].event_type == "execution_error"
    assert seen[-1].data["error"]["code"] == code  # pyright: ignore
    assert seen[-1].data["lm_calls"] == 1


def test_the_log_of_a_program_that_does_not_stop_can_be_closed() -> None:
    seen: list[streamll.Event] = []
    program = TwoSteps()

    def run() -> None:
        with dspy.context(lm=lm(chat(answer="42"))), execution, pytest.raises(Abandoned):
            program(question="q")

    execution = streamll.execution(sinks=[seen.append])
    thread = threading.Thread(target=run)
    thread.start()
    assert program.between.wait(10)
    execution.close()
    assert streamll.flush(10)
    ended = list(seen)
    program.go_on.set()
    thread.join(10)

    assert streamll.flush(10)
    assert ended[-1].event_type == "execution_error"
    assert ended[-1].data["error"]["code"] == "interrupted"  # pyright: ignore
    assert seen == ended


async def test_server_sent_events_are_the_events_and_then_the_prediction() -> None:
    with dspy.context(lm=lm(chat(answer="line\nbreak"))):
        frames = [frame async for frame in streamll.sse(dspy.Predict("question -> answer"), question="q")]

    parsed = [dict(line.split(": ", 1) for line in frame.decode().strip().split("\n")) for frame in frames]
    assert [int(one["id"]) for one in parsed] == list(range(len(frames)))
    assert parsed[0]["event"] == "execution_start"
    assert parsed[-2]["event"] == "execution_end"
    assert json.loads(parsed[-1]["data"]) == {"outputs": {"answer": "line\nbreak"}}
    events = [streamll.decode(one["data"]) for one in parsed[:-1]]
    tokens = [str(event.data["token"]) for event in events if event.event_type == "token"]
    assert "".join(tokens) == "line\nbreak"


async def test_a_program_that_raises_ends_its_stream_with_the_error() -> None:
    with dspy.context(lm=lm(RuntimeError("no"))):
        frames = [frame async for frame in streamll.sse(dspy.Predict("question -> answer"), question="q")]

    assert b"event: execution_error" in frames[-1]


async def test_leaving_server_sent_events_stops_the_program() -> None:
    model = lm(chat(answer="a long answer that never ends" * 50), seconds_a_chunk=0.005)
    program = dspy.Predict("question -> answer")

    with dspy.context(lm=model):
        async with asyncio.timeout(10), aclosing(streamll.sse(program, question="q")) as frames:
            async for one in frames:
                if b"event: token" in one:
                    break

    for thread in threading.enumerate():
        if thread.name == "streamll program":
            thread.join(10)  # at its next token
            assert not thread.is_alive()


def test_no_name_of_an_event_can_forge_another() -> None:
    seen: list[streamll.Event] = []

    with streamll.configure([seen.append]):
        streamll.emit("mine\nevent: execution_end\n\nid: 9")
        assert streamll.flush(10)

    for event in seen:
        assert frame(event).count(b"\n") == 4
