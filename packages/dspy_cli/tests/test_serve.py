"""`dspy-cli serve` as people start it: targets, hosts, ports, what it tells, and how it ends."""

import signal
import socket
from pathlib import Path

import httpx
import pytest
from own_servers import free_port
from serving import PROJECT, Process, command, parse, project, until


async def ask(process: Process, path: str = "/Talk") -> httpx.Response:
    async with process.client() as client:
        return await client.post(path, json={"words": 2})


async def test_a_project_is_served_from_its_directory_and_told_so(tmp_path: Path) -> None:
    where = project(tmp_path / "demo")
    with command(cwd=where) as process:
        await process.ready()
        answer = await ask(process)
        await until(_said(process, "Serving"), bool)
        process.signal(signal.SIGINT)
        status = await process.exited()

    assert answer.json() == {"answer": "w0 w1"}
    assert f"Serving 2 program(s) at {process.url}" in process.output
    assert "POST /Talk  Predict" in process.output
    assert "Traceback" not in process.output
    assert status == 0
    assert (where / ".dspy-cli" / "events.db").exists()


def _said(process: Process, words: str):
    async def said() -> bool:
        return words in process.output

    return said


@pytest.mark.parametrize("target", ["talk.py", "talk:Talk"])
async def test_a_file_or_a_class_is_served_too(target: str, tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text(PROJECT)
    with command(target, cwd=tmp_path) as process:
        await process.ready()
        async with process.client() as client:
            names = [each["name"] for each in (await client.get("/programs")).json()["programs"]]
        answer = await ask(process)

    assert answer.json() == {"answer": "w0 w1"}
    assert names == (["Talk"] if ":" in target else ["Talk", "Stuck"])


async def test_a_class_of_a_package_is_served(tmp_path: Path) -> None:
    where = project(tmp_path / "demo")
    with command("demo.modules.talk:Talk", cwd=where / "src") as process:
        await process.ready()
        answer = await ask(process)

    assert answer.json() == {"answer": "w0 w1"}


async def test_runs_are_there_after_a_restart(tmp_path: Path) -> None:
    where = project(tmp_path / "demo")
    with command(where, cwd=tmp_path) as process:
        await process.ready()
        run_id = (await ask(process)).headers["run-id"]
        process.signal(signal.SIGTERM)
        assert await process.exited() in (0, -signal.SIGTERM)  # which uvicorn raises again
    with command(where, cwd=tmp_path) as process:
        await process.ready()
        async with process.client() as client:
            listed = (await client.get("/runs")).json()["runs"]
            frames = parse((await client.get(f"/runs/{run_id}/events")).content)

    assert [(run["id"], run["status"]) for run in listed] == [(run_id, "ok")]
    assert frames[-1].data == {"outputs": {"answer": "w0 w1"}}


async def test_a_port_that_is_taken_is_told_in_a_line(tmp_path: Path) -> None:
    where = project(tmp_path / "demo")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with command(where, cwd=tmp_path, port=port) as process:
            status = await process.exited()

    assert status == 1
    assert f"dspy-cli: Cannot listen on 127.0.0.1:{port}" in process.output
    assert "Traceback" not in process.output


async def test_nobody_is_let_in_from_elsewhere_without_a_key(tmp_path: Path) -> None:
    where = project(tmp_path / "demo")
    with command(where, "--host", "0.0.0.0", cwd=tmp_path) as process:
        status = await process.exited()

    assert status == 1
    assert "--auth" in process.output
    assert "Traceback" not in process.output


async def test_with_auth_the_first_key_is_shown_and_asked_for(tmp_path: Path) -> None:
    where = project(tmp_path / "demo")
    with command(where, "--host", "0.0.0.0", "--auth", cwd=tmp_path) as process:
        await process.ready()
        refused = await ask(process)
        key = process.output.partition("keys create`): ")[2].split()[0]
        async with process.client() as client:
            let_in = await client.post("/Talk", json={"words": 2}, headers={"Authorization": f"Bearer {key}"})

    assert (refused.status_code, let_in.status_code) == (401, 200)


async def test_a_target_that_is_not_there_is_told_in_a_line(tmp_path: Path) -> None:
    with command("nowhere", cwd=tmp_path) as process:
        status = await process.exited()

    assert status == 1
    assert process.output.startswith("dspy-cli: ")
    assert "Traceback" not in process.output


async def test_a_file_that_fails_to_import_does_not_hide_the_others(tmp_path: Path) -> None:
    where = project(tmp_path / "demo")
    (where / "src/demo/modules/broken.py").write_text("import nothing_like_that\n")
    with command(where, cwd=tmp_path) as process:
        await process.ready()
        answer = await ask(process)
        async with process.client() as client:
            failures = (await client.get("/programs")).json()["failures"]

    assert answer.status_code == 200
    assert "nothing_like_that" in failures[0]["error"]
    assert "not served" in process.output
    assert "broken.py" in process.output


async def test_an_edited_module_is_picked_up(tmp_path: Path) -> None:
    where = project(tmp_path / "demo")
    module = where / "src/demo/modules/talk.py"
    with command(where, "--reload", cwd=tmp_path) as process:
        await process.ready()
        before = (await ask(process)).json()
        module.write_text(PROJECT.replace('f"w{number}"', 'f"edited{number}"'))

        async def answer() -> object:
            try:
                return (await ask(process)).json()
            except httpx.TransportError:
                return None

        after = await until(answer, lambda said: said == {"answer": "edited0 edited1"})
        process.signal(signal.SIGINT)
        await process.exited()

    assert before == {"answer": "w0 w1"}
    assert after == {"answer": "edited0 edited1"}


async def test_a_program_that_never_returns_does_not_keep_the_process(tmp_path: Path) -> None:
    where = project(tmp_path / "demo", shutdown_seconds=0.5)
    with command(where, cwd=tmp_path) as process:
        await process.ready()
        async with process.client() as client:
            started = await client.post("/Stuck", json={}, headers={"Prefer": "respond-async"})
        process.signal(signal.SIGTERM)
        status = await process.exited(seconds=15)

    assert started.status_code == 202
    assert status in (0, -signal.SIGTERM)
    assert "Traceback" not in process.output


async def test_settings_come_from_the_file_and_the_command_line_wins(tmp_path: Path) -> None:
    where = project(tmp_path / "demo", events=f"sqlite:///{tmp_path}/file.db", concurrency=1)
    with command(where, "--events", f"sqlite:///{tmp_path}/line.db", cwd=tmp_path) as process:
        await process.ready()
        await ask(process)

    assert (tmp_path / "line.db").exists()
    assert not (tmp_path / "file.db").exists()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--events", "sqlite:////nonexist-dir/x.db"], "SQLite refuses '/nonexist-dir/x.db'"),
        (["--events", "nonsense:"], "names no place for events"),
        (["--events", "http://x"], "names no place for events"),
        (["--events", "sqlite:///"], "names no file"),
        (["--events", "memory:", "--workers", "2"], "--workers 2 would keep runs in the memory of each"),
        (["--allow-host", "a b"], "`server.allowed_hosts` has 'a b'"),
        (["--allow-host", "a b", "--workers", "2"], "`server.allowed_hosts` has 'a b'"),
        (["--host", "\udcff", "--insecure"], "is nothing to listen on"),
    ],
)
async def test_what_cannot_be_served_with_is_told_in_a_line(
    asked: list[str], told: str, tmp_path: Path
) -> None:
    with command(project(tmp_path / "demo"), *asked, cwd=tmp_path) as process:
        status = await process.exited()

    assert status == 1
    assert process.output.startswith("dspy-cli: ")
    assert told in process.output
    assert len(process.output.splitlines()) == 1


async def test_workers_refuse_a_file_that_keeps_runs_in_memory(tmp_path: Path) -> None:
    where = project(tmp_path / "demo", events="memory:")
    with command(where, "--workers", "2", cwd=tmp_path) as process:
        status = await process.exited()

    assert status == 1
    assert process.output.startswith("dspy-cli: --workers 2 would keep runs in the memory of each")


async def test_a_log_that_is_away_is_told_in_a_line_and_waited_for(tmp_path: Path) -> None:
    where = project(tmp_path / "demo")
    with command(where, "--events", f"redis://127.0.0.1:{free_port()}", cwd=tmp_path) as process:
        await until(_said(process, "Serving"), bool)
        async with process.client() as client:
            alive = await client.get("/healthz")

    assert alive.status_code == 200
    assert process.said[0].startswith("The event log is away, serving without it until it is back: Redis")
    assert "POST /Talk" in process.said[1]
