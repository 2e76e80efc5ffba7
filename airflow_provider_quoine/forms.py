"""
Fields of trigger forms: what a DAG of this provider asks a person for.

The example DAGs build their forms from them, and so may any DAG: ``params={**WITHDRAWAL_FORM, "pair": PAIR}``.

A field has no pattern and no bound: Airflow would answer with the raw JSON schema. The first task says in words what is
wrong, all at once: the task that needs the fields, or :func:`check_withdrawal` where that comes late.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from airflow.sdk import Param

from airflow_provider_quoine.exchange.countries import COUNTRIES
from airflow_provider_quoine.exchange.market.channels import PRODUCT_IDS

_DOCUMENT = "A path or URI that the workers can read, such as s3://connection@bucket/{}."


def text(title: str, description: str, **rules: Any) -> Param:
    """A field that has to be filled in. An example belongs into its description: Airflow's page hides ``examples``."""
    return Param(type="string", minLength=1, title=title, description=description, **rules)


def optional_text(title: str, description: str, section: str) -> Param:
    """A field that may stay empty."""
    return Param("", type=["string", "null"], title=title, description=description, section=section)


def minutes(default: float) -> Param:
    """How long something is captured."""
    return Param(default, type="number", title="Minutes", description="Length of the capture in minutes, such as 60.")


ONBOARDING_FORM = {
    "first_name": text("First name", "As in the id document, such as Taro."),
    "last_name": text("Last name", "As in the id document, such as Yamada."),
    "email_address": text("E-mail", "The exchange takes each address once, such as taro@example.com."),
    "phone": text("Phone", "With or without country code, such as +819017901357."),
    "country": text("Country", "Two letters, ISO 3166, such as JP.", enum=list(COUNTRIES)),
    "id_document": text("Id document", _DOCUMENT.format("passport.pdf")),
    "proof_address": text("Proof of address", _DOCUMENT.format("utility-bill.png")),
    "bank_statement": text("Bank statement", _DOCUMENT.format("statement.pdf")),
    "first_furi_name": optional_text("First name in furigana", "For a Japanese name.", "Furigana and address"),
    "last_furi_name": optional_text("Last name in furigana", "For a Japanese name.", "Furigana and address"),
    "address": optional_text("Address", "Street and number.", "Furigana and address"),
    "city": optional_text("City", "City or town.", "Furigana and address"),
    "postcode": optional_text("Postcode", "Postal code.", "Furigana and address"),
}

#: The operator's arguments, taken from the form.
ONBOARDING_FIELDS: dict[str, Any] = {field: f"{{{{ params.{field} or '' }}}}" for field in ONBOARDING_FORM}

#: A DAG with this tag and ``APPLICATION_FORM`` is offered on the page *New applicant*, which starts its runs.
APPLICANTS_TAG = "quoine-applicants"

APPLICATION_FORM = {
    "application": text(
        "Application",
        "Reference of an application. The page Quoine, Applicants takes the form and starts this DAG with it.",
    )
}

#: Amounts are text: a JSON number would be a float on its way.
AMOUNT = text("Amount (BTC)", "Plain digits such as 0.5, at most 8 decimals.")

PAIR = Param(
    "btcjpy",
    type="string",
    title="Currency pair",
    description="The pair whose order book is taken.",
    enum=list(PRODUCT_IDS),
)

#: Airflow's page makes a list to choose from of an array's ``examples``.
PAIRS = Param(
    ["btcjpy", "ethjpy"],
    type="array",
    items={"type": "string"},
    title="Currency pairs",
    description="One task captures each.",
    examples=list(PRODUCT_IDS),
)

PAYMENT_REFERENCE = text(
    "Payment reference",
    "What makes this payment the only one of its kind, such as invoice-2026-117. A payment is sent once, however often "
    "its reference is used. It must name nobody.",
)

WITHDRAWAL_FORM = {
    "payment_reference": PAYMENT_REFERENCE,
    "user_id": text("User id", "The exchange's number of the user, such as 25."),
    "amount": AMOUNT,
    "address": text("Address", "Bitcoin address to pay to; the connection's allow-list must have it."),
}


def check_withdrawal(params: Mapping[str, Any], *, address: str = "address") -> None:
    """
    Check the fields of a withdrawal, for a first task where the withdrawal comes later.

    :param params: of the run: ``payment_reference``, ``amount`` and the address.
    :param address: name of the address's field.
    :raises AirflowFailException: naming everything that is wrong; nothing was sent.
    """
    from airflow_provider_quoine.exchange.models import WithdrawalOrder
    from airflow_provider_quoine.failures import check_all, without_retry
    from airflow_provider_quoine.payments.refusals import check_reference

    with without_retry():
        check_all(
            (
                partial(check_reference, params["payment_reference"]),
                partial(WithdrawalOrder.parse, amount=params["amount"], address=params[address]),
            )
        )
