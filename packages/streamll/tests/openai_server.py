"""A provider on this machine: OpenAI's chat completions over HTTP, which say what the test wrote.

Unlike `scripted.lm` it goes through the clients people use, DSPy's own and LiteLLM, with their sockets,
retries, error classes, usage and prices.
"""

import itertools
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # LiteLLM would fetch its prices when imported

LITELLM_WARNINGS = (
    # When it is imported.
    ":DeprecationWarning",
    # When its models are made and serialized; as errors, these would look to it like a broken connection.
    "Item .* on TypedDict class:UserWarning",
    "Pydantic serializer warnings:UserWarning",
    # Its pools live as long as the process, their sockets until collected, also those of a closed event loop.
    ":ResourceWarning",
    ":pytest.PytestUnraisableExceptionWarning",
    # It logs a success later; a loop that closes at once does not wait for that.
    "coroutine .* was never awaited:RuntimeWarning",
)
"""What LiteLLM and the HTTP clients below it say of themselves, as filters."""

INPUT_TOKENS = 7
"""What every prompt counts as; a completion counts one token a chunk."""


@dataclass(frozen=True)
class Reply:
    """One answer: text, a model's thinking, tool calls, or an error; `cut` drops the connection there."""

    text: str | Callable[[str], str] = ""
    thinking: str = ""
    tools: Mapping[str, Mapping[str, object]] = field(default_factory=dict[str, Mapping[str, object]])
    status: int = 200
    error: Mapping[str, object] = field(default_factory=dict[str, object])
    cut: int | None = None
    seconds: float = 0.0
    finish_reason: str = "stop"


def _refusal(status: int, code: str, message: str) -> Reply:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return Reply(status=status, error={"message": message, "type": kind, "code": code})


UNAUTHORIZED = _refusal(401, "invalid_api_key", "Incorrect API key provided")
RATE_LIMITED = _refusal(429, "rate_limit_exceeded", "Rate limit reached for requests")
TOO_LONG = _refusal(400, "context_length_exceeded", "This model's maximum context length is 8 tokens")
BROKEN = _refusal(500, "server_error", "The server had an error while processing your request")
NO_STREAM = _refusal(400, "unsupported_value", "Your organization must be verified to stream this model")


class Script:
    """What one model answers: each reply once, the last one for ever; `bodies` are the requests it got."""

    def __init__(
        self,
        *replies: Reply | str | Callable[[str], str],
        size: int = 4,
        streams: bool = True,
        seconds_a_chunk: float = 0.0,
    ) -> None:
        self.replies = [reply if isinstance(reply, Reply) else Reply(reply) for reply in replies]
        self.size = size
        self.streams = streams
        self.seconds = seconds_a_chunk
        self.chunks = 0
        self.bodies: list[dict[str, Any]] = []
        self.url = _the_server().serve(self)
        self._next = itertools.count()
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: object) -> "Script":
        return self

    @property
    def calls(self) -> int:
        return len(self.bodies)

    def reply(self, body: dict[str, Any]) -> Reply:
        """Return the answer to a request; more than one candidate takes as many replies."""
        with self._lock:
            self.bodies.append(body)
            if body.get("stream") and not self.streams:
                return NO_STREAM
            return self.replies[min(next(self._next), len(self.replies) - 1)]

    def candidates(self, body: dict[str, Any], first: Reply) -> list[Reply]:
        others = range((body.get("n") or 1) - 1)
        return [first, *(self.replies[min(next(self._next), len(self.replies) - 1)] for _ in others)]

    def deltas(self, reply: Reply, text: str) -> Iterator[dict[str, Any]]:
        """Yield what the chunks of a reply add, as OpenAI and its imitators put it."""
        for piece in pieces(reply.thinking, self.size):
            yield {"reasoning_content": piece}
        for piece in pieces(text, self.size):
            yield {"content": piece}
        for index, (name, arguments) in enumerate(reply.tools.items()):
            yield {"tool_calls": [{"index": index, **_tool_call(index, name, "")}]}
            for piece in pieces(json.dumps(arguments), self.size):
                yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}

    def usage(self, replies: Sequence[Reply], texts: Sequence[str]) -> dict[str, Any]:
        written = [list(self.deltas(reply, text)) for reply, text in zip(replies, texts, strict=True)]
        thought = sum("reasoning_content" in delta for deltas in written for delta in deltas)
        total = sum(map(len, written))
        return {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": total,
            "total_tokens": INPUT_TOKENS + total,
            **({"completion_tokens_details": {"reasoning_tokens": thought}} if thought else {}),
        }


def scripted(
    *said: str | BaseException | Callable[[str], str],
    thinking: str = "",
    cut: int | None = None,
    **options: Any,
) -> Script:
    """Return the script of a `scripted.lm`: it thinks before each reply, and breaks off the first one."""
    replies = [
        _refusal(500, "server_error", str(reply))
        if isinstance(reply, BaseException)
        else Reply(reply, thinking=thinking)
        for reply in said
    ]
    if cut is not None:
        replies = [replace(replies[0], cut=cut), *(replies[1:] or replies)]
    return Script(*replies, **options)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scripts: list[Script] = []
        threading.Thread(target=self.serve_forever, daemon=True, name="openai server").start()

    def serve(self, script: Script) -> str:
        self.scripts.append(script)
        return f"http://127.0.0.1:{self.server_port}/{len(self.scripts) - 1}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is not news."""


@cache
def _the_server() -> _Server:
    return _Server()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""

    def do_POST(self) -> None:
        script = cast("_Server", self.server).scripts[int(self.path.split("/")[1])]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = script.reply(body)
        time.sleep(reply.seconds)
        if reply.status != 200:
            self._send(reply.status, {"error": reply.error})
        elif body.get("stream"):
            self._stream(script, body, reply)
        else:
            self._complete(script, body, reply)

    def _complete(self, script: Script, body: dict[str, Any], reply: Reply) -> None:
        replies = script.candidates(body, reply)
        texts = [_text(reply, body) for reply in replies]
        choices = [
            {"index": n, "message": _message(reply, text), "finish_reason": _reason(reply)}
            for n, (reply, text) in enumerate(zip(replies, texts, strict=True))
        ]
        usage = script.usage(replies, texts)
        self._send(200, {**_head(body, "chat.completion"), "choices": choices, "usage": usage}, cut=reply.cut)

    def _stream(self, script: Script, body: dict[str, Any], reply: Reply) -> None:
        text = _text(reply, body)
        self._headers(200, "text/event-stream", ("Transfer-Encoding", "chunked"))
        self._chunk(body, {"role": "assistant", "content": ""})
        for number, delta in enumerate(script.deltas(reply, text)):
            if number == reply.cut:
                return self._hang_up()
            time.sleep(script.seconds)
            script.chunks += 1
            self._chunk(body, delta)
        self._chunk(body, {}, finish_reason=_reason(reply))
        if (body.get("stream_options") or {}).get("include_usage"):
            self._event({**_head(body), "choices": [], "usage": script.usage([reply], [text])})
        self._frame(b"data: [DONE]\n\n")
        self._frame(b"")

    def _chunk(self, body: dict[str, Any], delta: dict[str, Any], finish_reason: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        self._event({**_head(body), "choices": [choice], "usage": None})

    def _event(self, data: dict[str, Any]) -> None:
        self._frame(b"data: " + json.dumps(data).encode() + b"\n\n")

    def _frame(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _send(self, status: int, data: object, cut: int | None = None) -> None:
        encoded = json.dumps(data).encode()
        self._headers(status, "application/json", ("Content-Length", str(len(encoded))))
        self.wfile.write(encoded[:cut])
        if cut is not None:
            self._hang_up()

    def _headers(self, status: int, kind: str, length: tuple[str, str]) -> None:
        self.send_response(status)
        headers = (("Content-Type", kind), length, ("Connection", "close"), ("x-request-id", "req_1"))
        for name, value in (*headers, *([("retry-after", "0")] if status == 429 else [])):
            self.send_header(name, value)
        self.end_headers()

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


def _head(body: dict[str, Any], kind: str = "chat.completion.chunk") -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": f"{body['model']}-2024-07-18"}


def _message(reply: Reply, text: str) -> dict[str, Any]:
    calls = [
        _tool_call(number, name, json.dumps(arguments))
        for number, (name, arguments) in enumerate(reply.tools.items())
    ]
    return {
        "role": "assistant",
        "content": text or None,
        **({"tool_calls": calls} if calls else {}),
        **({"reasoning_content": reply.thinking} if reply.thinking else {}),
    }


def _tool_call(number: int, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{number}", "type": "function", "function": function}


def _reason(reply: Reply) -> str:
    return "tool_calls" if reply.tools else reply.finish_reason


def _text(reply: Reply, body: dict[str, Any]) -> str:
    return reply.text if isinstance(reply.text, str) else reply.text(prompt_of(body))


def prompt_of(body: Mapping[str, Any]) -> str:
    """Return the text of all messages of a request."""
    contents = [message["content"] or "" for message in body["messages"]]
    return "\n".join(
        text if isinstance(text, str) else "".join(part.get("text", "") for part in text) for text in contents
    )


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]
