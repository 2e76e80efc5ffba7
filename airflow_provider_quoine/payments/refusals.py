"""Why a payment does not go on: the errors, and the sentences that say what to do."""

from __future__ import annotations

import re
import shlex
import unicodedata
from datetime import datetime
from typing import Any

from sqlalchemy import URL

from airflow_provider_quoine.payments.records import Order, Payment
from airflow_provider_quoine.payments.schema import IN_DOUBT, SENDABLE, Kind, Step

#: Letters and digits of all scripts, and ASCII's signs: what looks the same to a person is the same, or refused.
_REFERENCE = re.compile(r"(?!.*[\u115f\u1160])[^\W_](?:\w|[ -~]){0,199}")


class PaymentError(Exception):
    """
    A payment cannot go on by itself; the text says why and what to do. It is never retried.

    :param payment: as the ledger has it, where that is known.
    """

    def __init__(self, text: str, *, payment: Payment | None = None) -> None:
        super().__init__(text)
        self.payment = payment


class LedgerUnusableError(PaymentError):
    """The ledger cannot be used, so nothing is sent."""

    @classmethod
    def unreachable(cls, url: URL, error: Exception) -> LedgerUnusableError:
        """
        Say that a database cannot be reached, or failed.

        :param url: of the database; its password is not shown.
        """
        words = str(getattr(error, "orig", None) or error).strip()
        if "locked" in words:
            words += ". A process that was stopped in the middle of a step holds the lock: end it (fuser names it)."
        # The parameters after it may be secret as well.
        shown = url.set(query={}).render_as_string()
        return cls(
            f"The ledger of payments in {shown} cannot be reached, or it failed. Nothing is sent "
            "without it; a request that was under way before stays in doubt. Once the database answers, clear the "
            f"task. The database's own words: {words}"
        )

    @classmethod
    def forgotten(cls, error: Exception) -> LedgerUnusableError:
        """Say that Airflow could not be made to remember what was written."""
        return cls(
            "The ledger has it, but Airflow could not be made to remember the ledger's last event, so nothing was "
            f"sent. Look at the payment (airflow quoine payments show), and go on from there. Airflow's own words: "
            f"{error}"
        )


class PaymentRefusedError(PaymentError):
    """The ledger does not allow it. Nothing was sent and nothing was changed."""


class PaymentInDoubtError(PaymentError):
    """It was sent, and the exchange may have carried it out."""


def check_reference(reference: Any) -> str:
    """
    Check a payment reference, as a template has rendered it.

    :return: the reference, in Unicode's normal form KC, and with one blank where there are several.
    :raises PaymentRefusedError: if it is no text, is empty, is too long or cannot be typed as an argument.
    """
    text = re.sub(" +", " ", unicodedata.normalize("NFKC", reference)).strip() if isinstance(reference, str) else ""
    # "None" is what a template makes of a value that is missing.
    if text == "None" or not _REFERENCE.fullmatch(text):
        raise PaymentRefusedError(
            f"{reference!a:.80} is no payment reference, so nothing was sent. Give text of at most 200 letters, "
            "digits, blanks and signs of ASCII that begins with a letter or a digit and is unique to the payment, "
            "such as an invoice's number."
        )
    return text


def how_to_settle(order: Order, *, then_clear: str = "this task") -> str:
    """Return the steps by which a person settles an unknown outcome."""
    where = shlex.quote(order.reference) + (" --kind user" if order.kind == Kind.USER else "")
    command = "airflow quoine payments"
    return (
        f"Look it up at the exchange. If it exists: {command} exists {where} --id ID --why WHY. If it does not: "
        f"{command} absent {where} --why WHY. Then clear {then_clear}."
    )


def untold(found: Payment) -> PaymentInDoubtError:
    """Return the error of a doubt that the task which sent it could not tell of."""
    because = f" Why: {found.reason}" if found.reason else ""
    return PaymentInDoubtError(
        f"The task that sent it has told nobody: it was ended in the middle of the request, or soon after it.{because} "
        f"{how_to_settle(found.order, then_clear='that task')}",
        payment=found,
    )


PAID_TWICE = "Paid twice?"
"""Names a payment that the exchange has answered with another id than is recorded."""


def paid_twice(late_id: str) -> str:
    """
    Say of such a payment what happened and what to do.

    :param late_id: the id in the exchange's answer.
    """
    return (
        f"It may be paid twice: the exchange has answered with id {late_id} after a person had settled it. Compare "
        "both at the exchange, then record the right one."
    )


def refuse_another(found: Payment, order: Order) -> None:
    """Refuse an order whose reference stands for another payment."""
    changed = [name for name, value in order.details.items() if found.order.details[name] != value]
    if changed:
        first = ", ".join(f"{name} {found.order.details[name] or 'none'}" for name in changed)
        now = ", ".join(f"{name} {order.details[name] or 'none'}" for name in changed)
        raise PaymentRefusedError(
            f"The payment reference {order.reference!r} stands for a payment with {first}; this one has {now}. Nothing "
            f"was sent. {_way_on(found)}"
        )


def _way_on(found: Payment) -> str:
    if found.step in IN_DOUBT:
        return f"That payment is {found.step}: it may exist at the exchange. {how_to_settle(found.order)}"
    other = "Give another payment another reference."
    if found.step not in SENDABLE:
        return other
    where, command = shlex.quote(found.order.reference), "airflow quoine payments"
    return (
        f"{other} If it is this payment, with new details: nothing of it is at the exchange, so {command} hold {where} "
        f"--why WHY and {command} release {where} --why WHY let it have them. Then clear this task."
    )


def refuse_unsendable(found: Payment) -> None:
    """Refuse a payment that may neither be sent nor was sent."""
    if found.step not in SENDABLE | {Step.SENT}:
        raise PaymentRefusedError(why_not(found), payment=found)


def refuse_in_doubt(found: Payment, now: datetime) -> None:
    """Refuse a decision about a payment whose request may still be on its way."""
    if found.in_doubt_until is not None and now < found.in_doubt_until:
        seconds = (found.in_doubt_until - now).total_seconds()
        raise PaymentRefusedError(
            f"Its request may still be on its way. Look at the exchange again in {seconds:.0f} s. Nothing was changed."
        )


def why_not(found: Payment) -> str:
    """Say why a payment is not sent."""
    order = found.order
    if found.step == Step.SENT:
        return f"{order.name} was sent already: it is {found.exchange_id} at the exchange."
    if found.step == Step.HELD:
        return (
            f"A person holds {order.name[0].lower()}{order.name[1:]}: {found.reason}. Nothing was sent by this "
            "attempt. It goes on once it is released (airflow quoine payments release) or recorded as paid (exists)."
        )
    until = f" (in doubt until {found.in_doubt_until.isoformat(timespec='seconds')})" if found.in_doubt_until else ""
    because = f" Why: {found.reason}" if found.reason else ""
    return (
        f"{order.name} is {found.step}{until}: its outcome is unknown, and it may exist at the exchange. Nothing was "
        f"sent by this attempt. {how_to_settle(order)} It was sent by {found.task}.{because}"
    )
