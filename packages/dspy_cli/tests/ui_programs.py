"""The programs that the tests and the screenshots of the web UI use, and a real server for them."""

import datetime
import enum
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import dspy
import pydantic
import streamll
import uvicorn
from dspy_cli import create_app
from dspy_cli.project.discover import Failure
from dspy_cli.project.programs import Program, program
from scripted import chat, lm

PROBE = "</script><img src=x onerror=\"document.title='hacked'\">"
"""What would show if anything from a program were taken for HTML."""

ANSWER = (
    "The Pharos of Alexandria was designed by Sostratus of Cnidus and finished around 280 BC, under "
    "Ptolemy II. Its light was seen some fifty kilometres out at sea.\n\nIt had three tiers: a square one, "
    "an octagonal one and a round one. A mirror at the top threw back the sun by day and a fire by night."
)
REASONING = (
    "The passage names the tower and its age; the architect is known from Strabo. I say both, in two parts."
)
THINKING = "Who built it? The handbook says when and how tall. The name of the architect I know from Strabo."


def scripted(
    reply: Callable[[str], str] | str, *, seconds: float = 0.0, size: int = 5, **how: Any
) -> dspy.LM:
    """Return a model that answers each prompt by itself, so that any number of runs get the same."""
    return lm(reply, model="scripted/model", size=size, seconds_a_chunk=seconds, **how)


class Ask(dspy.Signature):
    """Answer from the passage."""

    question: str = dspy.InputField(desc="What you want to know")
    passage: str = dspy.InputField()
    answer: str = dspy.OutputField()
    sources: list[str] = dspy.OutputField()


def search_handbook(query: str) -> str:
    """Return the sentence of the handbook that shares most words with the query."""
    return "The Pharos of Alexandria was built around 280 BC and was about 100 metres tall."


class Handbook(dspy.Module):
    """Answers questions about lighthouses: looks a passage up, answers from it, checks the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.search = dspy.Tool(search_handbook)
        self.respond = dspy.ChainOfThought(Ask)
        self.check = dspy.Predict("question, answer -> supported: bool, confidence: float")

    def forward(self, question: str) -> dspy.Prediction:
        with streamll.trace("retrieval", index="handbook") as step:
            passage = str(self.search(query=question))
            step.emit("passage_found", words=len(passage.split()))
        given = self.respond(question=question, passage=passage)
        checked = self.check(question=question, answer=given.answer)
        return dspy.Prediction(
            reasoning=given.reasoning, answer=given.answer, sources=given.sources, supported=checked.supported
        )


def handbook(prompt: str) -> str:
    if "`supported`" in prompt:
        return chat(supported="True", confidence="0.93")
    return chat(reasoning=REASONING, answer=ANSWER, sources='["handbook, line 3", "Strabo, Geographica 17"]')


class Sort(dspy.Signature):
    """Sort what a customer wrote."""

    message: str = dspy.InputField(desc="What the customer wrote")
    language: Literal["en", "de", "fr"] = dspy.InputField(default="en")
    topic: Literal["billing", "bug", "praise"] = dspy.OutputField()
    urgent: bool = dspy.OutputField()


def weather(city: str, day: str = "today") -> str:
    """Return the weather in a city."""
    return f"{city}, {day}: 21 °C and clear, light wind from the west"


def trains(origin: str, to: str) -> list[dict[str, str]]:
    """Return the trains between two cities."""
    return [{"leaves": "08:12", "arrives": "10:47", "train": "ICE 73", "from": origin, "to": to}]


def travel(prompt: str) -> str:
    if "`next_tool_name`" not in prompt:
        return chat(
            reasoning="The ICE 73 is the fastest.", answer="Take the ICE 73 at 08:12; Munich will be clear."
        )
    steps = [
        ("First the trains from Berlin to Munich.", "trains", '{"origin": "Berlin", "to": "Munich"}'),
        ("And what is the weather there tomorrow?", "weather", '{"city": "Munich", "day": "tomorrow"}'),
        ("I have all I need.", "finish", "{}"),
    ]
    thought, tool, arguments = steps[prompt.count("[[ ## observation_")]
    return chat(next_thought=thought, next_tool_name=tool, next_tool_args=arguments)


class Broken(dspy.Module):
    __doc__ = f"Always fails in its tool. {PROBE}"

    def __init__(self) -> None:
        super().__init__()
        self.tool = dspy.Tool(self.explode, name="explode", desc=PROBE)
        self.ask = dspy.Predict("question -> answer")

    def explode(self, question: str) -> str:
        raise ValueError(f"no answer to {question}: {PROBE}")

    def forward(self, question: str) -> object:
        self.ask(question=question)
        return self.tool(question=question)


class Chapters(dspy.Module):
    """Writes the chapters of a book side by side, then the blurb."""

    def __init__(self) -> None:
        super().__init__()
        self.chapter = dspy.ChainOfThought("topic -> chapter")
        self.blurb = dspy.Predict("chapters: list[str] -> blurb")

    def forward(self, topic: str, count: int = 6) -> object:
        at_once = dspy.Parallel(num_threads=4, disable_progress_bar=True)
        wanted = [dspy.Example(topic=f"{topic}, {number}").with_inputs("topic") for number in range(count)]
        written: Any = at_once([(self.chapter, each) for each in wanted])
        return self.blurb(chapters=[each.chapter for each in written])


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Address(pydantic.BaseModel):
    street: str = pydantic.Field(description="With the number")
    country: Literal["DE", "FR", "US"] = "DE"


class Person(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(ge=0, le=130)
    address: Address | None = None


class Everything(dspy.Module):
    """Takes every kind of input and gives it back."""

    def forward(
        self,
        title: str,
        author: Person,
        picture: dspy.Image | None = None,
        history: dspy.History | None = None,
        kind: Literal["memo", "letter", "report"] = "memo",
        colour: Colour = Colour.RED,
        count: int = 3,
        temperature: float = 0.7,
        urgent: bool = False,
        due: datetime.date | None = None,
        keywords: list[str] = ["alpha"],  # noqa: B006 - a default the form fills in
        readers: list[Person] = [],  # noqa: B006
        numbers: dict[str, int] | None = None,
    ) -> dict[str, object]:
        return {name: value for name, value in locals().items() if name != "self"}


class Flood(dspy.Module):
    """Emits as many events as it is asked for."""

    def forward(self, events: int) -> dict[str, int]:
        for number in range(events):
            if number % 40 == 0:
                with streamll.trace(f"step {number // 40}"):
                    streamll.emit("step_done", {"number": number})
            else:
                streamll.emit(
                    "tick", {"number": number, "text": f"event {number} says something of a usual length"}
                )
        return {"emitted": events}


def programs(*, seconds: float = 0.01) -> Sequence[Program]:
    """Return all of them; a model waits `seconds` before each piece of an answer."""
    react = dspy.ReAct("question -> answer", tools=[weather, trains])
    sort = scripted(chat(topic="billing", urgent="True"), seconds=seconds)
    return (
        program(Handbook, lm=scripted(handbook, seconds=seconds, thinking=THINKING)),
        program(dspy.Predict(Sort), name="Classify", lm=sort),
        program(react, name="Travel", lm=scripted(travel, seconds=seconds)),
        program(Chapters, lm=scripted(chapter, seconds=seconds)),
        program(Broken, lm=scripted(chat(answer=f"{PROBE} fine"), seconds=seconds)),
        program(Everything),
        program(Flood),
    )


def chapter(prompt: str) -> str:
    if "`blurb`" in prompt:
        return chat(blurb="Six chapters about the sea, each shorter than the last.")
    return chat(
        reasoning="One idea a chapter.", chapter="The sea was grey, and the light went round and round."
    )


FAILURES = (
    Failure(
        Path("src/demo/modules/letters.py"),
        "ModuleNotFoundError: No module named 'pypdf'",
        "Add what the file imports with `uv add pypdf`.",
    ),
)


@contextmanager
def serving(app: Any) -> Generator[str]:
    """Serve `app` on a free port of this machine and yield its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, name="uvicorn")
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def app(**options: Any) -> Any:
    """Return the app that the tests and the screenshots look at."""
    return create_app(programs(**options), failures=FAILURES)


def store(url: str, run: str, count: int, *, milliseconds: int = 1) -> str:
    """Store a run of `count` events, so far apart: calls of a model that writes. Return its id."""
    began = datetime.datetime(2026, 11, 21, 10, tzinfo=datetime.UTC)
    steps = ["execution_start", "module_start", *(_step(number) for number in range(2, count - 2))]
    log = streamll.EventLog(url)
    batch: list[streamll.Event] = []
    for sequence, kind in enumerate([*steps, "module_end", "execution_end"]):
        block = sequence // _BLOCK
        inner = kind not in ("execution_start", "module_start", "module_end", "execution_end")
        batch.append(
            streamll.Event(
                event_id=f"{run}-{sequence}",
                execution_id=run,
                sequence=sequence,
                timestamp=began + datetime.timedelta(milliseconds=sequence * milliseconds),
                event_type=kind,
                call_id=f"call-{block}" if inner else "root",
                parent_call_id="root" if inner else None,
                module_name="Flood",
                operation=f"model {block}" if inner else "Flood",
                data=_data(kind, sequence),
            )
        )
        if len(batch) == 5000:
            log.append(batch)
            batch = []
    log.append(batch)
    log.close()
    return run


_BLOCK = 20
_KINDS = {0: "lm_start", _BLOCK - 1: "lm_end", _BLOCK // 2: "noted"}


def _step(sequence: int) -> str:
    return _KINDS.get(sequence % _BLOCK, "token")


def _data(kind: str, sequence: int) -> Any:
    data = {
        "execution_start": {"program": "Flood", "served": "Flood"},
        "module_start": {"inputs": {"events": 100_000}},
        "module_end": {"outputs": {"emitted": 100_000}, "duration_ms": 100_000.0},
        "lm_start": {
            "model": "scripted/model",
            "messages": [{"role": "user", "content": f"question {sequence}"}],
        },
        "lm_end": {
            "outputs": ["word " * _BLOCK],
            "input_tokens": 5,
            "output_tokens": 18,
            "duration_ms": 19.0,
        },
        "token": {"token": f"event {sequence} word ", "token_index": sequence % _BLOCK, "field": "answer"},
        "noted": {"number": sequence},
    }
    return data.get(kind, {"duration_ms": 100_000.0, "lm_calls": 5000, "tool_calls": 0})


def _message(sequence: int) -> dict[str, str]:
    return {"role": "user", "content": f"question {sequence}"}
