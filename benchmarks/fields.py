"""Field parsers beside `dspy.streaming.StreamListener`: CPU per chunk of about four characters, one run.

    uv run python benchmarks/fields.py

Both get the same chunks. Rounds are interleaved and medians taken; at 20,000 chunks StreamListener, whose
cost for JSON is quadratic, gets one round.
"""

import json
from collections.abc import Callable, Mapping
from statistics import median
from time import process_time
from typing import NamedTuple

import dspy
from dspy.streaming import StreamListener
from litellm import ModelResponseStream
from litellm.types.utils import Delta, StreamingChoices
from streamll.core.fields import ChatParser, FieldParser, JsonParser, XmlParser

ROUNDS = 9
CHUNK = 4
WORDS = "The quick brown fox jumps over the lazy dog, and it is [1] good at that.\n"
CODE = 'if (name === "main") {\n\treturn {"a": [1, 2]};\n}\n'
FRENCH = "Où est la forêt ? Là-bas, près du château, où l'été s'achève. "
SIGNATURE = dspy.Signature("question -> answer")

type Write = Callable[[str], str]


class Row(NamedTuple):
    name: str
    parser: Callable[[Mapping[str, bool]], FieldParser]
    adapter: dspy.Adapter
    write: Write
    text: str
    chunks: int


def _chat(text: str) -> str:
    return f"[[ ## answer ## ]]\n{text}\n\n[[ ## completed ## ]]\n"


def _json(text: str) -> str:
    return json.dumps({"answer": text})


def _xml(text: str) -> str:
    return f"<answer>\n{text}\n</answer>"


CHAT = ("Chat, prose", ChatParser, dspy.ChatAdapter(), _chat, WORDS)
JSON = ("JSON, prose", JsonParser, dspy.JSONAdapter(), _json, WORDS)
ESCAPES = ("JSON, escapes", JsonParser, dspy.JSONAdapter(), _json, CODE)
UNICODE = ("JSON, \\uXXXX", JsonParser, dspy.JSONAdapter(), _json, FRENCH)
XML = ("XML, prose", XmlParser, dspy.XMLAdapter(), _xml, WORDS)
ROWS = [
    *(Row(*case, chunks=500) for case in (CHAT, JSON, ESCAPES, UNICODE, XML)),
    *(Row(*case, chunks=20_000) for case in (JSON, ESCAPES, UNICODE)),
]
ALONE = [Row(*case, chunks=20_000) for case in (CHAT, XML)]


def _completion(row: Row) -> list[str]:
    size = row.chunks * CHUNK
    text = row.text * (size // len(row.text) + 1)
    whole = row.write(text[: size * size // len(row.write(text[:size]))])
    return [whole[at : at + CHUNK] for at in range(0, len(whole), CHUNK)]


def _ours(row: Row, chunks: list[str]) -> Callable[[], None]:
    def run() -> None:
        parser = row.parser({"answer": True})
        for chunk in chunks:
            parser.feed(chunk)
        parser.close()

    return run


def _theirs(row: Row, chunks: list[str]) -> Callable[[], None]:
    responses = [
        ModelResponseStream(model="m", choices=[StreamingChoices(delta=Delta(content=chunk))])
        for chunk in chunks
    ]
    predict = dspy.Predict(SIGNATURE)

    def run() -> None:
        listener = StreamListener("answer", predict=predict, predict_name="predict")
        with dspy.context(adapter=row.adapter):
            for response in responses:
                listener.receive(response)

    return run


def _microseconds(run: Callable[[], None], chunks: int) -> float:
    began = process_time()
    run()
    return (process_time() - began) / chunks * 1e6


def _compare(row: Row) -> tuple[float, float]:
    chunks = _completion(row)
    ours, theirs = _ours(row, chunks), _theirs(row, chunks)
    rounds = 1 if row.chunks > 500 else ROUNDS
    pairs = [(_microseconds(ours, len(chunks)), _microseconds(theirs, len(chunks))) for _ in range(rounds)]
    mine, peer = zip(*pairs, strict=True)
    extra = [_microseconds(ours, len(chunks)) for _ in range(ROUNDS - rounds)]
    return median((*mine, *extra)), median(peer)


def main() -> None:
    print(f"{'':24}{'chunks':>8}{'streamll':>12}{'StreamListener':>18}{'ratio':>10}   (µs per chunk)")
    for row in ROWS:
        ours, theirs = _compare(row)
        print(f"{row.name:24}{row.chunks:>8,}{ours:>12.2f}{theirs:>18.1f}{theirs / ours:>9.0f}x")
    for row in ALONE:
        chunks = _completion(row)
        ours = median(_microseconds(_ours(row, chunks), len(chunks)) for _ in range(ROUNDS))
        print(f"{row.name:24}{row.chunks:>8,}{ours:>12.2f}{'not run':>18}")


if __name__ == "__main__":
    main()
