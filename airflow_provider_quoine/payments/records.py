"""The records of requests that may be sent only once: their keys, their steps, and the decisions of a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from airflow_provider_quoine.exchange.models import is_issued_id

Entry = dict[str, Any]
"""A record as it is stored, as JSON, in Airflow's task state store."""


class Step(StrEnum):
    """Where a request stands. Only ``prepared`` and ``refused`` allow sending."""

    PREPARED = "prepared"
    SENDING = "sending"
    SENT = "sent"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Decision(StrEnum):
    """A person's decision on an unknown outcome; also the name of the command that records it."""

    EXISTS = "exists"
    ABSENT = "absent"


@dataclass(frozen=True, kw_only=True)
class RecordKind:
    """
    A kind of request that is recorded.

    :param key: the record's key in Airflow's task state store.
    :param noun: the thing that the request creates, for messages.
    :param command_group: the commands of ``airflow quoine`` that show and resolve these records.
    """

    key: str
    noun: str
    command_group: str


WITHDRAWAL = RecordKind(key="quoine_withdrawal", noun="withdrawal", command_group="withdrawals")
ONBOARDING_USER = RecordKind(key="quoine_onboarding_user", noun="onboarding user", command_group="users")
RECORD_KINDS = (WITHDRAWAL, ONBOARDING_USER)


class ResolutionRefusedError(Exception):
    """A record does not allow the decision. It was not changed."""


def resolve_as_sent(record: Entry, identifier: str, *, decided_by: str) -> Entry:
    """
    Decide that the exchange carried the request out. A person may correct an id that a person has entered.

    :param record: empty if the task has none.
    :param identifier: the exchange's id of the withdrawal or user.
    :param decided_by: name of the person.
    :return: the record to store; a later try goes on with the id.
    :raises ResolutionRefusedError: if that is no id, or if the exchange itself has answered with another one.
    """
    if not is_issued_id(identifier):
        raise ResolutionRefusedError(f"{identifier!r:.80} is no id of the exchange; nothing was changed.")
    if record.get("id", identifier) != identifier and record.get("decision") != Decision.EXISTS:
        raise ResolutionRefusedError(f"The exchange itself answered with id {record['id']}; nothing was changed.")
    return _resolved({**record, "step": str(Step.SENT), "id": identifier}, Decision.EXISTS, decided_by)


def resolve_as_absent(record: Entry, *, decided_by: str) -> Entry:
    """
    Decide that the exchange did not carry the request out.

    :param record: empty if the task has none.
    :param decided_by: name of the person.
    :return: the record to store; a later try sends.
    :raises ResolutionRefusedError: if the record has an id, or if the request may still be in flight.
    """
    if record.get("step") == Step.SENT:
        raise ResolutionRefusedError(
            f"The record names {record['id']}, which the exchange has carried out; nothing was changed."
        )
    seconds = _seconds_in_flight(record)
    if seconds > 0:
        raise ResolutionRefusedError(
            f"The task's request may still be on its way. Look at the exchange again in {seconds:.0f} s; nothing was "
            "changed."
        )
    return _resolved({**record, "step": str(Step.PREPARED), "reason": ""}, Decision.ABSENT, decided_by)


def _seconds_in_flight(record: Entry) -> float:
    if "in_doubt_until" not in record:
        return 0
    return (datetime.fromisoformat(record["in_doubt_until"]) - datetime.now(UTC)).total_seconds()


def _resolved(record: Entry, decision: Decision, decided_by: str) -> Entry:
    return {**record, "decision": str(decision), "decided_by": decided_by, "decided_at": datetime.now(UTC).isoformat()}
