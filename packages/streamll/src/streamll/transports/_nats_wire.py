"""A blocking connection to NATS, which publishes and asks JetStream, and how it writes things down.

Publishing needs no event loop this way, and costs a fifth of what nats-py's does.
"""

import re
import socket
import ssl
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from itertools import batched
from secrets import token_hex
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from streamll.errors import Refused, Unreachable
from streamll.transports._nats_place import Place

_IN_FLIGHT = 1_000  # JetStream drops what comes when 10,000 messages of a stream are waiting
_PAGE = 256  # questions on their way
_LONGEST_NAME = 200  # it becomes the name of a directory

_json = msgspec.json.encode

_PARTS = re.compile(r"^Streamll-Parts: (\S+)", re.MULTILINE)
_SPECIAL = re.compile(r"[^A-Za-z0-9_-]|_(?=(?:dead|expired|INBOX)\Z)")


def token(name: str) -> str:
    """Return `name` as NATS can hold it in names and subjects; no two names become the same."""
    written = _SPECIAL.sub(lambda found: "".join(f"={byte:02X}" for byte in found[0].encode()), name)
    if len(written) > _LONGEST_NAME:
        written = f"{written[:100]}={sha256(name.encode()).hexdigest()}"
    return written or "="


class Stored(NamedTuple):
    seq: int
    subject: str
    time: datetime
    body: bytes


class _Received(NamedTuple):
    subject: bytes
    status: bytes
    body: bytes


def _command(subject: str, reply: str, body: bytes, headers: str = "") -> bytes:
    if not headers:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(body), body)
    head = f"NATS/1.0\r\n{headers}\r\n".encode()
    sizes = len(head), len(head) + len(body)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject.encode(), reply.encode(), *sizes, head, body)


def _message_id(event_id: str) -> str:
    return f"Nats-Msg-Id: {event_id if event_id.isprintable() else token(event_id)}\r\n"


class Wire:
    """A blocking connection that publishes and asks; after an error it is good for nothing but `close`.

    Source: https://docs.nats.io/reference/reference-protocols/nats-protocol
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._inbox = f"_INBOX.{token_hex(11)}"
        self._acks = f"{self._inbox}.acks"
        self._until = monotonic() + place.seconds
        self._data = bytearray()  # no file object: its lock would not survive a fork in another thread
        self._read = 0
        with place.errors():
            self._socket = socket.create_connection((place.host, place.port), place.seconds)
            try:
                self._greet()
            except BaseException:  # Ctrl+C too leaves no socket open
                self._socket.close()
                raise

    def close(self) -> None:
        self._socket.close()

    def __del__(self) -> None:  # whoever appends need not close
        if "_socket" in vars(self):
            self._socket.close()

    def _greet(self) -> None:
        """Read what the server says of itself, and say who we are."""
        place, info = self._place, self._info()
        self.max_payload: int = info.get("max_payload", 1 << 20)
        if info.get("tls_required"):
            context = ssl.create_default_context()
            self._socket = context.wrap_socket(self._socket, server_hostname=place.host)
        elif place.tls:
            raise place.refusal("it does not ask for TLS; a tls:// URL never goes without")
        who = {"lang": "python", "version": "0", "name": "streamll", "protocol": 1, "verbose": False}
        who |= {"pedantic": False, "headers": True, "no_responders": True, **place.credentials()}
        self._ping(b"CONNECT %b\r\nSUB %b.* 1\r\n" % (_json(who), self._inbox.encode()))

    def _info(self) -> dict[str, Any]:
        try:
            self._fill()
        except TimeoutError:  # a NATS server speaks first; some other kind may wait to be asked
            self._socket.settimeout(1)
            self._socket.sendall(b"PING\r\n\r\n")
            self._data += self._socket.recv(80)
        if not self._data.startswith(b"INFO "):
            said = bytes(self._data)
            raise self._place.refusal(f"another kind of server is on that port; it says {said!r:.80}")
        return msgspec.json.decode(self._line()[5:])

    def ping(self) -> None:
        """Hear that the server is there, and answer its own pings."""
        with self._place.errors():
            self._until = monotonic() + min(1, self._place.seconds)
            self._ping()

    def _ping(self, before: bytes = b"") -> None:
        self._send([before + b"PING\r\n"])
        while self._receive().status != b"PONG":
            pass

    def _receive(self) -> _Received:
        while True:
            line = self._line()
            match line[:4]:
                case b"MSG ":
                    return _Received(line.split(None, 2)[1], b"", self._exactly(int(line.rsplit(None, 1)[1])))
                case b"HMSG":
                    *words, head, size = line.split()
                    whole = self._exactly(int(size))
                    return _Received(words[1], whole[9:12], whole[int(head) :])
                case b"PING":
                    self._socket.sendall(b"PONG\r\n")
                case b"PONG":
                    return _Received(b"", b"PONG", b"")
                case b"-ERR":
                    raise self._place.complaint(line[5:].decode(errors="replace").strip(" '\r\n"))
                case _:
                    pass  # +OK, and INFO when the cluster changes

    def _line(self) -> bytes:
        while (end := self._data.find(b"\n", self._read)) < 0:
            self._fill()
        line = bytes(self._data[self._read : end])
        self._read = end + 1
        return line

    def _exactly(self, size: int) -> bytes:
        while len(self._data) < self._read + size + 2:
            self._fill()
        body = bytes(self._data[self._read : self._read + size])
        self._read += size + 2
        return body

    def _fill(self) -> None:
        del self._data[: self._read]
        self._read = 0
        self._socket.settimeout(max(0.001, self._until - monotonic()))
        received = self._socket.recv(65_536)
        if not received:
            raise ConnectionResetError("it closed the connection")
        self._data += received

    def publish(self, messages: Sequence[tuple[str, str, bytes]]) -> int:
        """Store messages (subject, headers, body) in order; return the last one's sequence."""
        last = b""
        with self._place.errors():
            self._until = monotonic() + self._place.seconds
            for some in batched(messages, _IN_FLIGHT, strict=False):
                self._send(_command(subject, self._acks, body, headers) for subject, headers, body in some)
                for _ in some:
                    last = self._ack(some[0][0])
        return msgspec.json.decode(last)["seq"]

    def _send(self, commands: Iterable[bytes]) -> None:
        self._socket.settimeout(max(0.001, self._until - monotonic()))
        self._socket.sendall(b"".join(commands))

    def _ack(self, subject: str) -> bytes:
        got = self._receive()
        if got.status == b"503":
            raise self._place.trouble(f"no stream takes {subject!r}: the stream was deleted or has others")
        if b'"error"' in got.body:
            raise self._failure(msgspec.json.decode(got.body)["error"])
        return got.body

    def _failure(self, error: Mapping[str, Any]) -> Unreachable | Refused:
        what = error.get("description", error)
        return self._place.complaint(what) if error.get("code", 0) >= 500 else self._place.refusal(what)

    def ask_all(self, verb: str, questions: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
        """Return what the JetStream API answers to each question; an answer may be an `error`."""
        answers: dict[int, dict[str, Any]] = {}
        with self._place.errors():
            self._until = monotonic() + self._place.seconds
            for page in batched(enumerate(questions), _PAGE, strict=False):
                self._send(
                    _command(f"$JS.API.{verb}", f"{self._inbox}.{n}", _json(asked)) for n, asked in page
                )
                for _ in page:
                    got = self._receive()
                    if got.status == b"503":
                        raise self._place.refusal("JetStream is off there; start nats-server with -js")
                    answers[int(got.subject.rpartition(b".")[2])] = msgspec.json.decode(got.body)
        return [answers[number] for number in range(len(questions))]

    def ask(self, verb: str, **question: object) -> dict[str, Any] | None:
        """Return what the JetStream API answers; None is that there is no such thing."""
        answer = self.ask_all(verb, [question])[0]
        if error := answer.get("error"):
            if error.get("code") != 404:
                raise self._failure(error)
            return None
        return answer

    def ensured(self, stream: str, **config: object) -> dict[str, Any]:
        """Return the state of a stream; makes it when it is not there."""
        kept = {"storage": "file", "retention": "limits", "discard": "old", "allow_direct": True}
        for verb, asked in (("INFO", {}), ("CREATE", {"name": stream, **kept, **config}), ("INFO", {})):
            answer = self.ask_all(f"STREAM.{verb}.{stream}", [asked])[0]
            if "error" not in answer:
                return answer["state"]
            if verb == "INFO" and answer["error"].get("code") != 404:
                break
        raise self._failure(answer["error"])

    def stored(self, stream: str, wanted: Sequence[Mapping[str, object]]) -> list[Stored | None]:
        """Return messages of a stream by their sequences or subjects, big ones whole; None is not there."""
        return [
            self._stored(stream, answer["message"]) if "message" in answer else None
            for answer in self.ask_all(f"STREAM.MSG.GET.{stream}", wanted)
        ]

    def _stored(self, stream: str, message: Mapping[str, Any]) -> Stored:
        body = b64decode(message.get("data", ""))
        if found := _PARTS.search(b64decode(message.get("hdrs", "")).decode()):
            body = self.joined(stream, found[1])
        return Stored(message["seq"], message["subject"], datetime.fromisoformat(message["time"]), body)

    def joined(self, stream: str, sequences: str) -> bytes:
        """Return a big body from its parts."""
        parts = self.stored(stream, [{"seq": int(seq)} for seq in sequences.split(",")])
        return b"".join(part.body for part in parts if part)

    def message(self, subject: str, message_id: str, body: bytes) -> tuple[str, str, bytes]:
        """Return what to publish for `body`; its parts are stored before, when it is too big for one."""
        headers = _message_id(message_id)
        if len(headers) + len(body) + 12 > self.max_payload:
            size = self.max_payload // 2
            sequences = [
                self.publish([(f"{subject}.part", _message_id(f"{message_id}/{at}"), body[at : at + size])])
                for at in range(0, len(body), size)
            ]
            headers += f"Streamll-Parts: {','.join(map(str, sequences))}\r\n"
            body = b""
        return subject, headers, body
