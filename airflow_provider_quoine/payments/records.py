"""What the ledger keeps: orders, payments, events, and its head."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from airflow_provider_quoine.payments.schema import IN_DOUBT, LATE, Kind, Note, Step, late

SATOSHIS = 100_000_000
"""Per bitcoin."""

_DECIDES = frozenset({*Step, *LATE, "exists", "absent", "released"})
"""Events that say where a payment stands; the others are notes, and change nothing."""
_DOUBT_BEGINS = LATE | {Step.SENDING}
_DOUBT_IS_KNOWN = frozenset({Note.DOUBT_TOLD, Note.ABSENT_ASKED, Step.HELD})
"""Events that show that some person knows of a doubt."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """
    What a reference stands for. It never changes, but for the names by which it is looked up.

    :param exchange: base URL of the exchange.
    :param kind: withdrawal or user.
    :param reference: unique per exchange and kind.
    :param account: id of the key that signs.
    :param user_id: whose money it is; empty where that is the key's owner.
    :param address: bitcoin address; empty for a user.
    :param amount: bitcoin; 0 for a user.
    :param conn_id: Airflow's connection by which it can be looked up; empty where nobody knows.
    :param credentials_variable: name of the Variable with the key that signs; empty for the connection's own key.
    """

    exchange: str
    kind: Kind
    reference: str
    account: str
    user_id: str = ""
    address: str = ""
    amount: Decimal = Decimal(0)
    conn_id: str = field(default="", compare=False)
    credentials_variable: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """The payment, for a message."""
        return f"The payment {self.reference!r}" if self.kind == Kind.WITHDRAWAL else f"The new user {self.reference}"

    @property
    def satoshis(self) -> int:
        """The amount in the smallest unit, exact."""
        return int(self.amount * SATOSHIS)

    @property
    def details(self) -> dict[str, str]:
        """What must stay the same, in words for a person."""
        # From the smallest unit: 0.5 and 0.50 are one amount.
        amount = f"{Decimal(self.satoshis) / SATOSHIS:f}"
        return {"account": self.account, "user_id": self.user_id, "address": self.address, "amount": amount}


@dataclass(frozen=True, kw_only=True)
class Payment:
    """
    A payment as the ledger has it.

    :param order: what it is.
    :param step: where it stands; a word that no version knows is kept as it is and is never sendable.
    :param owner: the attempt that made it ``sending``.
    :param exchange_id: the exchange's id, once it is known.
    :param in_doubt_until: until when its request may be under way.
    :param policy: fingerprint of the policy that allowed the last send.
    :param reason: why it stands where it stands, in words.
    :param task: where in Airflow it was sent last, for a person.
    :param state: the last state seen at the exchange, in its words; empty before the first.
    """

    order: Order
    step: str
    owner: str | None
    exchange_id: str | None
    in_doubt_until: datetime | None
    policy: str | None
    reason: str
    task: str
    state: str


@dataclass(frozen=True, kw_only=True)
class Head:
    """
    The last event of a ledger at some time, by which the ledger is known again.

    :param identity: of the ledger.
    :param number: of the event; 0 if there was none.
    :param hash: of the event.
    """

    identity: str
    number: int
    hash: str


@dataclass(frozen=True, kw_only=True)
class Event:
    """
    What happened to a payment, or to the ledger.

    :param number: in the chain, from 1.
    :param at: UTC.
    :param event: a step, or a person's decision.
    :param actor: the person, the task, or the attempt.
    :param data: the rest.
    """

    number: int
    at: datetime
    event: str
    actor: str
    data: dict[str, Any]


class History(tuple[Event, ...]):
    """The events of a payment, the oldest first; there is at least one."""

    __slots__ = ()

    @property
    def decisions(self) -> list[Event]:
        """The events that say where the payment stands."""
        return [event for event in self if event.event in _DECIDES]

    @property
    def is_released(self) -> bool:
        """Whether the last decision was a person's, to give it back to its task."""
        return [event.event for event in self.decisions][-1:] == ["released"]

    @property
    def may_be_corrected(self) -> bool:
        """Whether the last decision was a person's, that it exists, and no task has gone on with that."""
        # An attempt whose late answer was lost says nothing about the id.
        decided = [event.event for event in self.decisions if event.event != late(Step.UNKNOWN)]
        return decided[-1:] == ["exists"] and not self.confirmed_by

    @property
    def may_be_taken_back(self) -> bool:
        """Whether a person has recorded so of a payment in doubt, and it may still be said that it does not exist."""
        # What was before may have been removed by other means.
        is_known = any(event.event != "exists" for event in self.decisions)
        return self.may_be_corrected and is_known and self.was_in_doubt(unless=frozenset({"exists"}))

    @property
    def confirmed_by(self) -> str:
        """The task that has gone on with an id that a person has recorded; empty if there is none."""
        return next((event.actor for event in self if event.event == Note.CONFIRMED), "")

    @property
    def has_late_answer(self) -> bool:
        """Whether an attempt's request may have been carried out after a person had settled it."""
        return self._late_answer is not None

    @property
    def late_id(self) -> str:
        """The exchange's id in an answer after a person had settled it; empty once a person has seen to that."""
        return str(self._late_answer.data.get("exchange_id") or "") if self._late_answer else ""

    def another_id(self, recorded: str | None) -> str:
        """The exchange's id in such an answer, if it is another one than is recorded: it may be paid twice."""
        return "" if self.late_id == recorded else self.late_id

    @property
    def _late_answer(self) -> Event | None:
        ends = [event for event in self if event.event in LATE | {"exists", "absent"}]
        return ends[-1] if ends and ends[-1].event in LATE else None

    @property
    def is_compared(self) -> bool:
        """Whether the id is known to be this payment's: by the exchange's answer, its task, or a comparison."""
        if not self.may_be_corrected:
            return True
        last = next(event for event in reversed(self) if event.event in ("exists", Note.RENAMED))
        return bool(last.data.get("compared"))

    def was_in_doubt(self, *, unless: frozenset[str] = frozenset({"exists", Step.HELD})) -> bool:
        """
        Whether the payment was in doubt before a person's last decisions.

        :param unless: the decisions to leave out.
        """
        before = [event for event in self.decisions if event.event not in unless][-1]
        # Who has given it back has decided nothing about the doubt: the event says as what it was given back.
        return before.data.get("step", before.event) in IN_DOUBT | LATE

    @property
    def has_untold_doubt(self) -> bool:
        """Whether nobody was told of the doubt since it began last, and nobody has acted on it."""
        last = next((event for event in reversed(self) if event.event in _DOUBT_BEGINS | _DOUBT_IS_KNOWN), None)
        return last is not None and last.event in _DOUBT_BEGINS

    @property
    def approvals(self) -> list[Event]:
        """The approvals since the payment was rejected, or got its details, last."""
        counting: list[Event] = []
        for event in self:
            if event.event == Note.REJECTED or (event.event == Step.PREPARED and "amount" in event.data):
                # It may have other details since.
                counting.clear()
            elif event.event == Note.APPROVED:
                counting.append(event)
        return counting

    @property
    def askers(self) -> list[str]:
        """Who started the runs in which it was asked for, the last one at the end."""
        names = (event.data.get("started_by") or event.data.get("run_started_by") for event in self)
        return [str(name) for name in names if name]

    @property
    def asked_by(self) -> str:
        """Who started the last of those runs; empty if nobody did."""
        return next(reversed(self.askers), "")

    def has_asked(self, name: str) -> bool:
        """Whether a person has started a run for it, however the name is written."""
        return folded(name) in map(folded, self.askers)

    @property
    def said_absent(self) -> list[Event]:
        """The words of those who said that it does not exist, and wait for a second person."""
        # What was said before anything else was decided, or was answered late, counts no more.
        decided = max((event.number for event in self.decisions), default=0)
        return [event for event in self if event.event == Note.ABSENT_ASKED and event.number > decided]

    def needs_second_person(self, who: str, user_id: str = "") -> bool:
        """
        Whether a second person has to say that an approved payment does not exist.

        :param who: the person who says so now.
        :param user_id: Airflow's id of the person, who may have another name by now; empty for a command.
        """
        if not any(event.event == Note.APPROVED for event in self):
            return False
        said = self.said_absent
        by_id = {_person(event.actor) for event in said if user_id and event.data.get("user_id") == user_id}
        return all(_person(event.actor) in {_person(who), *by_id} for event in said)

    def last_note(self, event: str, *, actor: str) -> dict[str, Any]:
        """Return what an actor noted last with such an event; empty if nothing."""
        return next((each.data for each in reversed(self) if (each.event, each.actor) == (event, actor)), {})


class Pin(Protocol):
    """Where Airflow remembers which ledger its payments are in, and how far it had come."""

    def read(self) -> Head | None:
        """Return what was written last."""

    def write(self, head: Head) -> None:
        """Remember a ledger's last event."""


def _person(actor: str) -> str:
    """Return who has decided, by whatever account or page."""
    return folded(actor.partition(" as ")[0])


def folded(name: str) -> str:
    """Return a name as directories compare it: in normal form KC, without case, outer blanks and invisible signs."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", "".join(sign for sign in text if unicodedata.category(sign) != "Cf")).strip()
