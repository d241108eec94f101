"""The web UI in a real browser on a real server; its logic under node."""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from time import sleep
from typing import Any

import dspy
import httpx
import pytest
import streamll
import ui_programs
from dspy_cli import Auth, create_app
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright
from ui_programs import ANSWER, PROBE, REASONING

HERE = Path(__file__).parent
UI = HERE.parent / "src" / "dspy_cli" / "ui"
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
SCRIPTS = sorted(path.name for path in UI.glob("*.js"))
PAGES = ("", "#/programs/Handbook", "#/programs/Everything", "#/runs", "docs", "ui/login.html")


def need(*, present: object, what: str) -> None:
    """Skip without `what` on a laptop; fail in CI."""
    if not present:
        assert "CI" not in os.environ, f"{what} is not installed"
        pytest.skip(f"{what} is not installed")


# --- the logic, under node ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the tests under node look at: a log that a program wrote, a schema that the server made."""
    need(present=shutil.which("node"), what="node")
    directory = tmp_path_factory.mktemp("ui")
    served = {each.name: each for each in ui_programs.programs(seconds=0)}

    async def record() -> bytes:
        events = streamll.stream(served["Handbook"].module, question="Who built the Pharos?")
        with dspy.context(lm=served["Handbook"].lm):
            return b"\n".join([streamll.encode(event) async for event in events])

    (directory / "events.jsonl").write_bytes(asyncio.run(record()))
    (directory / "schema.json").write_text(json.dumps(served["Everything"].input_schema()))
    return {"EVENTS": f"{directory}/events.jsonl", "SCHEMA": f"{directory}/schema.json"}


def node(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ("node", *map(str, arguments)),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("suite", ["fold", "schema", "sse"])
def test_the_logic_holds_under_node(suite: str, facts: dict[str, str]) -> None:
    done = node("--test-reporter=tap", "--test", HERE / "ui" / f"{suite}.test.mjs", **facts)

    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"^# pass (\d+)", done.stdout, re.MULTILINE)[0]) >= 15


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_parses(script: str) -> None:
    need(present=shutil.which("node"), what="node")

    assert node("--check", UI / script).stderr == ""


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_script_parses_html_or_asks_another_host(script: str) -> None:
    source = (UI / script).read_text()

    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", source
    )
    assert set(re.findall(r"https?://[\w.]+", source)) <= {
        "http://www.w3.org",
        "https://html.spec.whatwg.org",
        "https://example.com",
    }


@pytest.mark.parametrize("page", ["index.html", "login.html", "docs.html"])
def test_no_page_has_script_or_style_of_its_own(page: str) -> None:
    source = (UI / page).read_text()

    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?://", source)


# --- the browser --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    need(present=CHROMIUM.exists(), what="/usr/bin/chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    with ui_programs.serving(ui_programs.app(seconds=0.01)) as url:
        yield url


@pytest.fixture
def context(browser: Browser, url: str) -> Generator[BrowserContext]:
    """A browser with an empty profile that fails the test if a page asks for anything of another host."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    foreign: list[str] = []
    context.on("request", lambda request: foreign.append(request.url) if _foreign(request.url) else None)
    yield context
    context.close()
    assert foreign == []


def _foreign(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "data:", "blob:"))


@pytest.fixture
def page(context: BrowserContext, url: str) -> Generator[Page]:
    """A page that fails the test when a script fails or the content security policy has something to stop."""
    page = context.new_page()
    page.set_default_timeout(20_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if _is_wrong(said.type, said.text) else None)
    yield page
    assert wrong == []


def _is_wrong(kind: str, text: str) -> bool:
    return kind == "error" and "Failed to load resource" not in text  # those are answers like 422


def start(page: Page, url: str, program: str = "Handbook", *, says: str = "Who built the Pharos?") -> str:
    """Run a program from its form, and return the id of the run."""
    page.goto(f"{url}/#/programs/{program}")
    page.locator(".form textarea").first.fill(says)
    page.get_by_role("switch", name="Streaming").check()
    page.keyboard.press("Control+Enter")
    page.wait_for_url(f"**/#/programs/{program}/*")
    return page.url.rsplit("/", 1)[1]


def ended(page: Page, status: str = "ok") -> None:
    expect(page.locator(".run-head .status")).to_have_text(status)
    expect(page.locator(".badge")).to_have_text("Done")


def output(page: Page, field: str) -> Locator:
    return page.locator(f".output[data-field={field}] .field-body")


def copied(page: Page, item: str) -> str:
    page.locator(".menu summary").click()
    page.get_by_role("menuitem", name=item, exact=True).click()
    expect(page.locator("#live")).to_have_text(f"Copied: {item}")
    return page.evaluate("navigator.clipboard.readText()")


# --- running ------------------------------------------------------------------------------------------------


def test_the_first_page_tells_what_there_is_and_what_is_not(page: Page, url: str) -> None:
    page.goto(url)

    expect(page.locator(".card h2")).to_have_text([each.name for each in ui_programs.programs()])
    card = page.locator(".card", has_text="Handbook")
    expect(card).to_contain_text("question → ")
    expect(card).to_contain_text("scripted/model")
    expect(page.locator(".failures")).to_contain_text("No module named 'pypdf'")
    expect(page.locator(".failures")).to_contain_text("uv add pypdf")


def test_tokens_appear_before_the_run_ends(page: Page, url: str) -> None:
    run = start(page, url)

    output(page, "answer").get_by_text("The Pharos of").wait_for()
    seen = output(page, "answer").inner_text()
    during = httpx.get(f"{url}/runs/{run}").json()
    assert during["status"] == "running"
    assert 0 < len(seen) < len(ANSWER)
    assert ANSWER.startswith(seen)

    ended(page)
    assert output(page, "answer").inner_text() == ANSWER
    assert output(page, "reasoning").inner_text() == REASONING


def test_a_prompt_unfolds(page: Page, url: str) -> None:
    start(page, url)
    ended(page)
    page.locator(".row", has_text="scripted/model").first.click()

    message = page.locator(".message.role-user")
    assert not message.locator(".prose").is_visible()
    message.locator("summary").click()

    expect(message.locator(".prose")).to_contain_text("[[ ## question ## ]]\nWho built the Pharos?")
    expect(page.locator(".detail")).to_contain_text(ui_programs.THINKING)


def test_a_tool_shows_what_went_in_and_came_out(page: Page, url: str) -> None:
    start(page, url, "Travel", says="How do I get to Munich?")
    ended(page)
    page.locator(".row", has_text="weather").click()

    detail = page.locator(".detail")
    expect(detail).to_contain_text("Return the weather in a city.")
    expect(detail.locator("[data-key=arguments]")).to_contain_text("Munich")
    expect(detail.locator("[data-key=result]")).to_contain_text("21 °C and clear")


class Proxy:
    """A TCP proxy before the server that breaks off each stream of events after so many bytes.

    `cut` breaks off every connection there is.
    """

    def __init__(self, upstream: str, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._left: dict[socket.socket, int] = {}
        self._port = int(upstream.rpartition(":")[2])
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.streams = 0
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._go(self._accept)

    def _go(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            self._open |= {client, server}
            self._go(self._pipe, client, server)
            self._go(self._pipe, server, client)

    def _pipe(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while (left := self._left.get(source, 65536)) and (data := source.recv(left)):
                if source in self._left:
                    self._left[source] = max(0, self._left[source] - len(data))
                if data.startswith(b"GET /runs/") and b"/events" in data.split(b"\r\n")[0]:
                    self.streams += 1
                    self._left[target] = self._max_bytes
                target.sendall(data)
            sleep(0.1)  # a browser drops what it has not read when the connection breaks
        except OSError:
            pass
        _end(source, target)

    def cut(self) -> None:
        while self._open:
            _end(self._open.pop())

    def close(self) -> None:
        _end(self._listening)
        self._listening.close()
        self.cut()
        for thread in self._threads:
            thread.join()


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        finally:
            each.close()


@pytest.fixture
def proxy(url: str) -> Generator[Proxy]:
    proxy = Proxy(url, max_bytes=16_000)
    yield proxy
    proxy.close()


def test_broken_connections_repeat_and_lose_nothing(page: Page, url: str, proxy: Proxy) -> None:
    run = start(page, proxy.url)
    expect(output(page, "answer")).to_contain_text("The Pharos")
    proxy.cut()
    ended(page)

    told = httpx.get(f"{url}/runs/{run}").json()
    assert proxy.streams >= 3
    assert output(page, "answer").inner_text() == told["outputs"]["answer"] == ANSWER
    events = [json.loads(line) for line in copied(page, "all events, JSON lines").splitlines()]
    assert [event["sequence"] for event in events] == list(range(len(events)))
    assert events[-1]["event_type"] == "prediction"
    typed = [event["data"]["token"] for event in events if event["data"].get("field") == "answer"]
    assert "".join(typed) == ANSWER
    assert "made again" in (page.locator(".badge").get_attribute("title") or "")


def test_a_run_survives_a_reload(page: Page, url: str) -> None:
    start(page, url)
    expect(output(page, "answer")).to_contain_text("The Pharos")

    page.reload()

    ended(page)
    assert output(page, "answer").inner_text() == ANSWER
    expect(page.get_by_label("Question")).to_have_value("Who built the Pharos?")


def test_a_page_in_the_background_pauses_and_catches_up(page: Page, url: str) -> None:
    page.clock.install()
    start(page, url)
    page.clock.run_for(500)
    page.evaluate(_HIDE, True)
    page.clock.run_for(9000)
    expect(page.locator(".badge")).to_have_text(re.compile("Paused|Done"))

    page.evaluate(_HIDE, False)
    for _ in range(40):
        page.clock.run_for(500)
        if page.locator(".badge").inner_text() == "Done":
            break

    ended(page)
    assert output(page, "answer").inner_text() == ANSWER


_HIDE = """hidden => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_streaming_is_on_for_what_is_worth_watching_and_remembered(page: Page, url: str) -> None:
    switch = page.get_by_role("switch", name="Streaming")
    page.goto(f"{url}/#/programs/Classify")
    expect(switch).not_to_be_checked()
    page.goto(f"{url}/#/programs/Handbook")
    expect(switch).to_be_checked()

    switch.click()
    page.reload()

    expect(switch).not_to_be_checked()
    page.goto(f"{url}/#/programs/Travel")
    expect(switch).to_be_checked()


def test_without_streaming_the_outputs_come_at_once(page: Page, url: str) -> None:
    page.goto(f"{url}/#/programs/Classify")
    page.get_by_label("Message").fill("You charged me twice.")
    page.get_by_label("Language").select_option("de")
    page.get_by_role("button", name="Run").click()

    expect(output(page, "topic")).to_have_text("billing")
    expect(output(page, "urgent")).to_have_text("true")
    page.get_by_role("link", name="See its calls").click()
    ended(page)
    expect(page.locator(".row").first).to_contain_text("language=de")


def test_a_run_can_be_cancelled(page: Page, url: str) -> None:
    page.goto(f"{url}/#/programs/Chapters")
    page.get_by_label("Count").fill("300")
    start(page, url, "Chapters", says="the sea")
    page.locator(".form-foot").get_by_role("button", name="Cancel").click()

    expect(page.locator(".run-head .status")).to_have_text("cancelled")
    expect(page.get_by_role("button", name="Run", exact=False).first).to_be_visible()


def test_an_error_is_shown_with_its_hint(page: Page, url: str) -> None:
    start(page, url, "Broken", says="six")
    ended(page, "error")

    box = page.locator(".problems .error-box")
    hint = httpx.get(f"{url}/runs/{page.url.rsplit('/', 1)[1]}").json()["error"]["hint"]
    expect(box).to_contain_text("ValueError")
    assert hint
    expect(box).to_contain_text(hint)
    expect(page.locator(".row.selected")).to_contain_text("explode")


def test_without_streaming_an_error_is_shown_too(page: Page, url: str) -> None:
    page.goto(f"{url}/#/programs/Broken")
    page.get_by_label("Question").fill("six")
    page.get_by_role("switch", name="Streaming").uncheck()
    page.get_by_role("button", name="Run").click()

    expect(page.locator(".plain-result .error-box")).to_be_visible()
    page.get_by_role("link", name="See its calls").click()
    ended(page, "error")


# --- what comes from a program is text ----------------------------------------------------------------------


def test_nothing_of_a_program_is_taken_for_html(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator(".card", has_text="Broken")).to_contain_text(PROBE)
    run = start(page, url, "Broken", says=PROBE)
    ended(page, "error")
    for row in page.locator(".row").all():
        row.click()
    page.get_by_role("tab", name="Events").click()
    for row in page.locator(".raw-row").all():
        row.click()
    expect(page.locator(".run")).to_contain_text(PROBE)
    page.goto(f"{url}/docs#post/Broken")
    expect(page.locator(".operation[open]")).to_contain_text(PROBE)
    page.goto(f"{url}/#/runs/{run}/{PROBE}")
    page.goto(f"{url}/#/programs/{PROBE}")

    assert page.locator("img, iframe, object").count() == 0
    assert "hacked" not in page.title()


def test_the_login_page_shows_errors_as_text_and_returns_only_to_this_server(
    context: BrowserContext, tmp_path: Path
) -> None:
    auth = Auth(tmp_path / "auth.db")
    _, key = auth.create_key("browser")
    with ui_programs.serving(create_app(ui_programs.programs(), auth=auth)) as url:
        page = context.new_page()
        page.goto(f"{url}/ui/login.html?next=//evil.example/#/runs")
        page.get_by_label("API key").fill(PROBE)
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("#problem")).to_contain_text("not valid")

        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="Programs").first).to_be_visible()
        assert page.url.startswith(url)

        page.get_by_role("button", name="Log out").click()
        page.wait_for_url(re.compile("/ui/login.html"))
        page.goto(f"{url}/#/runs")
        page.wait_for_url(re.compile("/ui/login.html"))


# --- the form -----------------------------------------------------------------------------------------------

_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c4944415408d763f8cfc0000000030001a5f645400000000049454e44ae426082"
)


def test_a_form_sends_what_was_filled_in(page: Page, url: str, tmp_path: Path) -> None:
    (tmp_path / "dot.png").write_bytes(_PIXEL)
    page.goto(f"{url}/#/programs/Everything")
    page.get_by_label("Title").fill("A title\nin two lines")
    page.get_by_label("Name").fill("Ada")
    page.get_by_label("Age").fill("36")
    page.get_by_role("button", name="Give Address").click()
    page.get_by_label("Street").fill("Main St 1")
    page.get_by_label("Country").select_option("FR")
    page.locator("input[type=file]").set_input_files(tmp_path / "dot.png")
    expect(page.get_by_alt_text("Chosen picture")).to_be_visible()
    page.get_by_label("Kind").select_option("letter")
    page.get_by_label("Temperature").fill("1.5")
    page.get_by_label("Urgent").check()
    page.get_by_label("Due").fill("2026-11-21")
    keywords = page.locator("[data-pointer='/keywords']")
    keywords.get_by_role("button", name="Add").click()
    keywords.locator("textarea").nth(1).fill("beta")
    keywords.get_by_role("button", name="Remove item 1").click()
    page.locator("[data-pointer='/readers']").get_by_role("button", name="Add").click()
    page.locator("[data-pointer='/readers/0/name'] textarea").fill("Grace")
    page.locator("[data-pointer='/readers/0/age'] input").fill("85")
    page.get_by_role("button", name="Add a turn").or_(page.get_by_role("button", name="Give History")).click()
    page.locator(".turn-field textarea").first.fill("before")
    page.locator("[data-pointer='/numbers'] textarea").fill('{"a": 1}')
    page.get_by_role("button", name="Run").click()
    page.wait_for_url("**/#/programs/Everything/*")
    ended(page)

    got = httpx.get(f"{url}/runs/{page.url.rsplit('/', 1)[1]}").json()["outputs"]
    assert got["title"] == "A title\nin two lines"
    assert got["author"] == {"name": "Ada", "age": 36, "address": {"street": "Main St 1", "country": "FR"}}
    assert "data:image/png;base64," in got["picture"]
    expect(output(page, "picture").get_by_role("img")).to_be_visible()
    assert (got["kind"], got["temperature"], got["urgent"], got["due"]) == ("letter", 1.5, True, "2026-11-21")
    assert (got["keywords"], got["numbers"], got["count"]) == (["beta"], {"a": 1}, 3)
    assert got["readers"] == [{"name": "Grace", "age": 85, "address": None}]
    assert got["history"]["messages"] == [{"title": "before"}]


def test_form_and_json_are_one_value(page: Page, url: str) -> None:
    page.goto(f"{url}/#/programs/Classify")
    page.get_by_label("Message").fill("Hello")
    page.get_by_role("button", name="JSON").click()
    raw = page.get_by_label("Inputs as JSON")
    assert json.loads(raw.input_value()) == {"message": "Hello", "language": "en"}

    raw.fill('{"message": "Salut", "language": ')
    expect(page.locator(".raw-pane .field-error")).to_contain_text("Not JSON yet")
    raw.fill('{"message": "Salut", "language": "fr"}')
    page.get_by_role("button", name="Form", exact=True).click()

    expect(page.get_by_label("Message")).to_have_value("Salut")
    expect(page.get_by_label("Language").locator("option:checked")).to_have_text("fr")


def test_what_the_server_refuses_is_told_at_the_field(page: Page, url: str) -> None:
    page.goto(f"{url}/#/programs/Everything")
    page.get_by_label("Name").fill("Ada")
    page.get_by_label("Age").fill("200")
    page.get_by_role("button", name="Run").click()

    expect(page.locator("[data-pointer='/title'] > .field-error")).not_to_be_empty()
    age = page.locator("[data-pointer='/author/age']")
    expect(age.locator(".field-error")).to_contain_text("130")
    expect(age.locator("input")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Title")).to_be_focused()
    expect(page.locator("[data-pointer='/author/name'] > .field-error")).to_be_empty()


# --- looking at a run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(url: str) -> str:
    """Id of a run of Handbook that is over."""
    response = httpx.post(f"{url}/Handbook", json={"question": "Who built the Pharos?"}, timeout=30)
    return response.headers["run-id"]


def test_a_run_is_replayed_to_any_point(page: Page, url: str, finished: str) -> None:
    page.goto(f"{url}/#/runs/{finished}")
    ended(page)
    scrubber = page.get_by_label("Event of the run")
    total = int(scrubber.get_attribute("max") or 0)
    assert scrubber.input_value() == str(total)

    scrubber.fill("2")
    expect(page.locator(".row")).to_have_count(1)
    expect(page.locator(".badge")).to_have_text("Replay")
    expect(page.locator(".run-head .status")).to_have_text("running")
    scrubber.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".row")).to_have_count(2)
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".row")).to_have_count(1)

    page.get_by_label("Speed of the replay").select_option("Instant")
    page.get_by_role("button", name="Play", exact=True).click()
    ended(page)
    assert output(page, "answer").inner_text() == ANSWER


def test_a_replay_is_played_and_paused(page: Page, stored: tuple[str, str, str]) -> None:
    url, _, slow = stored
    page.goto(f"{url}/#/runs/{slow}")
    ended(page)
    scrubber = page.get_by_label("Event of the run")
    scrubber.fill("3")
    page.get_by_label("Speed of the replay").select_option("4")
    page.get_by_role("button", name="Play", exact=True).click()

    expect(output(page, "answer")).to_contain_text("event 9 ")
    expect(page.locator(".badge")).to_have_text("Replay")
    page.locator(".run-head").click()
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
    at = scrubber.input_value()
    page.keyboard.press("]")
    expect(scrubber).to_have_value(str(int(at) + 1))
    assert int(at) < 400


def test_a_link_leads_to_a_call(page: Page, url: str, finished: str) -> None:
    page.goto(f"{url}/#/runs/{finished}")
    ended(page)
    page.locator(".row", has_text="search_handbook").click()
    link = page.get_by_role("link", name="Link to this call").get_attribute("href")

    page.goto("about:blank")
    page.goto(f"{url}/{link}")

    expect(page.locator(".row.selected")).to_contain_text("search_handbook")
    expect(page.locator(".detail h2")).to_have_text("search_handbook")


def test_the_calls_are_walked_with_the_keyboard(page: Page, url: str, finished: str) -> None:
    page.goto(f"{url}/#/runs/{finished}")
    ended(page)
    tree = page.get_by_role("tree")
    tree.focus()
    rows = page.locator(".row").count()
    page.keyboard.press("Home")
    expect(page.locator(".row.selected")).to_contain_text("Handbook")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".row")).to_have_count(1)
    expect(page.get_by_role("treeitem").first).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".row")).to_have_count(rows)
    page.keyboard.press("ArrowDown")
    expect(page.locator(".row.selected")).to_contain_text("retrieval")
    active = tree.get_attribute("aria-activedescendant")
    expect(page.locator(f"#{active}")).to_have_attribute("aria-selected", "true")


def test_search_and_kinds_leave_what_is_wanted(page: Page, url: str, finished: str) -> None:
    page.goto(f"{url}/#/runs/{finished}")
    ended(page)
    page.keyboard.press("/")
    page.keyboard.type("built around 280")
    expect(page.locator(".found")).to_contain_text("found")
    expect(page.locator(".row", has_text="search_handbook")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".found")).to_have_text("")

    for kind in ("Modules", "Adapters", "Traces", "Events"):
        page.get_by_role("button", name=kind, exact=True).click()
    expect(page.locator(".row .name")).to_have_text(["search_handbook", "scripted/model", "scripted/model"])


def test_reading_stops_the_page_from_following(page: Page, url: str) -> None:
    page.set_viewport_size({"width": 1440, "height": 560})
    page.goto(f"{url}/#/programs/Chapters")
    page.get_by_label("Count").fill("30")
    start(page, url, "Chapters", says="the sea")
    expect(page.locator(".row").nth(12)).to_be_attached()
    expect(page.locator(".row").first).not_to_be_in_viewport()
    page.locator(".tree").hover()
    page.mouse.wheel(0, -10_000)

    pill = page.get_by_role("button", name="Jump to live")
    expect(pill).to_be_visible()
    expect(page.locator(".row").first).to_be_in_viewport()
    pill.click()
    expect(pill).to_be_hidden()
    ended(page)


def test_the_raw_events_are_all_there(page: Page, url: str, finished: str) -> None:
    page.goto(f"{url}/#/runs/{finished}")
    ended(page)
    page.get_by_role("tab", name="Events").click()
    page.get_by_role("listbox").focus()
    page.keyboard.press("End")
    last = page.locator(".raw-row.selected")
    expect(last).to_contain_text("prediction")
    expect(page.locator(".raw-one")).to_contain_text("The passage names the tower")
    page.keyboard.press("Home")
    expect(page.locator(".raw-row.selected")).to_contain_text("execution_start")


@pytest.mark.parametrize(
    ("item", "command"),
    [
        ("as curl", ("bash", "-c")),
        ("as Python, httpx", (sys.executable, "-c")),
        ("as Python, urllib", (sys.executable, "-c")),
    ],
)
def test_what_is_copied_runs(page: Page, url: str, item: str, command: tuple[str, str]) -> None:
    quoted = """it's "quoted" $HOME `id` \\ ünïcode"""
    response = httpx.post(f"{url}/Classify", json={"message": quoted}, timeout=30)
    page.goto(f"{url}/#/runs/{response.headers['run-id']}")
    ended(page)
    source = copied(page, item)

    ran = subprocess.run([*command, source], capture_output=True, text=True, timeout=30, check=True)

    assert '"billing"' in ran.stdout.replace("'", '"')
    latest = httpx.get(f"{url}/runs?limit=1&program=Classify").json()["runs"][0]["id"]
    assert latest != response.headers["run-id"]
    assert httpx.get(f"{url}/runs/{latest}").json()["inputs"]["message"] == quoted


def test_the_history_is_found_and_filtered(page: Page, url: str, finished: str) -> None:
    httpx.post(f"{url}/Broken", json={"question": "x"}, timeout=30)
    page.goto(f"{url}/#/runs")
    page.get_by_label("Status").select_option("error")
    expect(page.locator("tbody .status").first).to_have_text("error")
    expect(page.locator("tbody .status-ok")).to_have_count(0)
    page.get_by_label("Status").select_option("")
    page.get_by_label("Find a run").fill(finished)
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Handbook").last.click()
    ended(page)


def test_a_run_that_is_not_there_is_told(page: Page, url: str) -> None:
    page.goto(f"{url}/#/runs/{'0' * 28}")

    expect(page.locator(".error-box")).to_contain_text("404")


# --- 100,000 events -----------------------------------------------------------------------------------------

MANY = 100_000


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, str, str]]:
    """URL of a server with stored runs; the ids of one of 100,000 events and of one that took its time."""
    events = f"sqlite:///{tmp_path_factory.mktemp('stored')}/events.db"
    large = ui_programs.store(events, "01a1fdc15cc6651636928405aeec0", MANY)
    slow = ui_programs.store(events, "01a1fdc15cc6651636928405aeec1", 400, milliseconds=200)
    with ui_programs.serving(create_app(ui_programs.programs(), events=events)) as url:
        yield url, large, slow


_WATCH = """() => {
  window.tasks = [];
  new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((each) => each.duration)))
    .observe({ type: "longtask", buffered: true });
}"""


def test_100_000_events_do_not_make_the_page_stutter(page: Page, stored: tuple[str, str, str]) -> None:
    url, run, _ = stored
    page.goto(f"{url}/ui/login.html")
    page.add_init_script(f"({_WATCH})()")
    page.goto(f"{url}/#/runs/{run}")
    page.set_default_timeout(60_000)
    expect(page.locator(".place")).to_contain_text("100k / 100k", timeout=60_000)
    ended(page)
    loading = page.evaluate("window.tasks.splice(0)")
    page.get_by_role("tab", name="Events").click()
    page.get_by_role("listbox").focus()
    page.keyboard.press("End")
    expect(page.locator(".raw-row.selected .raw-sequence")).to_have_text(
        str(MANY), timeout=30_000
    )  # the prediction
    page.locator(".raw-list").hover()
    for _ in range(20):
        page.mouse.wheel(0, -40_000)
    page.get_by_role("searchbox").press_sequentially("event 99997")
    expect(page.locator(".found")).to_have_text("1 found", timeout=30_000)
    page.get_by_role("tab", name="Calls").click()
    page.get_by_role("tree").focus()
    for _ in range(10):
        page.keyboard.press("PageDown")

    reading = page.evaluate("window.tasks")
    assert max(reading, default=0) < 200 * _slowness(), sorted(reading)[-10:]
    assert max(loading, default=0) < 400 * _slowness(), sorted(loading)[-10:]
    assert page.locator("*").count() < 3000


def _slowness() -> float:
    """How much longer than usual a task may take: CI runs other tests beside this one."""
    return 2.0 if "CI" in os.environ else 1.0


# --- for everyone -------------------------------------------------------------------------------------------

CHECKS = (HERE / "ui" / "checks.js").read_text()
"""What is wrong with a page for someone who cannot see it well: `nameless`, `twice` and `faint`."""


@pytest.mark.parametrize("path", [*PAGES, "run"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_can_be_read(
    page: Page, url: str, path: str, scheme: Any, finished: str
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{url}/{f'#/runs/{finished}' if path == 'run' else path}")
    page.locator("h1").first.wait_for()
    if path == "run":
        ended(page)

    assert page.evaluate(CHECKS) == {"nameless": [], "twice": [], "faint": []}
    assert page.locator("html[lang]").count() == 1
    assert page.locator("main").count() == 1


@pytest.mark.parametrize("path", [*PAGES, "run"])
def test_a_narrow_screen_does_not_scroll_sideways(page: Page, url: str, path: str, finished: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{url}/{f'#/runs/{finished}' if path == 'run' else path}")
    page.locator("h1").first.wait_for()
    if path == "run":
        ended(page)
        page.locator(".row", has_text="scripted/model").first.click()
        expect(page.locator(".detail h2")).to_have_text("scripted/model")
        page.get_by_role("button", name="Back to the calls").click()
        expect(page.locator(".detail")).to_be_hidden()

    beyond = "[...document.querySelectorAll('html, main')].map((each) => each.scrollWidth - innerWidth)"
    assert max(page.evaluate(beyond)) <= 0


def test_a_narrow_screen_has_its_navigation_behind_a_button(page: Page, url: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(url)
    page.get_by_role("button", name="Navigation").click()
    page.locator(".rail").get_by_role("link", name="Travel").click()

    expect(page.get_by_role("heading", name="Travel")).to_be_visible()
    expect(page.locator(".rail")).to_be_hidden()


def test_the_theme_is_kept(page: Page, url: str) -> None:
    dark = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    page.goto(url)
    page.locator(".card").first.wait_for()
    before = page.evaluate(dark)
    page.keyboard.press("t")
    chosen = page.evaluate(dark)
    page.reload()
    page.locator(".card").first.wait_for()

    assert page.evaluate(dark) == chosen != before


def test_a_question_mark_shows_the_keys(page: Page, url: str) -> None:
    page.goto(url)
    page.locator(".card").first.wait_for()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Jump to live")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("r")
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()


def test_what_happens_is_announced(page: Page, url: str) -> None:
    start(page, url)
    ended(page)

    expect(page.locator("#live")).to_have_text(re.compile(r"Run ok, .+ s"))


def test_the_reference_has_every_route(page: Page, url: str) -> None:
    routes = {
        (verb.upper(), path)
        for path, verbs in httpx.get(f"{url}/openapi.json").json()["paths"].items()
        for verb in verbs
    }
    page.goto(f"{url}/docs")
    page.locator(".operation").first.wait_for()

    shown = page.evaluate(
        "[...document.querySelectorAll('.operation')].filter((each) => each.querySelector('.verb'))"
        ".map((each) => [each.querySelector('.verb').textContent, each.querySelector('.route').textContent])"
    )
    assert {(verb, path) for verb, path in shown} == routes
    page.goto(f"{url}/docs#post/Classify")
    expect(page.locator(".operation[open] pre")).to_contain_text("curl")
