"""Keys, sessions and tokens: who has one comes in, who lost it does not, in every process, at once."""

import asyncio
import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from dspy_cli.errors import BadSetting, DspyCliError, KeyFileError, UnknownKey
from dspy_cli.server import auth as module
from dspy_cli.server.auth import Auth, Throttle
from dspy_cli.server.problems import install
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

NONE: dict[str, str] = {}


@pytest.fixture(params=["memory", "file"])
def auth(request: pytest.FixtureRequest, tmp_path: Path) -> Auth:
    return Auth(tmp_path / "auth.db" if request.param == "file" else None, environ=NONE)


def known(auth: Auth, key: str) -> bool:
    return auth.knows_key(key.encode())


async def until_refused(auth: Auth, key: str) -> None:
    async with asyncio.timeout(3):
        while known(auth, key):  # noqa: ASYNC110 - a file rings no bell
            await asyncio.sleep(0.01)


# --- keys ---


def test_a_key_has_a_prefix_and_256_random_bits(auth: Auth) -> None:
    keys = {auth.create_key()[1] for _ in range(50)}

    assert len(keys) == 50
    assert all(key.startswith("dspy_") and len(key) == 5 + 43 for key in keys)


def test_several_named_keys_are_valid_side_by_side(auth: Auth) -> None:
    (ci, first), (laptop, second) = auth.create_key("ci"), auth.create_key("laptop")

    assert known(auth, first)
    assert known(auth, second)
    assert [key.name for key in auth.known_keys()] == ["ci", "laptop"]
    assert ci.id != laptop.id


@pytest.mark.parametrize(
    "wrong", [b"", b"dspy_", b"x" * 10_000, "schlüssel".encode(), "schlüssel".encode("latin-1"), b"\xff\x00"]
)
def test_anything_else_is_no_key_and_no_error(auth: Auth, wrong: bytes) -> None:
    """Row C6: bytes beyond ASCII were a 500."""
    _, key = auth.create_key()

    assert not auth.knows_key(wrong)
    assert not auth.knows_key(key.encode()[:-1])
    assert not auth.knows_key(key.encode() + b"=")
    assert not auth.knows_key(key.upper().encode())


def test_the_hash_of_a_key_is_no_key(auth: Auth) -> None:
    _, key = auth.create_key()
    digest = hashlib.sha256(key.encode())

    assert not auth.knows_key(digest.digest())
    assert not auth.knows_key(digest.hexdigest().encode())


def test_a_revoked_key_is_refused_at_once(auth: Auth) -> None:
    (doomed, lost), (_, kept) = auth.create_key(), auth.create_key()
    assert known(auth, lost)

    auth.revoke_key(doomed.id)

    assert not known(auth, lost)
    assert known(auth, kept)
    with pytest.raises(UnknownKey):
        auth.revoke_key(doomed.id)


async def test_another_process_sees_a_key_at_once_and_its_revocation_within_a_second(tmp_path: Path) -> None:
    server = Auth(tmp_path / "auth.db", environ=NONE)
    script = (
        "import sys; from pathlib import Path; from dspy_cli.server.auth import Auth\n"
        "auth = Auth(Path(sys.argv[1]))\n"
        "key, secret = auth.create_key('other'); print(secret, flush=True); sys.stdin.readline()\n"
        "auth.revoke_key(key.id); print('revoked', flush=True)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "auth.db")]

    with subprocess.Popen(  # noqa: ASYNC220 - the other process has the word
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin
        assert other.stdout
        key = other.stdout.readline().strip()
        assert known(server, key)
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "revoked\n"
        await until_refused(server, key)


async def test_a_deleted_file_opens_nothing(tmp_path: Path) -> None:
    """Its inode lives on while it is open: without a look at the path its keys would too."""
    server = Auth(tmp_path / "auth.db", environ=NONE)
    _, key = server.create_key()
    assert known(server, key)

    (tmp_path / "auth.db").unlink()

    await until_refused(server, key)
    assert known(server, Auth(tmp_path / "auth.db", environ=NONE).create_key()[1])


def test_the_log_of_a_deleted_file_does_not_bring_its_keys_back(tmp_path: Path) -> None:
    path = tmp_path / "auth.db"
    _, key = Auth(path, environ=NONE).create_key()
    with closing(sqlite3.connect(path)) as killed:
        killed.execute("UPDATE keys SET name = 'still in the log'")
        killed.commit()
        log = (tmp_path / "auth.db-wal").read_bytes()
    path.unlink()
    (tmp_path / "auth.db-wal").write_bytes(log)

    assert log
    assert not known(Auth(path, environ=NONE), key)


def test_the_last_use_of_a_key_is_kept(auth: Auth) -> None:
    _, key = auth.create_key()
    assert auth.known_keys()[0].used is None

    known(auth, key)

    used = auth.known_keys()[0].used
    assert used
    assert abs((datetime.now(UTC) - used).total_seconds()) < 60


def test_the_last_use_is_written_once_a_minute(auth: Auth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FRESH_SECONDS", 0)
    _, key = auth.create_key()
    used: set[datetime | None] = set()

    for _ in range(3):
        assert known(auth, key)
        used.add(auth.known_keys()[0].used)

    assert len(used) == 1


def test_a_writer_elsewhere_does_not_hold_up_a_lookup(tmp_path: Path) -> None:
    auth = Auth(tmp_path / "auth.db", environ=NONE)
    _, key = auth.create_key()
    with closing(sqlite3.connect(tmp_path / "auth.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        began = time.monotonic()

        assert known(auth, key)

        assert time.monotonic() - began < 0.5
    assert auth.known_keys()[0].used is None


def test_the_environment_adds_a_key(tmp_path: Path) -> None:
    auth = Auth(None, environ={"DSPY_CLI_API_KEY": "from-the-container"})

    assert known(auth, "from-the-container")
    assert known(auth, auth.create_key()[1])
    assert not known(auth, "from-the-containe")
    assert not known(Auth(None, environ={"DSPY_CLI_API_KEY": ""}), "")


@pytest.mark.parametrize("name", ["DSPY_CLI_API_KEY", "DSPY_CLI_SECRET"])
def test_a_secret_that_could_be_guessed_is_refused_and_not_shown(name: str) -> None:
    with pytest.raises(BadSetting, match=f"{name} has 7 characters") as refused:
        Auth(None, environ={name: "hunter2"})

    assert "hunter2" not in str(refused.value)


# --- sessions ---


def test_a_session_is_open_until_it_is_closed(auth: Auth) -> None:
    session = auth.open_session(auth.create_key()[1].encode())
    other = auth.open_session(auth.create_key()[1].encode())
    assert session
    assert other
    assert auth.knows_session(session.encode())

    auth.close_session(session.encode())
    auth.close_session(b"there is none")

    assert not auth.knows_session(session.encode())
    assert auth.knows_session(other.encode())


def test_a_session_needs_a_valid_key_and_ends_with_it(auth: Auth) -> None:
    id, key = auth.create_key()
    session = auth.open_session(key.encode())
    assert session
    assert auth.knows_session(session.encode())

    auth.revoke_key(id.id)

    assert not auth.knows_session(session.encode())
    assert auth.open_session(key.encode()) is None


def test_a_session_of_the_environments_key_ends_when_that_changes(tmp_path: Path) -> None:
    before = Auth(tmp_path / "auth.db", environ={"DSPY_CLI_API_KEY": "a" * 20})
    session = before.open_session(b"a" * 20)
    assert session
    assert before.knows_session(session.encode())

    after = Auth(tmp_path / "auth.db", environ={"DSPY_CLI_API_KEY": "b" * 20})

    assert not after.knows_session(session.encode())


def test_a_session_expires(auth: Auth) -> None:
    session = auth.open_session(auth.create_key()[1].encode(), seconds=0)

    assert session
    assert not auth.knows_session(session.encode())


def test_a_session_is_no_key_and_a_key_no_session(auth: Auth) -> None:
    _, key = auth.create_key()
    session = auth.open_session(key.encode())

    assert session
    assert auth.knows_session(session.encode())
    assert not known(auth, session)
    assert not auth.knows_session(key.encode())


def test_sessions_are_hashed_and_shared_by_workers(tmp_path: Path) -> None:
    first, second = (Auth(tmp_path / "auth.db", environ=NONE) for _ in range(2))
    session = first.open_session(first.create_key()[1].encode())

    assert session
    assert second.knows_session(session.encode())
    assert second.cookie == first.cookie
    assert session.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_two_projects_on_one_machine_have_two_cookies(tmp_path: Path) -> None:
    assert Auth(tmp_path / "a.db", environ=NONE).cookie != Auth(tmp_path / "b.db", environ=NONE).cookie


# --- tokens ---


def test_a_token_is_for_one_run_and_some_seconds(auth: Auth) -> None:
    token = auth.sign("run-1")

    assert auth.verify(token, "run-1")
    assert not auth.verify(token, "run-2")
    assert not auth.verify(auth.sign("run-1", 0), "run-1")
    assert not auth.verify(auth.sign("run-1", -5), "run-1")


@given(st.text() | st.from_regex(r"[0-9]{10}\.[A-Za-z0-9_=-]{40,45}"), st.text())
def test_no_text_is_a_token_unless_it_was_signed(token: str, run: str) -> None:
    assert not SIGNER.verify(token, run)


@given(st.text(), st.data())
def test_a_token_with_one_character_changed_is_refused(run: str, data: st.DataObject) -> None:
    token = SIGNER.sign(run)
    at = data.draw(st.integers(0, len(token) - 1))
    changed = data.draw(st.characters().filter(lambda character: character != token[at]))

    assert SIGNER.verify(token, run)
    assert not SIGNER.verify(token[:at] + changed + token[at + 1 :], run)
    assert not SIGNER.verify(token + changed, run)


SIGNER = Auth(None, environ=NONE)


@pytest.mark.parametrize(
    "respelled", ["0{}", " {}", "+{}", "{}=", "{}\n", "²{}", "{}." + "A" * 43, "9" * 5000 + "{}"]
)
def test_a_token_has_one_spelling(auth: Auth, respelled: str) -> None:
    assert not auth.verify(respelled.format(auth.sign("run")), "run")


def test_workers_verify_each_others_tokens_and_projects_do_not(tmp_path: Path) -> None:
    first, second = (Auth(tmp_path / "auth.db", environ=NONE) for _ in range(2))
    stranger = Auth(tmp_path / "other.db", environ=NONE)

    assert second.verify(first.sign("run"), "run")
    assert not stranger.verify(first.sign("run"), "run")


def test_machines_with_the_same_secret_verify_each_others_tokens(tmp_path: Path) -> None:
    shared = {"DSPY_CLI_SECRET": "a secret of the whole fleet"}
    first, second = Auth(tmp_path / "1.db", environ=shared), Auth(tmp_path / "2.db", environ=shared)

    assert second.verify(first.sign("run"), "run")


# --- the file ---


def test_files_are_private_even_if_the_umask_is_not(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        auth = Auth(tmp_path / "deep" / "keys" / "auth.db", environ=NONE)
        auth.create_key()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "deep").rglob("*")}
    finally:
        os.umask(mask)

    modes.pop(".gitignore")
    assert modes == {"keys": 0o700, "auth.db": 0o600, "auth.db-wal": 0o600, "auth.db-shm": 0o600}


def test_a_file_and_a_directory_that_were_left_open_are_closed(tmp_path: Path) -> None:
    path = tmp_path / ".dspy-cli" / "auth.db"
    path.parent.mkdir(mode=0o777)
    Auth(path, environ=NONE)
    path.chmod(0o666)
    path.parent.chmod(0o755)

    Auth(path, environ=NONE)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_somebody_elses_directory_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    Auth(tmp_path / "auth.db", environ=NONE)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.parametrize("content", [b"", b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "auth.db"
    path.write_bytes(content)

    with pytest.raises(KeyFileError, match="delete it and make new keys") as refused:
        Auth(path, environ={"DSPY_CLI_SECRET": "a secret of the whole fleet"})

    assert refused.value.path == str(path)
    assert str(path) in str(refused.value)
    assert isinstance(refused.value, DspyCliError)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(KeyFileError, match=r"file/auth\.db"):
        Auth(tmp_path / "file" / "auth.db", environ=NONE)


def test_a_file_that_breaks_later_lets_nobody_in(tmp_path: Path) -> None:
    auth = Auth(tmp_path / "auth.db", environ=NONE)
    _, key = auth.create_key()
    (tmp_path / "auth.db").unlink()
    (tmp_path / "auth.db").mkdir()

    with pytest.raises(KeyFileError):
        known(auth, key)


def test_many_processes_and_threads_may_start_on_one_new_file(tmp_path: Path) -> None:
    path = tmp_path / ".dspy-cli" / "auth.db"
    script = (
        "import sys; from pathlib import Path; from dspy_cli.server.auth import Auth\n"
        "auth = Auth(Path(sys.argv[1])); print(auth.create_key()[1], auth.sign('run'))"
    )
    command = [sys.executable, "-c", script, str(path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: Auth(path, environ=NONE).create_key()[1], range(16)))
    written = [process.communicate(timeout=60)[0].split() for process in processes]

    auth = Auth(path, environ=NONE)
    assert all(known(auth, key) for key in [*made, *(key for key, _ in written)])
    assert all(auth.verify(token, "run") for _, token in written)
    assert {file.name for file in path.parent.iterdir()} <= {
        ".gitignore",
        "auth.db",
        "auth.db-wal",
        "auth.db-shm",
    }


def test_who_comes_late_to_a_new_file_leaves_its_journal_alone(tmp_path: Path) -> None:
    path, journal = tmp_path / "auth.db", tmp_path / "auth.db-wal"
    with ThreadPoolExecutor(1) as pool:
        with module._alone(tmp_path):  # pyright: ignore[reportPrivateUsage]
            late = pool.submit(Auth, path, environ=NONE)
            with pytest.raises(TimeoutError):  # it saw no file, and waits for its turn
                late.result(0.5)
            module._draft(path)  # pyright: ignore[reportPrivateUsage]
            early = sqlite3.connect(path, isolation_level=None)
            early.execute("DELETE FROM keys")
            early.execute("INSERT INTO keys VALUES (x'00', 'a', '', 0, NULL)")
            written = journal.stat().st_ino
        late.result(60)

    assert journal.stat().st_ino == written
    early.close()


def test_threads_share_one_auth(tmp_path: Path) -> None:
    auth = Auth(tmp_path / "auth.db", environ=NONE)

    def come_and_go(_: int) -> bool:
        id, key = auth.create_key()
        came = known(auth, key) and auth.open_session(key.encode()) is not None
        auth.revoke_key(id.id)
        return came and not known(auth, key)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(come_and_go, range(40)))
    assert auth.known_keys() == ()


def test_an_app_that_is_only_built_holds_no_connection(tmp_path: Path) -> None:
    auth = Auth(tmp_path / "auth.db", environ=NONE)

    assert [file.name for file in tmp_path.iterdir()] == ["auth.db"]  # and no -wal, no -shm
    assert auth.known_keys() == ()


def test_a_forked_server_and_its_parent_both_go_on(tmp_path: Path) -> None:
    """A pre-forking server builds the app before it forks, and SQLite must not be carried over."""
    script = (
        "import os, sys; from pathlib import Path; from dspy_cli.server.auth import Auth\n"
        "auth = Auth(Path(sys.argv[1])); child = os.fork()\n"
        "auth.create_key()\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 0)"
    )

    subprocess.run([sys.executable, "-c", script, str(tmp_path / "auth.db")], check=True, timeout=60)

    assert len(Auth(tmp_path / "auth.db", environ=NONE).known_keys()) == 2


def test_what_is_remembered_of_lookups_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    looked: list[bytes] = []
    remembered = module._Remembered(lambda digest: not looked.append(digest))  # pyright: ignore[reportPrivateUsage]

    for digest in (b"1", b"1", b"2", b"3", b"3", b"4", b"1"):
        assert remembered(digest)

    assert looked == [b"1", b"2", b"3", b"4", b"1"]


# --- logging in ---


@asynccontextmanager
async def browser(
    auth: Auth, *, scheme: str = "http", address: str = "10.0.0.1"
) -> AsyncGenerator[httpx.AsyncClient]:
    app = FastAPI()
    install(app)
    app.include_router(auth.router())
    transport = httpx.ASGITransport(app, client=(address, 1))
    async with httpx.AsyncClient(transport=transport, base_url=f"{scheme}://localhost") as client:
        yield client


async def test_a_browser_logs_in_is_known_and_logs_out_for_good(auth: Auth) -> None:
    """Row C6: a cookie went on opening the door after the logout."""
    _, key = auth.create_key()
    async with browser(auth) as client:
        assert (await client.get("/session")).json() == {"authenticated": False}

        login = await client.post("/session", json={"key": key})

        assert login.json() == {"authenticated": True}
        assert (await client.get("/session")).json() == {"authenticated": True}
        cookie = client.cookies[auth.cookie]
        assert (await client.delete("/session")).json() == {"authenticated": False}
        assert auth.cookie not in client.cookies
        client.cookies[auth.cookie] = cookie
        assert (await client.get("/session")).json() == {"authenticated": False}


@pytest.mark.parametrize(("scheme", "secure"), [("http", False), ("https", True)])
async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(
    auth: Auth, scheme: str, secure: bool
) -> None:
    async with browser(auth, scheme=scheme) as client:
        login = await client.post("/session", json={"key": auth.create_key()[1]})

    name, _, attributes = login.headers["set-cookie"].partition("=")
    assert name == auth.cookie
    parts = {part.strip().lower() for part in attributes.split(";")[1:]}
    expected = {"httponly", "samesite=strict", "path=/", f"max-age={module.SESSION_SECONDS}"}
    assert parts == (expected | {"secure"} if secure else expected)
    assert login.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("key", ["wrong", "schlüssel", "☃" * 100])
async def test_a_wrong_key_is_a_401(auth: Auth, key: str) -> None:
    async with browser(auth) as client:
        login = await client.post("/session", json={"key": key})

    assert login.status_code == 401
    assert "set-cookie" not in login.headers
    assert login.headers["content-type"] == "application/problem+json"
    assert key not in login.text


@pytest.mark.parametrize(
    "body", [{}, {"key": ""}, {"key": 1}, {"key": "k" * 513}, {"key": "k", "next": "/"}, ["k"]]
)
async def test_a_login_that_is_no_login_is_a_422_without_the_key(auth: Auth, body: object) -> None:
    async with browser(auth) as client:
        login = await client.post("/session", json=body)

    assert login.status_code == 422
    assert "kkk" not in login.text


async def test_failed_logins_are_limited_for_each_address(auth: Auth) -> None:
    _, key = auth.create_key()
    app = FastAPI()
    install(app)
    app.include_router(auth.router())

    async def log_in(address: str, key: str) -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/session", json={"key": key})

    assert (await log_in("10.0.0.1", key)).status_code == 200
    failed = [(await log_in("10.0.0.1", f"guess {n}")).status_code for n in range(12)]
    assert failed == [401] * 10 + [429] * 2
    limited = await log_in("10.0.0.1", key)
    assert limited.status_code == 429
    assert 1 <= int(limited.headers["retry-after"]) <= 61
    assert (await log_in("10.0.0.2", key)).status_code == 200


def test_after_a_while_there_is_another_attempt() -> None:
    now = [0.0]
    throttle = Throttle(attempts=2, seconds=60, clock=lambda: now[0])

    assert [throttle.attempt("a"), throttle.attempt("a")] == [0, 0]
    now[0] = 20.0
    assert throttle.attempt("a") == 40
    now[0] = 60.0
    assert throttle.attempt("a") == 0


def test_the_throttle_remembers_a_bounded_number_of_addresses() -> None:
    throttle = Throttle(attempts=1, addresses=2)

    assert [throttle.attempt(address) for address in "abc"] == [0, 0, 0]
    assert throttle.attempt("a") == 0
    assert throttle.attempt("c") > 0
