"""
Fields of trigger forms: what a DAG of this provider asks a person for.

The example DAGs build their forms from them, and so may any DAG: ``params={**WITHDRAWAL_FORM, "pair": PAIR}``.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param

from airflow_provider_quoine.exchange.market.channels import PRODUCT_IDS

_DOCUMENT = "A path or URI that the workers can read, such as s3://connection@bucket/{}."


def text(title: str, description: str, **rules: Any) -> Param:
    """A field that has to be filled in."""
    return Param(type="string", minLength=1, title=title, description=description, **rules)


def optional_text(title: str, description: str, section: str) -> Param:
    """A field that may stay empty."""
    return Param("", type=["string", "null"], title=title, description=description, section=section)


def minutes(default: float) -> Param:
    """How long something is captured."""
    return Param(default, type="number", exclusiveMinimum=0, title="Minutes", description="For how long to capture.")


ONBOARDING_FORM = {
    "first_name": text("First name", "As in the id document.", examples=["Taro"]),
    "last_name": text("Last name", "As in the id document.", examples=["Yamada"]),
    "email_address": text("E-mail", "The exchange takes each address once.", format="email"),
    "phone": text("Phone", "With or without country code, such as +819017901357.", pattern=r"^[+0-9 ()\-]{6,24}$"),
    "country": text("Country", "Two letters, ISO 3166.", pattern="^[A-Z]{2}$", examples=["JP", "SG", "VN", "US"]),
    "id_document": text("Id document", _DOCUMENT.format("passport.pdf")),
    "proof_address": text("Proof of address", _DOCUMENT.format("utility-bill.png")),
    "bank_statement": text("Bank statement", _DOCUMENT.format("statement.pdf")),
    "first_furi_name": optional_text("First name in furigana", "For a Japanese name.", "Furigana and address"),
    "last_furi_name": optional_text("Last name in furigana", "For a Japanese name.", "Furigana and address"),
    "address": optional_text("Address", "Street and number.", "Furigana and address"),
    "city": optional_text("City", "", "Furigana and address"),
    "postcode": optional_text("Postcode", "", "Furigana and address"),
}

#: The operator's arguments, taken from the form.
ONBOARDING_FIELDS = {field: f"{{{{ params.{field} or '' }}}}" for field in ONBOARDING_FORM}

#: Amounts are text: a JSON number would be a float on its way.
AMOUNT = text("Amount (BTC)", "Plain digits, at most 8 decimals.", pattern=r"^[0-9]+(\.[0-9]{1,8})?$", examples=["0.5"])

PAIR = Param(
    "btcjpy",
    type="string",
    title="Currency pair",
    description="The pair whose order book is taken.",
    enum=list(PRODUCT_IDS),
)

PAYMENT_REFERENCE = text(
    "Payment reference",
    "What makes this payment the only one of its kind, such as an invoice's number. A payment is sent once, however "
    "often its reference is used. It must name nobody.",
    pattern=r"^[0-9A-Za-z][^\x00-\x1f]{0,199}$",
    examples=["invoice-2026-117"],
)

WITHDRAWAL_FORM = {
    "payment_reference": PAYMENT_REFERENCE,
    "user_id": text("User id", "The exchange's number of the user.", pattern="^[0-9]+$", examples=["25"]),
    "amount": AMOUNT,
    "address": text("Address", "Bitcoin address to pay to; the connection's allow-list must have it."),
}
