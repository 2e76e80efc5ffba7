"""Approvals: people who allow a withdrawal before its code is requested, and have asked for it in no run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from airflow_provider_quoine.payments.ledger import Ledger
from airflow_provider_quoine.payments.policy import WithdrawalPolicy
from airflow_provider_quoine.payments.records import Event, History, Order, folded
from airflow_provider_quoine.payments.refusals import PaymentRefusedError
from airflow_provider_quoine.payments.schema import Note
from airflow_provider_quoine.payments.transaction import Transaction


@dataclass(frozen=True, kw_only=True)
class Person:
    """
    A user of Airflow's, as its page knows the one who answered.

    :param user_id: Airflow's id of the user.
    :param name: the name by which Airflow also says who started a run.
    """

    user_id: str
    name: str

    def is_one_of(self, names: Iterable[str]) -> bool:
        """Whether one of the names is this person's, however it is written."""
        return folded(self.name) in map(folded, names)


class ApprovalsMissingError(PaymentRefusedError):
    """
    Not enough people have approved.

    :ivar number: of the approvals that are missing.
    """

    def __init__(self, text: str, *, number: int) -> None:
        super().__init__(text)
        self.number = number


class Approvals:
    """
    The approvals of one withdrawal, as the ledger has them.

    An approval counts for the payment, the connection and the policy that it was given for. It counts no more once
    one of them has changed, or somebody has rejected the payment, or the person has started a run for it.

    :param ledger: where they are written.
    :param order: the payment.
    :param connection: id of the connection.
    :param policy: reads the connection's policy anew.
    :param started_by: who started the run, in Airflow's words; empty for a schedule or an event; None if Airflow does
        not say.
    :param task: where in Airflow this is, for a person.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        order: Order,
        connection: str,
        policy: Callable[[], WithdrawalPolicy],
        started_by: str | None,
        task: str,
    ) -> None:
        self._ledger = ledger
        self._order = order
        self._connection = connection
        self._policy = policy
        self._started_by = started_by
        self._task = task

    @property
    def started_by(self) -> str:
        """Who started the run; empty if nobody did."""
        return self._started_by or ""

    def note_run(self) -> None:
        """Write down who has started the run, and so has asked for the payment."""
        if self._started_by:
            self._ledger.note_run(self._order, started_by=self._started_by, task=self._task)

    def askers(self) -> dict[str, str]:
        """Return who cannot approve the payment, and why."""
        return self._askers(self._ledger.history(self._order))

    def missing(self) -> int:
        """
        Count the approvals that are missing under the policy as it is now.

        :raises QuoineInputError: if the connection's policy is incomplete.
        """
        policy = self._policy()
        with self._ledger.transaction() as at:
            try:
                self.check_in(at, policy)
            except ApprovalsMissingError as error:
                return error.number
            return 0

    def check(self) -> None:
        """
        Refuse the payment if approvals are missing.

        :raises PaymentRefusedError: naming how many there are.
        """
        policy = self._policy()
        with self._ledger.transaction() as at:
            self.check_in(at, policy)

    def check_in(self, at: Transaction, policy: WithdrawalPolicy) -> None:
        """
        Do as :meth:`check`, in a transaction.

        :param policy: as it is now.
        """
        if policy.approvals and self._started_by is None:
            raise PaymentRefusedError(
                "Airflow does not say who started this run, so nobody can approve in it: a backfill has started it "
                "again, or somebody who had not logged in. Nothing was sent. Log in, and start a new run."
            )
        at.refuse_changed(self._order)
        events = at.history(self._order)
        askers = {folded(name): why for name, why in self._askers(events).items()}
        given = [each.actor for each in self._counting(events, policy) if folded(each.actor) not in askers]
        if len(given) < policy.approvals:
            named = f" (by {', '.join(given)})" if given else ""
            in_vain = dict.fromkeys(each.actor for each in events.approvals if folded(each.actor) in askers)
            why = "".join(f"The approval of {name} does not count: {name} {askers[folded(name)]}. " for name in in_vain)
            raise ApprovalsMissingError(
                f"{self._order.name} needs {policy.approvals} approvals of people who have not asked for it, and has "
                f"{len(given)}{named} for the connection and its policy as they are now. {why}Nothing was sent. Put as "
                "many QuoineApproveWithdrawalOperator tasks before this one, or clear those that there are, and have "
                "it approved.",
                number=policy.approvals - len(given),
            )

    def ask(self, about: str) -> None:
        """
        Write down what a person is asked about.

        :param about: the question's lines about the payment.
        """
        policy = self._policy().fingerprint
        self._ledger.note(self._order, Note.APPROVAL_ASKED, actor=self._task, about=about, policy=policy)

    def asked_about(self) -> str:
        """Return what this task has asked about last; empty if nothing."""
        asked = self._ledger.history(self._order).last_note(Note.APPROVAL_ASKED, actor=self._task)
        return str(asked.get("about", ""))

    def approve(self, person: Person) -> str:
        """
        Write an approval down.

        :return: why it does not count; empty if it does.
        :raises QuoineInputError: if the connection's policy is incomplete.
        """
        policy = self._policy()
        with self._ledger.transaction() as at:
            at.refuse_changed(self._order)
            events = at.history(self._order)
            asked = events.last_note(Note.APPROVAL_ASKED, actor=self._task)
            if asked.get("policy", "") not in ("", policy.fingerprint):
                return "The connection's policy has changed since the question was asked."
            if why := next((why for name, why in self._askers(events).items() if person.is_one_of([name])), ""):
                return f"{person.name} {why}, so somebody else has to approve."
            if any(is_same(event, person) for event in self._counting(events, policy)):
                return f"{person.name} has approved it already, so somebody else has to."
            at.append(
                self._order,
                Note.APPROVED,
                actor=person.name,
                user_id=person.user_id,
                connection=self._connection,
                policy=policy.fingerprint,
                started_by=self._started_by,
                task=self._task,
            )
            return ""

    def reject(self, person: Person) -> None:
        """Write a rejection down: the approvals given so far count no more."""
        self._ledger.reject(self._order, who=person.name, user_id=person.user_id, task=self._task)

    def _askers(self, events: History) -> dict[str, str]:
        """Return who has asked for the payment, and how."""
        others = {folded(name): name for name in events.askers}
        others.pop(folded(self.started_by), None)
        own = {self.started_by: "started the run"} if self.started_by else {}
        return own | dict.fromkeys(others.values(), "started another run for this payment")

    def _counting(self, events: History, policy: WithdrawalPolicy) -> list[Event]:
        return [
            event
            for event in events.approvals
            if event.data["connection"] == self._connection and event.data["policy"] == policy.fingerprint
        ]


def is_same(event: Event, person: Person) -> bool:
    """Whether a person gave an approval."""
    return event.data["user_id"] == person.user_id or person.is_one_of([event.actor])
