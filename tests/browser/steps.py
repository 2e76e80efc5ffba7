"""What a person does on Airflow's page, step by step."""

from __future__ import annotations

import re
from urllib.parse import quote

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import FrameLocator, Locator, Page, expect

from tests.browser.conftest import shoot


def field(form: Locator, label: str) -> Locator:
    """Return the input beside a label in one of Airflow's forms, which mark a label that is required."""
    named = form.page.get_by_text(re.compile(rf"^{re.escape(label)}\s*\*?$"))
    group = form.get_by_role("group").filter(has=named)
    return group.locator("input, textarea").first


def add_connection(page: Page, airflow: str, standard: dict[str, str], extra: dict[str, dict[str, str]]) -> None:
    """
    Fill in the form of ``quoine_default``, and save it.

    :param standard: label → value.
    :param extra: name of a group of fields → label → value.
    """
    page.goto(f"{airflow}/connections")
    page.get_by_role("button", name="Add Connection").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Connection ID").fill("quoine_default")
    dialog.get_by_role("combobox").click()
    page.keyboard.type("Quoine")
    page.get_by_role("option", name="Quoine", exact=True).click()
    for label, value in standard.items():
        dialog.get_by_label(label, exact=True).fill(value)
    for group, fields in extra.items():
        dialog.get_by_role("button", name=group).click()
        for label, value in fields.items():
            field(dialog, label).fill(value)
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()


def switch_off(page: Page, airflow: str, group: str, label: str) -> None:
    """Edit the one connection: switch a field off, and save it."""
    page.goto(f"{airflow}/connections")
    page.get_by_role("button", name="Edit Connection").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=group).click()
    row = dialog.get_by_role("group").filter(has=page.get_by_text(label, exact=True))
    row.locator("label:has(input[type=checkbox])").click()
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()


def press_test(page: Page, airflow: str) -> str:
    """Press *Test* beside the one connection; return what the page says."""
    page.goto(f"{airflow}/connections")
    page.get_by_role("button", name="Test Connection").click()
    said = page.get_by_role("region", name="Notifications").get_by_role("status").first
    said.wait_for()
    return said.inner_text()


def start_run(page: Page, airflow: str, dag_id: str, values: dict[str, str]) -> None:
    """Fill in a DAG's form, and start a run."""
    page.goto(f"{airflow}/dags/{dag_id}")
    page.get_by_role("button", name="Trigger Dag").click()
    dialog = page.get_by_role("dialog")
    for label, value in values.items():
        field(dialog, label).fill(value)
    dialog.get_by_role("button", name="Trigger", exact=True).click()
    expect(dialog).to_be_hidden()


def our_page(page: Page, airflow: str, name: str) -> FrameLocator:
    """Open one of the provider's pages by Airflow's navigation; return its frame."""
    page.goto(f"{airflow}/")
    page.get_by_role("link", name="Quoine", exact=True).click()
    frame = page.frame_locator('iframe[title="Quoine"]')
    frame.get_by_role("navigation").get_by_role("link", name=name).click()
    expect(frame.get_by_role("heading", level=1)).to_have_text(name)
    return frame


def answer(
    page: Page, airflow: str, task: tuple[str, str, str], option: str, *, code: str = "", before: str = ""
) -> None:
    """
    Answer the question that a task asks.

    :param task: DAG, run and task.
    :param code: is typed, if there is one.
    :param before: name of a picture that is taken before the answer.
    """
    dag_id, run_id, task_id = task
    page.goto(f"{airflow}/dags/{dag_id}/runs/{quote(run_id)}/tasks/{task_id}/required_actions")
    if code:
        field(page.locator("body"), "Authentication code").fill(code)
    if before:
        shoot(page, before)
    page.get_by_role("button", name=option, exact=True).click()
    expect(page.get_by_text("response successful")).to_be_visible()


def violations(page: Page) -> list[str]:
    """Return what axe-core finds on a page that is serious or worse."""
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['help']}" for each in found if each["impact"] in ("serious", "critical")]
