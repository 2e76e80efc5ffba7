"""Fixtures of the tests of the client."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypedDict

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

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


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "raw server")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
