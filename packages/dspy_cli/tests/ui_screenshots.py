"""Take the pictures of the web UI in docs/images: `python packages/dspy_cli/tests/ui_screenshots.py`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "packages/streamll/tests"), str(Path(__file__).parent)]

import httpx  # noqa: E402
import ui_programs  # noqa: E402
from dspy_cli import create_app  # noqa: E402
from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402
from test_ui import CHROMIUM, FLAGS, ended, start  # noqa: E402

SHOWN = ("Handbook", "Travel", "Chapters", "Classify")
QUESTION = "Who built the Pharos of Alexandria, and how far could its light be seen?"
JOURNEY = "How do I get from Berlin to Munich tomorrow, and do I need an umbrella?"


def home(page: Page, url: str) -> None:
    page.goto(url)
    page.locator("tbody tr").first.wait_for()


def live(page: Page, url: str) -> None:
    start(page, url, says=QUESTION)
    page.locator(".output[data-field=answer]", has_text="kilometres").wait_for()


def run(page: Page, url: str) -> None:
    start(page, url, "Travel", says=JOURNEY)
    ended(page)
    page.get_by_role("link", name="Open the run on its own").click()
    ended(page)
    page.locator(".row", has_text="scripted/model").nth(1).click()
    page.locator(".message.role-user summary").click()


def tool(page: Page, url: str) -> None:
    page.goto(f"{url}/#/runs")
    page.locator("tbody tr", has_text="Travel").first.click()
    ended(page)
    page.locator(".row", has_text="weather").click()


def history(page: Page, url: str) -> None:
    page.goto(f"{url}/#/runs")
    page.locator("tbody tr").first.wait_for()


def docs(page: Page, url: str) -> None:
    page.goto(f"{url}/docs#post/Classify")
    page.locator(".operation[open]").wait_for()


WIDE = {"width": 1440, "height": 900}
NARROW = {"width": 360, "height": 740}
PICTURES: dict[str, tuple[Callable[[Page, str], None], Any, Any]] = {
    "live": (live, WIDE, "light"),
    "run-dark": (run, WIDE, "dark"),
    "home": (home, WIDE, "light"),
    "home-dark": (home, WIDE, "dark"),
    "run": (tool, WIDE, "light"),
    "history": (history, WIDE, "light"),
    "docs": (docs, WIDE, "light"),
    "home-narrow": (home, NARROW, "light"),
    "live-narrow": (live, NARROW, "dark"),
}


def take(browser: Browser, url: str, directory: Path) -> None:
    for name, (go, size, scheme) in PICTURES.items():
        page = browser.new_page(viewport=size, color_scheme=scheme)
        go(page, url)
        page.mouse.move(0, 0)
        page.screenshot(path=directory / f"ui-{name}.png", animations="disabled")
        page.close()


def main() -> None:
    directory = ROOT / "docs" / "images"
    directory.mkdir(parents=True, exist_ok=True)
    shown = [each for each in ui_programs.programs(seconds=0.03) if each.name in SHOWN]
    app = create_app(shown, failures=ui_programs.FAILURES)
    with ui_programs.serving(app) as url, sync_playwright() as playwright:
        for name, body in (
            ("Classify", {"message": "You charged me twice."}),
            ("Chapters", {"topic": "the sea"}),
        ):
            httpx.post(f"{url}/{name}", json=body, timeout=60)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        take(browser, url, directory)
        browser.close()


if __name__ == "__main__":
    main()
