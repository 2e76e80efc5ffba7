"""The pages of payments with ten thousand of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.models.variable import Variable

from airflow_provider_quoine.payments import configuration
from airflow_provider_quoine.payments.database import open_file
from airflow_provider_quoine.plugins.payments import payment_path
from airflow_provider_quoine.sandbox.control import SandboxControl
from tests.plugins.browser import Person
from tests.plugins.many_payments import fill, order_of

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("airflow_database")]

COUNT = 10_000
SECOND = 1.0
"""Of the processor: a machine that is busy with something else takes longer."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a ledger of many payments."""
    home = tmp_path_factory.mktemp("home")
    fill(open_file(home / "quoine" / "ledger.db"), COUNT)
    return home


@pytest.fixture
def many(exchange: SandboxControl, filled: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Many payments, in the place of the tests' own."""
    monkeypatch.setattr(configuration, "airflow_home", lambda: filled)
    before = Variable.get(configuration.PIN, default_var=None)
    if before is not None:
        Variable.delete(configuration.PIN)
    yield
    if before is not None:
        Variable.set(configuration.PIN, before)


def test_each_page_takes_less_than_a_second(many: None) -> None:
    person = Person("op")
    pages = [
        "/payments",
        "/payments?page=100",
        "/payments?page=200",
        "/payments?step=sent&page=150",
        "/payments?step=unknown",
        "/payments?reference=09999",
        "/payments?reference=nothing%25",
        "/payments?first=2026-01-01&last=9000-01-01&kind=withdrawal",
        payment_path(order_of(0)),
        payment_path(order_of(COUNT - 1)),
    ]
    person.get("/payments")
    took: dict[str, float] = {}
    for path in pages:
        began = time.process_time()
        page = person.get(path)
        took[path] = time.process_time() - began
        assert page.status_code == 200
        assert ("The chain is whole" in page.text) is ("/payment?" in path)
    assert {path: seconds for path, seconds in took.items() if seconds > SECOND} == {}, took


def test_every_payment_is_on_one_page_of_the_list(many: None) -> None:
    """The pages end, and the list says how many there are."""
    first, last, beyond = (Person("viewer").get(f"/payments?page={number}").text for number in (1, 200, 201))
    assert "10000 payments, page 1 of 200" in first
    assert f"invoice {COUNT - 1:05}/2026" in first
    assert "invoice 00000/2026" in last
    assert 'href="/quoine/payments?step=' in last
    assert ">Older</a>" not in last
    assert "invoice" not in beyond.partition("All payments")[2]
