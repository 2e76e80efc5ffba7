"""An application: what it is, and how it is written as encrypted bytes."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from airflow.sdk.crypto import FernetProtocol, get_fernet
from airflow.sdk.exceptions import AirflowException

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.models import Document, OnboardingUser

VERSION = 1
"""Of the bytes."""
REFERENCE = r"[0-9]{8}T[0-9]{6}-[0-9a-f]{20}"
"""A time in UTC and a random number: nothing of the person."""

_TIME = "%Y%m%dT%H%M%S"


@dataclass(frozen=True, kw_only=True)
class Application:
    """
    A checked onboarding form with its documents.

    :param user: the form.
    :param documents: field → document.
    """

    user: OnboardingUser = field(repr=False)
    documents: Mapping[str, Document] = field(repr=False)


def new_reference(now: datetime) -> str:
    """Make the reference of an application, with the time at which its form was opened."""
    return f"{now.astimezone(UTC):{_TIME}}-{secrets.token_hex(10)}"


def is_reference(text: str) -> bool:
    """Tell whether a text can be a reference. One that can is safe as the name of a file, and in an address."""
    return bool(re.fullmatch(REFERENCE, text))


def first_reference(at: datetime) -> str:
    """Return what comes before all references of a time or later ones, and after those of earlier times."""
    return f"{at.astimezone(UTC):{_TIME}}"


def time_of(reference: str) -> datetime:
    """Return when the form was opened."""
    return datetime.strptime(reference.partition("-")[0], _TIME).replace(tzinfo=UTC)


def the_fernet() -> FernetProtocol:
    """
    Return what encrypts with Airflow's Fernet key, and reads what an earlier one has encrypted that is still listed.

    :raises QuoineInputError: if Airflow has no key.
    """
    try:
        fernet = get_fernet()
    except AirflowException:
        raise QuoineInputError(
            "Airflow's Fernet key ([core] fernet_key) cannot be used, so no application can be encrypted or read. "
            "Nothing was stored, and nothing was sent. Correct the key."
        ) from None
    if not fernet.is_encrypted:
        raise QuoineInputError(
            "Airflow has no Fernet key ([core] fernet_key), so an application would be stored readable. Nothing was "
            "stored, and nothing was sent. Set a key, for all of Airflow's processes."
        )
    return fernet


def seal(reference: str, application: Application) -> Iterator[bytes]:
    """Write an application as encrypted lines: the form, then each document."""
    fernet = the_fernet()
    form = {
        "version": VERSION,
        "reference": reference,
        "user": asdict(application.user),
        "documents": {
            field: {"name": document.name, "sha256": hashlib.sha256(document.content).hexdigest()}
            for field, document in application.documents.items()
        },
    }
    yield fernet.encrypt(json.dumps(form).encode())
    for document in application.documents.values():
        yield b"\n" + fernet.encrypt(document.content)


def unseal(reference: str, sealed: bytes) -> Application:
    """
    Read what :func:`seal` has written.

    :raises QuoineInputError: if it is not whole, another one's, or not readable with the keys that Airflow has.
    """
    from cryptography.fernet import InvalidToken

    fernet = the_fernet()
    try:
        head, *rest = (fernet.decrypt(line) for line in sealed.split(b"\n"))
        form = json.loads(head)
        named = form["documents"]
        if (form["version"], form["reference"]) != (VERSION, reference):
            raise ValueError
        documents = {
            field: Document(name=about["name"], content=content)
            for (field, about), content in zip(named.items(), rest, strict=True)
            if hashlib.sha256(content).hexdigest() == about["sha256"]
        }
        if documents.keys() != named.keys():
            raise ValueError
        return Application(user=OnboardingUser(**form["user"]), documents=documents)
    except (InvalidToken, ValueError, LookupError, TypeError, AttributeError):
        # What does not fit may be personal, so it is not quoted.
        raise QuoineInputError(
            f"The application {reference} cannot be read: Airflow's Fernet key has changed, or the file has. Nothing "
            "was sent. Put the earlier key behind the new one in [core] fernet_key, or have the form filled in again."
        ) from None
