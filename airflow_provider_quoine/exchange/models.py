"""What goes into requests and comes out of answers. Each object is checked when it is made; amounts are Decimal."""

from __future__ import annotations

import json
import re
import secrets
import string
import unicodedata
from dataclasses import dataclass, field, fields
from decimal import Decimal
from enum import StrEnum
from typing import Self

from airflow_provider_quoine.exchange.addresses import BitcoinAddress, decode_address
from airflow_provider_quoine.exchange.amounts import Amount
from airflow_provider_quoine.exchange.countries import COUNTRIES
from airflow_provider_quoine.exchange.errors import QuoineFormError, QuoineInputError
from airflow_provider_quoine.exchange.exact_json import plain_number

DOCUMENT_EXTENSIONS = frozenset({"pdf", "xps", "jpg", "jpeg", "png", "gif"})
"""Types that the exchange accepts, judged by extension (facts, Onboarding)."""

REQUIRED_FIELDS = ("first_name", "last_name", "phone", "email", "country")
"""Required fields (api-reference 1.1). The password is required too; it is passed separately."""

DOCUMENT_FIELDS = ("id_document", "proof_address", "bank_statement")
"""The three documents (api-reference 1.1)."""

LONGEST_VALUE = 200
"""Characters of one field of the onboarding form (decisions, Onboarding)."""

PASSWORD_LENGTH = 8
MADE_PASSWORD_LENGTH = 24

_EMAIL = re.compile(r"[^\s@,;<>]{1,64}@(?:[^\s@.,;<>]+\.)+[^\s@.,;<>]{2,}")
_PHONE = re.compile(r"\+?[0-9]{6,15}")
_PHONE_NOISE = re.compile(r"[\s()\-]")
# Lone surrogates too: they come out of undecodable file names and cannot be sent.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_STATE = re.compile(r"[a-z][a-z0-9_ -]{0,39}")
_ISSUED_ID = re.compile(r"[1-9][0-9]{0,31}")


class OnboardingStatus(StrEnum):
    """
    Statuses of an onboarding user (api-reference 1.2), in upper or lower case (facts, Onboarding).

    The reference does not have BANNED; later records do.
    """

    PENDING = "PENDING"
    DOCUMENTS_SUBMITTED = "DOCUMENTS_SUBMITTED"
    APPROVED = "APPROVED"
    DECLINED = "DECLINED"
    BANNED = "BANNED"

    @classmethod
    def _missing_(cls, value: object) -> OnboardingStatus | None:
        return cls.__members__.get(value.strip().upper()) if isinstance(value, str) else None


ONBOARDING_SUCCESS_STATUSES: frozenset[str] = frozenset({OnboardingStatus.APPROVED})
ONBOARDING_FAILURE_STATUSES: frozenset[str] = frozenset({OnboardingStatus.DECLINED, OnboardingStatus.BANNED})
"""BANNED is final because such a user will not be approved any more (decisions, Final states)."""


class WithdrawalState(StrEnum):
    """States of a withdrawal on record (facts, Withdrawals); the reference shows only ``pending``."""

    PENDING = "pending"
    AWAITING_CONFIRMATION = "awaiting_confirmation"
    FILED = "filed"
    TO_BE_REVIEWED = "to_be_reviewed"
    APPROVED = "approved"
    PROCESSING = "processing"
    BROADCASTED = "broadcasted"
    PROCESSED = "processed"
    CANCELLED = "cancelled"
    DECLINED = "declined"
    REVERTED = "reverted"


WITHDRAWAL_SUCCESS_STATES: frozenset[str] = frozenset({WithdrawalState.PROCESSED})
WITHDRAWAL_FAILURE_STATES: frozenset[str] = frozenset(
    {WithdrawalState.CANCELLED, WithdrawalState.DECLINED, WithdrawalState.REVERTED}
)
"""In every other state, ``broadcasted`` and unknown ones included, a task goes on waiting (decisions, Final states)."""


@dataclass(frozen=True, kw_only=True)
class UserCredentials:
    """
    An onboarded user's own key, handed out with APPROVED (api-reference 1.2).

    :param api_id: the user's id, as text (facts, Onboarding).
    :param api_secret: used as it is, without base64 decoding (facts, Signing).
    """

    api_id: str
    api_secret: str = field(repr=False)

    def to_json(self) -> str:
        """Return the text that :meth:`from_json` reads, with the secret in clear."""
        return json.dumps({"api_id": self.api_id, "api_secret": self.api_secret})

    @classmethod
    def from_json(cls, text: str) -> UserCredentials:
        """
        Read the text of :meth:`to_json`.

        :param text: ``{"api_id": "...", "api_secret": "..."}``.
        :raises QuoineInputError: if it has another form. The message does not quote it.
        """
        try:
            value = json.loads(text)
        except (TypeError, ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            api_id, api_secret = value.get("api_id"), value.get("api_secret")
            if isinstance(api_id, str) and api_id and isinstance(api_secret, str) and api_secret:
                return cls(api_id=api_id, api_secret=api_secret)
        raise QuoineInputError(
            'Stored user credentials must be a JSON object {"api_id": "...", "api_secret": "..."} with two '
            "non-empty strings. The content is not shown because it may be a secret."
        )


@dataclass(frozen=True, kw_only=True)
class OnboardingAnswer:
    """
    The exchange's answer about an onboarding user (api-reference 1.2).

    :param status: an :class:`OnboardingStatus`, or one that is not on record, in upper case.
    :param credentials: the user's own key, which comes with APPROVED; None if the answer had none.
    """

    status: str
    credentials: UserCredentials | None


@dataclass(frozen=True, kw_only=True)
class AuthCodeRequest:
    """
    The exchange's answer to a request for an authentication code (facts, Withdrawals).

    :param sent: False if the exchange ignored the request: the user has an authenticator app and reads the code there.
    :param message: the exchange's words, may be empty.
    """

    sent: bool
    message: str


@dataclass(frozen=True, kw_only=True)
class WithdrawalOrder:
    """
    A bitcoin withdrawal to be sent (api-reference 2.1).

    :param amount: bitcoin.
    :param address: bitcoin address, sent as it was given.
    :raises QuoineInputError: if a value has another type, so that it was not checked.
    """

    amount: Amount
    address: BitcoinAddress

    def __post_init__(self) -> None:
        if not isinstance(self.amount, Amount) or not isinstance(self.address, BitcoinAddress):
            raise QuoineInputError(
                "A withdrawal is made of a checked amount and a checked address. Nothing was sent. Make the order by "
                "WithdrawalOrder.parse(amount=..., address=...)."
            )

    @classmethod
    def parse(cls, *, amount: str | Decimal, address: str) -> Self:
        """
        Make an order from the values that a person or a DAG gives.

        :param amount: see :class:`~airflow_provider_quoine.exchange.amounts.Amount`.
        :param address: a bitcoin address of any network; blanks around it are dropped.
        :raises QuoineInputError: naming each that is wrong, one a line.
        """
        try:
            checked = Amount(amount)
        except QuoineInputError as error:
            try:
                _decode_given(address)
            except QuoineInputError as also:
                raise QuoineInputError(f"{error}\n{also}") from None
            raise
        return cls(amount=checked, address=_decode_given(address))

    def as_dict(self) -> dict[str, str]:
        """Return both as text."""
        return {"amount": str(self.amount), "address": str(self.address)}

    def is_paid_by(self, withdrawal: Withdrawal) -> bool:
        """
        Tell whether a withdrawal has this amount and address. The exchange may write the address in another case.
        """
        if withdrawal.amount != self.amount:
            return False
        try:
            return withdrawal.address == str(self.address) or decode_address(withdrawal.address) == self.address
        except QuoineInputError:
            return False

    def __str__(self) -> str:
        return f"{self.amount} BTC to {self.address}"


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """
    A bitcoin withdrawal as the exchange reports it (api-reference 2.1, 2.2).

    :param id: the exchange's number, kept as text.
    :param amount: bitcoin.
    :param address: the bitcoin address it goes to.
    :param state: a :class:`WithdrawalState`, or one that is not on record, as :func:`clean_state` gives it.
    """

    id: str
    amount: Decimal
    address: str
    state: str

    def as_dict(self) -> dict[str, str]:
        """Return the four as text; the amount without an exponent."""
        return {
            "id": self.id,
            "amount": plain_number(self.amount),
            "address": self.address,
            "state": str(self.state),
        }


def _decode_given(address: str) -> BitcoinAddress:
    if not isinstance(address, str) or not address.strip():
        raise QuoineInputError("There is no address to withdraw to. Fill in the field 'address'.")
    return decode_address(address.strip())


UNREADABLE_STATE = "unreadable"
"""Stands for a state that is no word or two, and keeps a task waiting as every unknown one does."""


def clean_state(state: str) -> str:
    """
    Return a state as it may go into logs, XComs and the ledger.

    :return: in lower case; :data:`UNREADABLE_STATE` if it is more than 40 letters, digits, blanks, ``-`` and ``_``.
    """
    state = state.strip().lower()
    return state if _STATE.fullmatch(state) else UNREADABLE_STATE


def is_id(text: str) -> bool:
    """Tell whether a text can be an id of the exchange: digits, letters, ``-`` and ``_``, at most 64."""
    return bool(_ID.fullmatch(text))


def is_issued_id(text: str) -> bool:
    """Tell whether a text can be an id that the exchange has given: a positive number (api-reference 1.1, 2.1)."""
    return bool(_ISSUED_ID.fullmatch(text))


def check_id(name: str, value: str) -> str:
    """
    Check an id before it becomes part of a path: other text could lead the request elsewhere.

    :param name: of the id, for the message.
    :param value: see :func:`is_id`.
    :raises QuoineInputError: if it is none.
    """
    if not isinstance(value, str) or not is_id(value):
        raise QuoineInputError(
            f"{value!r:.80} is no {name}: give the exchange's id as text (digits, letters, '-' and '_')."
        )
    return value


@dataclass(frozen=True, kw_only=True)
class OnboardingUser:
    """
    The form of a new user (api-reference 1.1).

    Blanks around values are dropped, and the country becomes upper-case. The phone number loses blanks, hyphens and
    parentheses (facts, Onboarding); its full-width digits become plain ones.

    :param phone: with or without country code, e.g. ``+819017901357`` or ``09017901357``.
    :param country: ISO 3166-1 alpha-2 code, e.g. ``JP``.
    :param first_furi_name: for a Japanese name; optional, as are the fields after it; empty ones are not sent.
    :raises QuoineFormError: if a required field is missing or a value has the wrong form. It names every fault and
        quotes no value, because these are personal data.
    """

    first_name: str
    last_name: str
    phone: str
    email: str
    country: str
    first_furi_name: str = ""
    last_furi_name: str = ""
    address: str = ""
    city: str = ""
    postcode: str = ""

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        faults = {name: "must be text" for name, value in values.items() if not isinstance(value, str)}
        if not faults:
            values = {name: value.strip() for name, value in values.items()}
            values["country"] = values["country"].upper()
            values["phone"] = _PHONE_NOISE.sub("", unicodedata.normalize("NFKC", values["phone"]))
            faults = _faults(values)
        if faults:
            raise QuoineFormError.of({name: f"{name} {words}" for name, words in faults.items()})
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def form_fields(self) -> dict[str, str]:
        """Return the fields to send, by the exchange's names, without empty ones."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}


def _faults(values: dict[str, str]) -> dict[str, str]:
    faults = {}
    if values["email"] and not _EMAIL.fullmatch(values["email"]):
        faults["email"] = "is no e-mail address"
    if values["country"] and values["country"] not in COUNTRIES:
        faults["country"] = "must be a two-letter ISO 3166 code such as JP"
    if values["phone"] and not _PHONE.fullmatch(values["phone"]):
        faults["phone"] = "must be 6 to 15 digits, with or without a + and country code in front"
    for name, value in values.items():
        if len(value) > LONGEST_VALUE:
            faults[name] = f"is longer than {LONGEST_VALUE} characters"
        if _CONTROL.search(value):
            faults[name] = "holds a control character"
    return faults | {name: "is required" for name in REQUIRED_FIELDS if not values[name]}


@dataclass(frozen=True, kw_only=True)
class Document:
    """
    One document of an onboarding (api-reference 1.1).

    :param name: file name; the exchange takes the type from its extension (facts, Onboarding).
    :param content: the file's bytes, not empty. The connection has the limit of their number.
    :raises QuoineInputError: if the exchange does not take the type, the name is a path, or there is no content.
    """

    name: str
    content: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not self.name or re.search(r"[/\\]", self.name) or _CONTROL.search(self.name):
            raise QuoineInputError(f"{self.name!r:.120} is no file name: give the name without folders.")
        if self.extension not in DOCUMENT_EXTENSIONS or "." not in self.name[1:]:
            raise QuoineInputError(
                f"The document {self.name!r:.120} has a type that the exchange does not take: "
                f"give one of {', '.join(sorted(DOCUMENT_EXTENSIONS))}."
            )
        if not self.content:
            raise QuoineInputError(f"The document {self.name!r:.120} is empty.")

    @property
    def extension(self) -> str:
        """The end of the name, which says the type, in lower case."""
        return self.name.rpartition(".")[2].lower()


def check_password(password: str) -> None:
    """
    Check a user's password by the exchange's rule (facts, Onboarding).

    :param password: at least 8 characters with a lower-case letter, an upper-case letter and a digit.
    :raises QuoineInputError: if it breaks the rule. The message does not quote it.
    """
    kinds = (str.islower, str.isupper, str.isdigit)
    if (
        len(password) < PASSWORD_LENGTH
        or _CONTROL.search(password)
        or not all(any(map(kind, password)) for kind in kinds)
    ):
        raise QuoineInputError(
            f"The user's password must have at least {PASSWORD_LENGTH} characters, among them a lower-case "
            "letter, an upper-case letter and a digit, and no control character."
        )


def make_password() -> str:
    """Make a strong password that obeys :func:`check_password`: 24 random letters and digits, about 140 bits."""
    alphabet = string.ascii_letters + string.digits
    while True:
        password = "".join(secrets.choice(alphabet) for _ in range(MADE_PASSWORD_LENGTH))
        try:
            check_password(password)
        except QuoineInputError:
            continue
        return password
