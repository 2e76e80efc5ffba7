"""The exchange's users: validation of an onboarding request, and the lifecycle to APPROVED or DECLINED."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_quoine.sandbox.refusals import Refusal, invalid, unauthorized
from airflow_provider_quoine.sandbox.rest.lifecycle import Lifecycle
from airflow_provider_quoine.sandbox.rest.registry import Registry
from airflow_provider_quoine.sandbox.settings import new_api_secret

#: A user's states, by the final one (facts, Onboarding).
USER_PATHS = {end: ("PENDING", "DOCUMENTS_SUBMITTED", end) for end in ("APPROVED", "DECLINED")}

# Parameters of api-reference 1.1.
DOCUMENTS = ("id_document", "proof_address", "bank_statement")
REQUIRED = ("first_name", "last_name", "phone", "email", "country", "password")
OPTIONAL = ("first_furi_name", "last_furi_name", "address", "city", "postcode")

# Accepted document types, recognised by extension (facts, Onboarding).
_DOCUMENT_NAME = re.compile(r".+\.(pdf|xps|jpe?g|png|gif)", re.IGNORECASE | re.DOTALL)

_RULES = (
    ("email", re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+"), "Email is invalid"),
    ("phone", re.compile(r"\+?[0-9]{6,15}"), "Phone is invalid"),
    ("country", re.compile(r"[A-Z]{2}"), "Country is not a two-letter code"),
    (
        "password",
        re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9]).{8,}", re.DOTALL),
        "Password must have at least 8 characters with a lower-case letter, an upper-case letter and a digit",
    ),
)


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


@dataclass(frozen=True)
class Document:
    """An uploaded document. Only size (bytes) and SHA-256 of its content are kept."""

    filename: str
    size: int
    sha256: str

    @classmethod
    def of(cls, filename: str, content: bytes) -> Document:
        """Compute size and digest."""
        return cls(filename=filename, size=len(content), sha256=hashlib.sha256(content).hexdigest())


@dataclass
class User:
    """
    A user of the exchange.

    :param user_id: the number of api-reference 1.1
    :param fields: parameters of the request by name, without the password
    :param password: for the status request; never shown
    :param created_at: Unix seconds
    :param api_secret: returned with APPROVED, shown nowhere else
    """

    user_id: int
    fields: Mapping[str, str]
    documents: Mapping[str, Document]
    password: str = field(repr=False)
    lifecycle: Lifecycle
    created_at: float
    api_secret: str = field(default_factory=new_api_secret, repr=False)

    @property
    def approved(self) -> bool:
        """Whether the user's own key is valid."""
        return self.lifecycle.state == "APPROVED"

    def status(self) -> dict[str, Any]:
        """Write the response to a status request (api-reference 1.2); it contains the user's key once APPROVED."""
        key = {"api_id": str(self.user_id), "api_secret": self.api_secret} if self.approved else {}
        return {"status": self.lifecycle.state, **key}


class Users(Registry[User]):
    """All users by number."""

    def __init__(self) -> None:
        super().__init__(first=1001)

    def check(self, *, fields: Mapping[str, str], documents: Mapping[str, Document]) -> None:
        """
        Validate a request for onboarding (api-reference 1.1).

        :raises Refusal: 422 ``{"success": false, "message": ...}`` for the first error
        """
        for name in (*fields, *documents):
            # Unknown parameters are refused, so that a misspelt optional one is noticed (decisions, Sandbox).
            if name not in (*REQUIRED, *OPTIONAL, *DOCUMENTS):
                raise invalid(f"Unknown parameter: {name}")
        for name in REQUIRED:
            if not fields.get(name, "").strip():
                raise invalid(f"{_label(name)} cannot be blank")
        for name in DOCUMENTS:
            if name not in documents or not documents[name].size:
                raise invalid(f"{_label(name)} cannot be blank")
            if not _DOCUMENT_NAME.fullmatch(documents[name].filename):
                raise invalid(f"{_label(name)} must be one of pdf, xps, jpg, jpeg, png, gif")
        for name, shape, message in _RULES:
            if not shape.fullmatch(fields[name]):
                raise invalid(message)
        if any(user.fields["email"].lower() == fields["email"].lower() for user in self):
            raise invalid("Email has already been taken")

    def create(
        self, *, fields: Mapping[str, str], documents: Mapping[str, Document], path: tuple[str, ...], now: float
    ) -> User:
        """Add a user whose request is valid."""
        user = User(
            user_id=next(self._numbers),
            fields={name: value for name, value in fields.items() if name != "password"},
            documents=documents,
            password=fields["password"],
            lifecycle=Lifecycle(path=path, since=now),
            created_at=now,
        )
        self._by_number[user.user_id] = user
        return user

    def login(self, user_id: str | int, password: str) -> User:
        """
        Find a user by number and password (api-reference 1.2).

        :raises Refusal: 401 ``{"message": "Unauthorized access"}``, for an unknown user as well
        """
        try:
            user = self.get(user_id)
        except Refusal:
            raise unauthorized() from None
        if not hmac.compare_digest(user.password.encode(), password.encode()):
            raise unauthorized()
        return user
