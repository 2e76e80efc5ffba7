"""Fixtures of the tests of the client."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypedDict

import pytest

from airflow_provider_quoine.exchange.addresses import decode_address
from airflow_provider_quoine.exchange.amounts import Amount
from airflow_provider_quoine.exchange.models import Document, WithdrawalOrder
from airflow_provider_quoine.exchange.rest.auth import ApiAuth
from airflow_provider_quoine.exchange.rest.client import QuoineClient

SECRET = "XMDwUjclch9IVNfuVjep23tMZRhPk0GId0mwFO2N1RPF8WZQ=="

MakeClient = Callable[..., QuoineClient]


ADDRESS = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"


def order(amount: Any = "0.5", address: str = ADDRESS) -> WithdrawalOrder:
    """An order to pay to the reference's sample address."""
    return WithdrawalOrder(amount=Amount(amount), address=decode_address(address))


class Documents(TypedDict):
    """The three documents of an onboarding, by parameter name."""

    id_document: Document
    proof_address: Document
    bank_statement: Document


@pytest.fixture
def make_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[MakeClient]:
    """Make clients with short time-outs and no proxy of this machine; they are closed at the end."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    # Where nonces are kept.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with ExitStack() as stack:

        def make(base_url: str, **given: Any) -> QuoineClient:
            settings = {"auth": ApiAuth("25", SECRET), "connect_timeout": 5.0, "read_timeout": 5.0, **given}
            return stack.enter_context(QuoineClient(base_url=base_url, **settings))

        yield make


@pytest.fixture
def documents() -> Documents:
    """Three small documents."""
    return {
        "id_document": Document(name="旅券.PNG", content=b"\x89PNG\r\n\x1a\n" + b"\x00" * 50),
        "proof_address": Document(name="bill.pdf", content=b"%PDF-1.4 address"),
        "bank_statement": Document(name="bank.jpeg", content=b"\xff\xd8\xff\xe0 bank"),
    }
