"""The ledger's events, in words for a person."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from airflow_provider_quoine.desk.settling import NOT_COMPARED, SAME
from airflow_provider_quoine.payments.records import Event
from airflow_provider_quoine.payments.schema import LATE, Note, Step

_MOMENT = re.compile(r"\b(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?\+00:00")

#: What each event says, filled in with its data.
WORDS: dict[str, str] = {
    Step.SENDING: "Began to send it. The request may be under way until {in_doubt_until}.",
    Step.SENT: "The exchange has accepted it as {exchange_id}: {state}.",
    Step.REFUSED: "The exchange has refused it: {reason}",
    Step.UNKNOWN: "The outcome is unknown: {reason}",
    Step.HELD: "Held, so that no task sends it: {why}",
    "released": "Given back; it is {step} again: {why}",
    "exists": "It exists at the exchange as {exchange_id}: {why}",
    "absent": "It does not exist at the exchange: {why}",
    Note.ABSENT_ASKED: "It does not exist at the exchange: {why} A second person has to say so too.",
    Note.DOUBT_TOLD: "Told people that the outcome is unknown.",
    Note.SEEN: "At the exchange it is {state}; before, it was {before}.",
    Note.RUN_STARTED: "{started_by} started a run for it.",
    Note.ASKED: "Asked a person for the code.",
    "answered": "{by} typed the code and chose {chose}.",
    Note.APPROVAL_ASKED: "Asked a person for an approval.",
    Note.APPROVED: "Approved it, over connection {connection}.",
    Note.REJECTED: "Rejected it: approvals before this count no more.",
    Note.CONFIRMED: "The task has looked {exchange_id} up and goes on with it.",
    Note.RENAMED: "Is looked up by connection {conn_id} {credentials_variable} from now on: {why}",
    **dict.fromkeys(LATE, "An attempt was answered after a person had settled it: {exchange_id} {reason}"),
}
_BEGUN = "Began it: {amount} BTC to {address}, account {account}."
_BEGUN_USER = "Began it, account {account}."
_NOT_SENT = "Was not sent: {reason}"


def in_words(event: Event) -> str:
    """Say what happened; an event that is new to this version by its name."""
    return _template(event).format_map(defaultdict(str, _texts(event.data))).strip()


def _template(event: Event) -> str:
    if event.event == "exists":
        return f"{WORDS['exists']} {SAME if event.data.get('compared') else NOT_COMPARED}"
    if event.event == Step.PREPARED:
        if "amount" not in event.data:
            return _NOT_SENT
        return _BEGUN if event.data.get("address") else _BEGUN_USER
    return WORDS.get(event.event, event.event.replace("{", "").replace("}", ""))


def _texts(data: dict[str, Any]) -> dict[str, str]:
    return {name: "" if value is None else _MOMENT.sub(r"\1 \2 UTC", str(value)) for name, value in data.items()}
