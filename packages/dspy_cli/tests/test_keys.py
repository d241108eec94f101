"""`dspy-cli keys`: one command to make a key, see those there are, and end one."""

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from dspy_cli.cli import cli
from dspy_cli.errors import BadSetting, KeyFileError, UnknownKey
from dspy_cli.server.auth import FILE, Auth


def keys(project: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["keys", *arguments, "--project", str(project)])


def test_a_created_key_is_printed_alone_and_opens_the_door(tmp_path: Path) -> None:
    made = keys(tmp_path, "create", "--name", "ci")

    assert made.exit_code == 0
    assert made.stdout.startswith("dspy_")
    assert Auth(tmp_path / FILE, environ={}).knows_key(made.stdout.strip().encode())
    assert "not shown again" in made.stderr


def test_the_list_shows_names_and_last_use_and_no_key(tmp_path: Path) -> None:
    key = keys(tmp_path, "create", "--name", "ci").stdout.strip()
    keys(tmp_path, "create", "--name", "laptop")
    Auth(tmp_path / FILE, environ={}).knows_key(key.encode())

    shown = keys(tmp_path, "list").stdout

    first, second = shown.splitlines()
    assert "used 20" in first
    assert first.endswith("ci")
    assert "never used" in second
    assert second.endswith("laptop")
    assert key not in shown


def test_a_revoked_key_is_gone(tmp_path: Path) -> None:
    key = keys(tmp_path, "create").stdout.strip()
    id = keys(tmp_path, "list").stdout.split()[0]

    revoked = keys(tmp_path, "revoke", id)

    assert revoked.stdout == f"Revoked {id}.\n"
    assert keys(tmp_path, "list").stdout == ""
    assert not Auth(tmp_path / FILE, environ={}).knows_key(key.encode())


def test_revoking_what_is_not_there_is_an_error_that_says_where_to_look(tmp_path: Path) -> None:
    with pytest.raises(UnknownKey, match="'nope'; `dspy-cli keys list`"):
        raise _error(keys(tmp_path, "revoke", "nope"))


def test_looking_makes_no_file(tmp_path: Path) -> None:
    shown = keys(tmp_path, "list")

    assert shown.stdout == ""
    assert "`dspy-cli keys create` makes one" in shown.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_the_owners_and_holds_no_key(tmp_path: Path) -> None:
    key = keys(tmp_path, "create").stdout.strip()

    file = tmp_path / FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert (file.parent / ".gitignore").read_text() == "*\n"
    assert key.encode() not in b"".join(path.read_bytes() for path in file.parent.iterdir())
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT length(digest) FROM keys").fetchall() == [(32,)]


@pytest.mark.parametrize("name", ["\x1b[2J", "two\nlines", "x" * 65])
def test_a_name_cannot_write_on_the_terminal_of_who_lists_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadSetting, match="64 printable characters"):
        raise _error(keys(tmp_path, "create", "--name", name))


def test_a_file_that_is_no_key_file_is_named(tmp_path: Path) -> None:
    (tmp_path / ".dspy-cli").mkdir()
    (tmp_path / FILE).write_text("not a database, but long enough to be looked at as one" * 20)

    with pytest.raises(KeyFileError, match=r"\.dspy-cli/auth\.db"):
        raise _error(keys(tmp_path, "create"))


def _error(result: Result) -> BaseException:
    assert result.exit_code == 1
    assert result.exception
    return result.exception
