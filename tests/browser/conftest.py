"""A whole Airflow behind a path, with people of four roles, and a real browser for each of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tools.documents import write_documents
from tools.sandbox import SandboxProcess
from tools.scenario import SETTINGS
from tools.standalone import READ_DAGS_ONCE, Standalone

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "browser"
PEOPLE = {"admin": "ADMIN", "op": "OP", "second": "OP", "user": "USER", "viewer": "VIEWER"}
"""Names of people and their roles; each has the name as password too."""
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 800}
PATIENCE = 60_000
"""Milliseconds that a step waits at most for what it expects on the page."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark each test of this folder; they share an Airflow."""
    item.add_marker("browser")


@dataclass(kw_only=True)
class Desk:
    """
    An Airflow, the exchange, and people who look at it.

    :param airflow: behind the path ``/airflow``.
    :param sandbox: the exchange.
    :param documents: form field → path of a document.
    :param browser: Chromium.
    """

    airflow: Standalone
    sandbox: SandboxProcess
    documents: dict[str, str]
    browser: Browser
    #: What the browser's console said, but for Airflow's own words.
    complaints: list[str] = field(default_factory=list)

    @contextmanager
    def person(self, name: str, **options: Any) -> Iterator[Page]:
        """
        Open a browser window, and log in.

        :param options: of the window, as ``color_scheme="dark"`` or ``viewport=NARROW``.
        """
        with self.browser.new_context(**{"viewport": WIDE, "locale": "en-GB", **options}) as context:
            context.set_default_timeout(PATIENCE)
            page = context.new_page()
            page.on("console", lambda message: self._hear(message.type, message.text))
            page.goto(f"{self.airflow.url}/")
            page.get_by_label("Username").fill(name)
            page.get_by_label("Password").fill(name)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url(f"{self.airflow.url}/")
            try:
                yield page
            except BaseException:
                shoot(page, f"failed-{name}")
                raise

    def _hear(self, kind: str, words: str) -> None:
        if "Content Security Policy" in words or (kind == "error" and "/quoine/" in words):
            self.complaints.append(words)


def shoot(page: Page, name: str) -> None:
    """Keep a picture of what a person sees."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Start it all once."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.fail("chromium is missing: on Debian, apt-get install chromium")
    folder = tmp_path_factory.mktemp("desk")
    with ExitStack() as stack:
        sandbox = stack.enter_context(SandboxProcess(folder=folder, options=["--code-digits", "12"]))
        airflow = Standalone(
            home=folder / "airflow",
            dags=ROOT / "dags",
            path="/airflow",
            people=PEOPLE,
            settings=SETTINGS | READ_DAGS_ONCE,
        )
        stack.enter_context(airflow)
        playwright = stack.enter_context(sync_playwright())
        # Chromium's own sandbox does not run for the user root of a container.
        browser = stack.enter_context(playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"]))
        documents = write_documents(tmp_path_factory.mktemp("documents"))
        yield Desk(airflow=airflow, sandbox=sandbox, documents=documents, browser=browser)
