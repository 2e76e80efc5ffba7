"""The exchange's users: onboarding, its checks, and the way to APPROVED or DECLINED."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_quoine.sandbox.lives import Life
from airflow_provider_quoine.sandbox.refusals import Refusal, not_found, unauthorized
from airflow_provider_quoine.sandbox.settings import new_api_secret

#: The ways of a user, by their end (facts, Onboarding).
USER_LIVES = {end: ("PENDING", "DOCUMENTS_SUBMITTED", end) for end in ("APPROVED", "DECLINED")}

# Parameters of api-reference 1.1.
DOCUMENTS = ("id_document", "proof_address", "bank_statement")
REQUIRED = ("first_name", "last_name", "phone", "email", "country", "password")
OPTIONAL = ("first_furi_name", "last_furi_name", "address", "city", "postcode")

# Types on record, judged by extension (facts, Onboarding).
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


def _refused(message: str) -> Refusal:
    return Refusal(422, {"success": False, "message": message})


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


@dataclass(frozen=True)
class Document:
    """
    An uploaded document; of its content only size and digest are kept.

    :param filename: the name that came with it
    :param size: bytes
    :param sha256: hex digest of the content
    """

    filename: str
    size: int
    sha256: str

    @classmethod
    def of(cls, filename: str, content: bytes) -> Document:
        """Take a document's measure."""
        return cls(filename=filename, size=len(content), sha256=hashlib.sha256(content).hexdigest())


@dataclass
class User:
    """
    A user of the exchange.

    :param user_id: the number of api-reference 1.1
    :param fields: parameters of the request by name, without the password
    :param documents: the three documents by parameter name
    :param password: kept to check the status request with, shown nowhere
    :param life: PENDING and on
    :param created_at: Unix seconds
    :param api_secret: handed out with APPROVED, shown nowhere else
    """

    user_id: int
    fields: Mapping[str, str]
    documents: Mapping[str, Document]
    password: str = field(repr=False)
    life: Life
    created_at: float
    api_secret: str = field(default_factory=new_api_secret, repr=False)

    @property
    def approved(self) -> bool:
        """Whether the user's own key is in force."""
        return self.life.state == "APPROVED"

    def status(self) -> dict[str, Any]:
        """Answer the status request (api-reference 1.2): with APPROVED the user's key comes along."""
        key = {"api_id": str(self.user_id), "api_secret": self.api_secret} if self.approved else {}
        return {"status": self.life.state, **key}


class Users:
    """All users, by number. Numbers begin at 1001, so that they are never taken for a withdrawal's."""

    def __init__(self) -> None:
        self._by_id: dict[int, User] = {}
        self._numbers = itertools.count(1001)

    def __iter__(self) -> Iterator[User]:
        return iter(self._by_id.values())

    def check(self, *, fields: Mapping[str, str], documents: Mapping[str, Document]) -> None:
        """
        Check what a request for onboarding says (api-reference 1.1).

        :param fields: text parameters by name
        :param documents: uploaded files by name
        :raises Refusal: 422 ``{"success": false, "message": ...}`` for the first thing that is wrong
        """
        for name in (*fields, *documents):
            # Refusing what the reference does not name catches a misspelt optional parameter (decided).
            if name not in (*REQUIRED, *OPTIONAL, *DOCUMENTS):
                raise _refused(f"Unknown parameter: {name}")
        for name in REQUIRED:
            if not fields.get(name, "").strip():
                raise _refused(f"{_label(name)} cannot be blank")
        for name in DOCUMENTS:
            if name not in documents or not documents[name].size:
                raise _refused(f"{_label(name)} cannot be blank")
            if not _DOCUMENT_NAME.fullmatch(documents[name].filename):
                raise _refused(f"{_label(name)} must be one of pdf, xps, jpg, jpeg, png, gif")
        for name, shape, message in _RULES:
            if not shape.fullmatch(fields[name]):
                raise _refused(message)
        if any(user.fields["email"].lower() == fields["email"].lower() for user in self):
            raise _refused("Email has already been taken")

    def create(
        self, *, fields: Mapping[str, str], documents: Mapping[str, Document], path: tuple[str, ...], now: float
    ) -> User:
        """
        Add a user whose request was checked.

        :param fields: text parameters by name
        :param documents: uploaded files by name
        :param path: the states that the user will pass through
        :param now: Unix seconds
        """
        user = User(
            user_id=next(self._numbers),
            fields={name: value for name, value in fields.items() if name != "password"},
            documents=documents,
            password=fields["password"],
            life=Life.begin(path, now),
            created_at=now,
        )
        self._by_id[user.user_id] = user
        return user

    def get(self, user_id: str | int) -> User:
        """
        Find a user.

        :param user_id: number, as int or str
        :raises Refusal: 404
        """
        text = str(user_id)
        user = self._by_id.get(int(text)) if text.isascii() and text.isdigit() else None
        if user is None:
            raise not_found()
        return user

    def login(self, user_id: str | int, password: str) -> User:
        """
        Find a user by number and password (api-reference 1.2).

        :raises Refusal: 401 ``{"message": "Unauthorized access"}``, the same for an unknown user
        """
        try:
            user = self.get(user_id)
        except Refusal:
            raise unauthorized() from None
        if not hmac.compare_digest(user.password.encode(), password.encode()):
            raise unauthorized()
        return user
