"""Who may come in: API keys, browser sessions and per-run tokens, in an SQLite file all workers share.

Only SHA-256 hashes of keys and sessions are stored. A slow hash is not needed: what is hashed has 256 random
bits. A lookup goes by hash, so its time tells nothing of a secret.
"""

import base64
import fcntl
import hashlib
import hmac
import os
import secrets
import sqlite3
import tempfile
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from dspy_cli.errors import BadSetting, KeyFileError, UnknownKey
from dspy_cli.server.problems import Problem

FILE = Path(".dspy-cli", "auth.db")
"""Where a project keeps its keys."""

SESSION_SECONDS = 7 * 24 * 3600
TOKEN_SECONDS = 60

_FRESH_SECONDS = 1.0
"""For so long a worker believes what it looked up: a key revoked elsewhere opens nothing after that."""
_USED_SECONDS = 60.0
"""A key's last use is written down at most this often."""
_REMEMBERED = 4096
_WEAK = 16
"""Secrets from the environment are at least this long: they are chosen by people."""

_TABLES = """
PRAGMA journal_mode=WAL;
CREATE TABLE keys (
  digest BLOB PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, created REAL NOT NULL, used REAL
) WITHOUT ROWID, STRICT;
CREATE TABLE sessions (
  digest BLOB PRIMARY KEY, key BLOB NOT NULL, expires REAL NOT NULL) WITHOUT ROWID, STRICT;
CREATE TABLE secret (one INTEGER PRIMARY KEY CHECK (one = 1), value BLOB NOT NULL) STRICT;
"""


class Key(NamedTuple):
    """What is known of an API key; the key itself is not."""

    id: str
    name: str
    created: datetime
    used: datetime | None


class Auth:
    """The API keys, sessions and tokens of one project.

    Threads and processes may share the file. A key revoked here is refused at once, one revoked by another
    process within a second. `DSPY_CLI_API_KEY` is one more valid key, `DSPY_CLI_SECRET` signs tokens for all
    machines that have it.

    Args:
        path: Made when absent, mode 0600; its directory is made with 0700. None keeps all in memory.
        environ: Where those two variables are looked up; `os.environ` unless given.

    Raises:
        KeyFileError: The file cannot be made, opened or understood.
        BadSetting: A secret in the environment has less than 16 characters.
    """

    def __init__(self, path: Path | None = None, *, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        given, secret = _strong(environ, "DSPY_CLI_API_KEY"), _strong(environ, "DSPY_CLI_SECRET")
        self._environment_key = _digest(given) if given else None
        self._looks = _Link(path, busy_seconds=1)
        self._writes = _Link(path, busy_seconds=5) if path else self._looks
        self._touches = _Link(path, busy_seconds=0) if path else self._looks
        self._knows_key = _Remembered(self._find_key)
        self._knows_session = _Remembered(self._find_session)
        kept = self._looks.rows("SELECT value FROM secret")[0][0]
        self._secret = _digest(secret) if secret else bytes(kept)
        # Cookies do not know ports: under one name, two servers on a machine would end each other's sessions.
        self.cookie = "dspy_cli_" + hashlib.sha256(b"cookie" + self._secret).hexdigest()[:8]
        self.close()  # A server may fork now; SQLite's connections must not be carried over a fork.

    def close(self) -> None:
        """Let go of the file; it is opened again when it is needed."""
        for link in (self._looks, self._writes, self._touches):
            link.close()

    # --- keys ---

    def create_key(self, name: str = "") -> tuple[Key, str]:
        """Make a key, and return what is kept of it and the key itself, which cannot be had again."""
        key = "dspy_" + secrets.token_urlsafe(32)
        known = Key(secrets.token_hex(4), _printable(name), datetime.now(UTC), None)
        self._writes.rows(
            "INSERT INTO keys (digest, id, name, created) VALUES (?, ?, ?, ?)",
            *(_digest(key.encode()), known.id, known.name, known.created.timestamp()),
        )
        return known, key

    def known_keys(self) -> tuple[Key, ...]:
        """Return the keys in the file, oldest first."""
        rows = self._looks.rows("SELECT id, name, created, used FROM keys ORDER BY created, id")
        return tuple(Key(id, name, _moment(made), used and _moment(used)) for id, name, made, used in rows)

    def revoke_key(self, id: str) -> None:
        """Refuse a key, and every session that was opened with it, from this moment."""
        revoked = self._writes.rows("DELETE FROM keys WHERE id = ? RETURNING digest", id)
        if not revoked:
            raise UnknownKey(f"No key has the id {id[:80]!r}; `dspy-cli keys list` shows those there are.")
        self._forget()
        self._writes.rows("DELETE FROM sessions WHERE key = ?", *revoked[0])

    def knows_key(self, key: bytes) -> bool:
        """Return whether `key` is valid."""
        return self._knows_key(_digest(key))

    def _find_key(self, digest: bytes) -> bool:
        if self._environment_key is not None and hmac.compare_digest(self._environment_key, digest):
            return True
        rows = self._looks.rows("SELECT digest, used FROM keys WHERE digest = ?", digest)
        found = [used or 0.0 for known, used in rows if hmac.compare_digest(known, digest)]
        for used in found:
            self._touch(digest, used)
        return bool(found)

    def _touch(self, digest: bytes, used: float) -> None:
        now = time.time()
        if not used <= now < used + _USED_SECONDS:
            with suppress(KeyFileError):  # someone else writes: the next look tries again
                self._touches.rows("UPDATE keys SET used = ? WHERE digest = ?", now, digest)

    # --- sessions ---

    def open_session(self, key: bytes, *, seconds: float = SESSION_SECONDS) -> str | None:
        """Return the id of a new session, for a cookie; None when `key` is not valid."""
        if not self.knows_key(key):
            return None
        id, now = secrets.token_urlsafe(32), time.time()
        self._writes.rows("DELETE FROM sessions WHERE expires <= ?", now)
        self._writes.rows(
            "INSERT INTO sessions VALUES (?, ?, ?)", _digest(id.encode()), _digest(key), now + seconds
        )
        return id

    def knows_session(self, id: bytes) -> bool:
        """Return whether the session is open: not ended, not expired, and its key still valid."""
        return self._knows_session(_digest(id))

    def close_session(self, id: bytes) -> None:
        """End a session; there may be none."""
        if self._writes.rows("DELETE FROM sessions WHERE digest = ? RETURNING key", _digest(id)):
            self._forget()

    def _find_session(self, digest: bytes) -> bool:
        rows = self._looks.rows(
            "SELECT digest, key FROM sessions WHERE digest = ? AND expires > ?", digest, time.time()
        )
        return any(hmac.compare_digest(known, digest) and self._knows_key(key) for known, key in rows)

    def _forget(self) -> None:
        self._knows_key.forget()
        self._knows_session.forget()

    # --- tokens ---

    def sign(self, run_id: str, seconds: float = TOKEN_SECONDS) -> str:
        """Return a token that opens `GET /runs/{run_id}/events`, and nothing else, for `seconds`."""
        return self._token(run_id, int(time.time() + seconds))

    def verify(self, token: str, run_id: str) -> bool:
        """Return whether `token` was signed for this run and has not expired."""
        expires = token.partition(".")[0]
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
            return False
        # The whole token is compared: one text for one token, whatever base64 would have forgiven.
        signed = hmac.compare_digest(self._token(run_id, int(expires)).encode(), _bytes(token))
        return signed and time.time() < int(expires)

    def _token(self, run_id: str, expires: int) -> str:
        text = b"\0".join((b"dspy-cli: GET /runs/{id}/events", str(expires).encode(), _bytes(run_id)))
        signature = hmac.digest(self._secret, text, "sha256")
        return f"{expires}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"

    # --- HTTP ---

    def router(self) -> APIRouter:
        """Return `/session`: log in with a key, see whether one is logged in, log out."""
        router = APIRouter(tags=["session"])
        throttle = Throttle()

        @router.post("/session")
        def log_in(login: Login, request: Request, response: Response) -> Session:
            """Open a session in this browser for an API key."""
            address = request.client.host if request.client else ""
            if seconds := throttle.attempt(address):
                raise _too_many(seconds)
            session = self.open_session(_bytes(login.key))
            if session is None:
                raise Problem(401, "That key is not valid, or was revoked.", headers=_NO_STORE)
            throttle.forgive(address)
            self._set_cookie(request, response, session, SESSION_SECONDS)
            return Session(authenticated=True)

        @router.get("/session")
        def look(request: Request, response: Response) -> Session:
            """Tell whether this browser has an open session."""
            response.headers.update(_NO_STORE)
            return Session(authenticated=self.knows_session(_bytes(request.cookies.get(self.cookie, ""))))

        @router.delete("/session")
        def log_out(request: Request, response: Response) -> Session:
            """End this browser's session, for whoever has its cookie."""
            self.close_session(_bytes(request.cookies.get(self.cookie, "")))
            self._set_cookie(request, response, "", 0)
            return Session(authenticated=False)

        return router

    def _set_cookie(self, request: Request, response: Response, session: str, seconds: int) -> None:
        response.headers.update(_NO_STORE)
        response.set_cookie(
            *(self.cookie, session, seconds),
            path="/",
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )


class Login(BaseModel):
    """What a browser sends to log in."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=1, max_length=512, description="An API key, from `dspy-cli keys create`.")


class Session(BaseModel):
    """What a browser learns of its session; the session itself is in a cookie no script can read."""

    authenticated: bool


class Throttle:
    """Counts the failed attempts of each address, and says how long it has to wait for another."""

    def __init__(
        self,
        *,
        attempts: int = 10,
        seconds: float = 60.0,
        addresses: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._attempts, self._seconds, self._addresses, self._clock = attempts, seconds, addresses, clock
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def attempt(self, address: str) -> float:
        """Count an attempt, failed until `forgive`; return the seconds to wait when there were too many."""
        with self._lock:
            now = self._clock()
            failed = self._failed.setdefault(address, deque(maxlen=self._attempts))
            self._failed.move_to_end(address)
            if len(self._failed) > self._addresses:
                self._failed.popitem(last=False)
            if len(failed) == self._attempts and failed[0] + self._seconds > now:
                return failed[0] + self._seconds - now
            failed.append(now)
            return 0.0

    def forgive(self, address: str) -> None:
        """Forget the attempts of an address that came in."""
        with self._lock:
            self._failed.pop(address, None)


_NO_STORE = {"Cache-Control": "no-store"}


def _too_many(seconds: float) -> Problem:
    wait = int(seconds) + 1
    return Problem(429, f"Too many failed logins; try again in {wait} s.", headers={"Retry-After": str(wait)})


class _Remembered:
    """Looks up a hash, and believes a positive answer for a second. What is unknown is never kept."""

    def __init__(self, look: Callable[[bytes], bool]) -> None:
        self._look = look
        self._until: dict[bytes, float] = {}

    def __call__(self, digest: bytes) -> bool:
        now = time.monotonic()
        if self._until.get(digest, 0.0) > now:
            return True
        found = self._look(digest)
        if len(self._until) >= _REMEMBERED:
            self.forget()
        if found:
            self._until[digest] = now + _FRESH_SECONDS
        return found

    def forget(self) -> None:
        self._until.clear()


class _Link:
    """One connection to the file, for one thread at a time; opened when needed, and again when replaced."""

    def __init__(self, path: Path | None, *, busy_seconds: float) -> None:
        self._path, self._busy_seconds = path, busy_seconds
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None

    def rows(self, statement: str, *values: object) -> list[Any]:
        """Run one statement, in a transaction of its own, and return all it gives."""
        with self._lock, _typed_errors(self._path):
            return self._opened().execute(statement, values).fetchall()

    def close(self) -> None:
        """Let go of a file. What is in memory stays."""
        with self._lock:
            if self._path is not None:
                self._disconnect()

    def _opened(self) -> sqlite3.Connection:
        # A file that was deleted or replaced would be read on for ever: its keys would never be revoked.
        if self._connection is None or self._inode != _inode(self._path):
            self._disconnect()
            self._connect()
        assert self._connection is not None
        return self._connection

    def _connect(self) -> None:
        if self._path is not None:
            _make(self._path)
        self._connection = sqlite3.connect(
            self._path or ":memory:",
            timeout=self._busy_seconds,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
        )
        if self._path is None:
            _fill(self._connection)
        self._inode = _inode(self._path)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Connection(sqlite3.Connection):
    """Closes when forgotten: nobody closes an app that is only built, in a test or to print its schema."""

    def __del__(self) -> None:
        with suppress(sqlite3.Error):  # it was never open
            self.close()


def _make(path: Path) -> None:
    """Make the file of keys unless it is there. It appears whole: no process ever sees half of it.

    An existing one is not opened here: closing it would drop the locks SQLite has on it in this process.
    """
    _make_directory(path.parent)
    if not path.exists():
        with _alone(path.parent):
            if not path.exists():
                for left_over in ("-wal", "-shm"):  # of a deleted file: SQLite would bring its keys back
                    path.with_name(path.name + left_over).unlink(missing_ok=True)
                _draft(path)
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)


@contextmanager
def _alone(directory: Path) -> Generator[None]:
    """Let one thread of one process at a time make a file, whose journal others might take for left over."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _draft(path: Path) -> None:
    descriptor, draft = tempfile.mkstemp(prefix=".keys-", dir=path.parent)  # mode 0600, whatever the umask
    os.close(descriptor)
    try:
        with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            _fill(connection)
        with suppress(FileExistsError):  # flock does nothing on some network's disk
            os.link(draft, path)
    finally:
        os.unlink(draft)


def _make_directory(directory: Path) -> None:
    if not directory.exists():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / ".gitignore").write_text("*\n")
    if directory.name == ".dspy-cli" and directory.stat().st_mode & 0o077:
        directory.chmod(0o700)


def _fill(connection: sqlite3.Connection) -> None:
    connection.executescript(_TABLES)
    connection.execute("INSERT INTO secret VALUES (1, ?)", (secrets.token_bytes(32),))


@contextmanager
def _typed_errors(path: Path | None) -> Generator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise KeyFileError(
            f"The key file {str(path)!r} cannot be used: {error}. Make it and its directory writable,"
            " restore it, or delete it and make new keys with `dspy-cli keys create`.",
            path=str(path),
        ) from error


def _inode(path: Path | None) -> int | None:
    try:
        return os.stat(path).st_ino if path else None
    except FileNotFoundError:
        return None


def _strong(environ: Mapping[str, str], name: str) -> bytes:
    """Return a secret from the environment, empty when there is none."""
    value = environ.get(name, "").strip()
    if 0 < len(value) < _WEAK:
        raise BadSetting(
            f"{name} has {len(value)} characters and could be guessed; give it at least {_WEAK},"
            ' such as `python -c "import secrets; print(secrets.token_urlsafe(32))"` prints.'
        )
    return _bytes(value)


def _printable(name: str) -> str:
    if len(name) > 64 or not name.isprintable():
        raise BadSetting(f"The name of a key is at most 64 printable characters, not {name[:80]!r}.")
    return name


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _bytes(text: str) -> bytes:
    """Encode any string a client can send, lone surrogates too."""
    return text.encode("utf-8", "surrogatepass")


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
