"""Operators that compare the ledger of payments with the exchange, and tell the rest of Airflow what they found."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_quoine.assets import FINDINGS, add_event, may_add_events
from airflow_provider_quoine.exchange.errors import QuoineError
from airflow_provider_quoine.failures import ONLY_READ, in_words, stop
from airflow_provider_quoine.payments.withdrawals import task_name

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier, Context

    from airflow_provider_quoine.payments.reconciliation import Report

FOUND = "findings"
"""Key of the XCom with the findings. It is there after a task that has failed as well."""


class QuoineReconcilePaymentsOperator(BaseOperator):
    """
    Look up the ledger's payments at the exchange, and fail if something is wrong.

    Every payment that is not final is looked up, and every final one of the last days. The task only reads at the
    exchange, within the request budget and behind everything urgent. If a connection does not answer, Airflow retries.
    Before that it has codes wiped that people have typed for tasks which could not take them, and removes applications
    of new users whose time is over.

    :param final_for: a payment that was seen final is looked up for so long after that.
    :param stuck_after: a payment that is not final, in doubt or held after so long is a finding.
    :return: ``payments``, ``looked_up``, ``findings`` and a count of each kind. The XCom ``findings`` has them.
    """

    ui_color = "#fee2e2"

    def __init__(
        self, *, final_for: timedelta = timedelta(days=7), stuck_after: timedelta = timedelta(days=1), **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.final_for = final_for
        self.stuck_after = stuck_after

    def execute(self, context: Context) -> dict[str, int]:
        """
        Look up and compare.

        :raises AirflowFailException: if something is wrong.
        :raises QuoineError: if a connection did not answer.
        :raises LedgerUnusableError: if the ledger cannot be used.
        """
        from airflow_provider_quoine.payments.configuration import open_ledger
        from airflow_provider_quoine.payments.reconciliation import Reconciliation, Report

        self._wipe_typed_codes()
        self._expire_applications()
        report = Report()
        reconciliation = Reconciliation(
            ledger=open_ledger(), final_for=self.final_for, stuck_after=self.stuck_after, actor=task_name(context)
        )
        try:
            reconciliation.run(report)
        finally:
            # A run that is broken off, such as by a time-out, tells what it has found so far.
            context["ti"].xcom_push(key=FOUND, value=[finding.as_dict() for finding in report.findings])
            self._tell(report)
        counts = report.as_dict()
        if not counts["findings"]:
            self.log.info("%s payments, nothing wrong; %s looked up.", report.payments, report.looked_up)
            return counts
        kinds = ", ".join(f"{number} {kind}" for kind, number in report.counts.most_common())
        silent = (f"Connection {connection} did not answer: {words}" for connection, words in report.silent.items())
        failure = stop(
            f"{counts['findings']} findings in {report.payments} payments.",
            done=ONLY_READ,
            next="The table in this task's log names each, and says what to do.",
            details="\n".join((f"{kinds}.", *silent)),
        )
        if report.silent:
            raise QuoineError(str(failure))
        raise failure

    def _wipe_typed_codes(self) -> None:
        from airflow_provider_quoine.api_server import wipe_typed_codes

        try:
            if wiped := wipe_typed_codes():
                self.log.warning("%s codes that were typed for tasks which could not take them were wiped.", wiped)
        except QuoineError as error:
            self.log.warning(
                "Codes that were typed for tasks which could not take them may be in Airflow's tables still. Any "
                "`airflow quoine payments` command wipes them. %s",
                error,
            )

    def _expire_applications(self) -> None:
        from airflow_provider_quoine.applications.configuration import open_store

        try:
            open_store()
        except QuoineError as error:
            self.log.warning("Applications whose time is over may be there still. %s: %s", type(error).__name__, error)

    def _tell(self, report: Report) -> None:
        from airflow_provider_quoine.operators.findings import table

        if not report.findings:
            return
        for line in table(report.findings):
            self.log.error("%s", line)
        if left_out := report.counts.total() - len(report.findings):
            self.log.error("%s findings more are not in this table.", left_out)


class QuoineNotifyUnknownOutcomesOperator(BaseOperator):
    """
    Tell people of unknown outcomes of which nobody was told.

    A task tells of its own by its ``unknown_outcome_notifiers``. It cannot if Airflow ends it in the middle of a
    request: the worker is killed, the heartbeat times out, somebody sets the task to failed. This task finds such
    withdrawals and new users in the ledger. It asks the exchange nothing, so it may run every few minutes.

    :param notifiers: Airflow's notifiers, called for each. Their templates have the failure's lines as ``exception``.
    :return: of how many it has told.
    """

    ui_color = "#fee2e2"

    def __init__(self, *, notifiers: Sequence[BaseNotifier], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.notifiers = notifiers

    def execute(self, context: Context) -> int:
        """
        Tell of each once.

        :raises AirflowFailException: if no notifier could tell of one; the next run tries again.
        :raises LedgerUnusableError: if the ledger cannot be used.
        """
        from airflow_provider_quoine.operators.notifying import tell_of_doubt
        from airflow_provider_quoine.payments.configuration import open_ledger
        from airflow_provider_quoine.payments.refusals import untold

        with in_words():
            doubts = open_ledger().untold_doubts()
        failed = []
        for payment in doubts:
            if tell_of_doubt(self.notifiers, context, untold(payment)):
                self.log.warning("Told people that the outcome of %s is unknown.", payment.order.reference)
            else:
                failed.append(payment.order.name)
        if failed:
            raise stop(
                f"Nobody could be told of {len(failed)} unknown outcomes.",
                done=ONLY_READ,
                next="Mend the notifiers: the log above says why they failed. The next run tells.",
                details="\n".join(failed),
            )
        return len(doubts)


class QuoineEmitFindingsOperator(BaseOperator):
    """
    Add an asset event for each finding of a :class:`QuoineReconcilePaymentsOperator`.

    It is a task of its own, because Airflow drops the events of a task that fails. As a teardown it runs whenever the
    reconciliation has ended, and the run still ends as the reconciliation did.

    :param reconcile_task_id: the task whose findings they are; by default ``reconcile``, in the same task group.
    """

    template_fields: Sequence[str] = ("reconcile_task_id",)
    ui_color = "#fee2e2"

    def __init__(self, *, reconcile_task_id: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        group = self.task_group
        in_group = group.child_id("reconcile") if group else "reconcile"  # type: ignore[no-untyped-call]  # Airflow's
        self.reconcile_task_id = reconcile_task_id or in_group
        may_add_events(self, FINDINGS)

    def execute(self, context: Context) -> int:
        """
        Return how many events there are.

        :raises AirflowFailException: if the DAG has no such task, so that no finding would ever be told.
        """
        if self.reconcile_task_id not in context["dag"].task_ids:
            raise stop(
                "The DAG has no such task, so no finding was told.",
                done=ONLY_READ,
                next="Name the task of the reconciliation in reconcile_task_id, with its task group.",
                details=f"The DAG has no task {self.reconcile_task_id!r}.",
            )
        findings = context["ti"].xcom_pull(task_ids=self.reconcile_task_id, key=FOUND) or []
        for finding in findings:
            name = "/".join(finding[part] for part in ("kind", "payment", "exchange", "reference"))
            add_event(context, FINDINGS, f"{name}/{finding['id']}/{finding['state']}", **finding)
        self.log.info("%s findings.", len(findings))
        return len(findings)
