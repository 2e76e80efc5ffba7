"""An operator that asks a person for the authentication code and withdraws with it, in one task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import NEVER_EXPIRE, Param  # type: ignore[attr-defined]  # there, but not in its stub
from airflow.sdk.exceptions import TaskAwaitingInput
from airflow.sdk.log import mask_secret

from airflow_provider_quoine.exchange.budget.rules import Priority
from airflow_provider_quoine.failures import in_lines, stop, without_retry
from airflow_provider_quoine.operators.payment_question import PaymentQuestion, as_it_is
from airflow_provider_quoine.operators.withdrawal_task import WithdrawalTask, as_timedelta
from airflow_provider_quoine.payments.withdrawals import NOT_SENT

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_provider_quoine.exchange.errors import QuoineError
    from airflow_provider_quoine.payments.withdrawals import WithdrawalPayment

SEND, CANCEL = "Send", "Cancel"
#: The name of a secret, so that Airflow masks the value wherever it shows parameters by name.
CODE_FIELD = "one_time_token"
CODE = re.compile(r"[0-9A-Za-z-]{4,16}")

ANSWER = "quoine_answer"
"""Key of the XCom that says who chose what, and what became of it."""

CODE_STATE = "quoine_code"
"""
Key in the task state store: when a code was requested, how many were refused, and what stands on Airflow's page. It has
no authority.
"""

BODY = """\
You are asked to let this withdrawal be sent:

{about}
{request}

A withdrawal cannot be taken back. Compare each line, then type the code and choose **{send}**; **{cancel}** sends
nothing. If the exchange refuses the code, this question comes again (at most {attempts} times in all) and says so:
reload the page if it stays grey after your answer.
"""
REFUSED = """\
**The last code was refused, and nothing was sent.** {reason} Type a new one.

"""


class QuoineAuthorizeWithdrawalOperator(PaymentQuestion, WithdrawalTask):
    """
    Have the exchange send a code, ask a person for it on Airflow's page, and withdraw with it (api-reference 2.1).

    The task holds no worker slot while it waits. The typed code is wiped from Airflow's tables before it is used. It
    is used inside this task and returned nowhere. If the person does not answer in time, the task fails; there is no
    default answer. The other parameters are those of
    :class:`~airflow_provider_quoine.operators.withdrawal_task.WithdrawalTask`.

    :param user_id: the exchange's id of the user, who gets the code.
    :param code_attempts: number of codes that may be typed before the task fails.
    :param code_valid_for: age of an unused code from which a later try requests another one (decisions, Codes: no
        lifetime is on record).
    :param response_timeout: time that the person has.
    :param assigned_users: users who may answer; by default everybody with the permission.
    :param notifiers: Airflow's notifiers, called each time that a person is needed.
    :return: id, amount (str), address and state.
    """

    template_fields: Sequence[str] = (*WithdrawalTask.template_fields, "user_id")

    def __init__(
        self,
        *,
        user_id: str | XComArg,
        code_attempts: int = 3,
        code_valid_for: timedelta = timedelta(minutes=10),
        response_timeout: timedelta = timedelta(minutes=30),
        **kwargs: Any,
    ) -> None:
        code = Param(
            None,
            # Not required: a person who cancels has no code to type.
            type=["null", "string"],
            format="password",
            title="Authentication code",
            description="From the e-mail or SMS.",
        )
        # Airflow passes the DAG's parameters in; the person is asked for the code only.
        kwargs.pop("params", None)
        super().__init__(
            subject="Send this withdrawal?",
            options=[SEND, CANCEL],
            # Airflow would take a default as the answer when the person's time is over.
            defaults=None,
            params={CODE_FIELD: code},
            response_timeout=as_timedelta(response_timeout),
            **kwargs,
        )
        self.user_id = user_id
        self.code_attempts = code_attempts
        self.code_valid_for = code_valid_for

    def execute(self, context: Context) -> Any:
        """Request a code unless one is on its way, then ask a person for it."""
        if self._state(context).get("asked"):
            # A code that was typed for an earlier try may be there still, if that try could not take it.
            self._wipe_answer(context)
        with without_retry():
            payment = self.payment(context, user_id=str(self.user_id), dry_run=self.is_dry_run)
            if sent := self.begin(context, payment):
                return self.go_on(context, payment, sent)
            return self._ask(context, payment)

    def _ask(self, context: Context, payment: WithdrawalPayment, refused: str = "") -> Any:
        payment.check_policy()
        payment.approvals.check()
        about = self.about(payment)
        request = self._request_code(context, payment)
        self.subject = f"Withdraw {payment.order.amount} BTC?"
        self.body = BODY.format(about=about, request=request, send=SEND, cancel=CANCEL, attempts=self.code_attempts)
        if refused:
            self.body = REFUSED.format(reason=as_it_is(refused)) + self.body
        self._keep(context, asked={"subject": self.subject, "body": self.body})
        question = self.put_question(context)
        self.refuse_another_question(question, payment)
        payment.ask(about)
        self.show_text(context, question)
        return self.wait_for_answer(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Take the code, wipe it from Airflow's tables, and send; ask again if the exchange refuses the code."""
        event = event or {}
        code = _code_in(event)
        self._wipe_answer(context)
        option, person = self.answered(context, {**event, "params_input": {}})
        payment, asks_again = None, False
        try:
            with without_retry():
                by = str(person.get("name", "Somebody"))
                if option != SEND:
                    self.skip(by, CANCEL)
                self.log.info("%s chose %s.", by, SEND)
                # The fields are rendered again by now, and the policy may have changed: both are checked again.
                payment = self.payment(context, user_id=str(self.user_id), dry_run=self.is_dry_run)
                return self._send_with(context, payment, code, by)
        except TaskAwaitingInput:
            asks_again = True
            raise
        finally:
            if not asks_again:
                # Wiping had opened the question again, so it may have been answered a second time.
                self._wipe_answer(context)
                self._show_answer(context, option, person, payment)

    def _send_with(self, context: Context, payment: WithdrawalPayment, code: str, by: str) -> Any:
        from airflow_provider_quoine.exchange.errors import QuoineError

        if sent := self.begin(context, payment):
            return self.go_on(context, payment, sent)
        # A dry run leaves nothing in the ledger.
        asked = str(self.body) if self.is_dry_run else payment.asked_about()
        self.refuse_another_question(asked, payment)
        payment.note("answered", by=by, chose=SEND, run_started_by=payment.approvals.started_by)
        if not CODE.fullmatch(code):
            return self._ask_again(context, payment, "That is no authentication code.")
        requested_at = self._state(context).get("requested_at")
        # The code counts as used from here on. If its outcome stays unknown, a later try needs another one.
        if not self.is_dry_run:
            self._keep(context, requested_at=None)
        try:
            return self.send(context, payment, code)
        except QuoineError as error:
            refused = payment.has_sent and _refused_code(error)
            if refused or not payment.has_sent:
                self._keep(context, requested_at=requested_at)
            if refused:
                return self._ask_again(context, payment, refused)
            raise

    def withdrawal_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """
        End with the withdrawal's final state.

        Wiping a code opens the question again. If it is answered while the task waits, Airflow resumes the task with
        that answer: it is wiped, and the task goes on waiting.
        """
        if not isinstance(event, dict) or "chosen_options" not in event:
            return super().withdrawal_complete(context, event)
        _code_in(event)
        self._wipe_answer(context)
        self.log.warning("The question was answered again after the withdrawal was sent; the answer has no effect.")
        with without_retry():
            payment = self.payment(context, user_id=str(self.user_id))
            sent = payment.begin()
            if sent is None:
                raise stop(
                    "The question was answered again, and the withdrawal was not sent before.",
                    next="Clear this task to start again.",
                    details=f"{payment.ledger_order.name} was not sent.",
                )
            waited: dict[str, Any] = self.go_on(context, payment, sent)
            return waited

    def _request_code(self, context: Context, payment: WithdrawalPayment) -> str:
        """Return the sentence about the code for the person."""
        from airflow_provider_quoine.exchange.errors import QuoineError

        state = self._state(context)
        requested_at = state.get("requested_at")
        if requested_at and datetime.now(UTC) - datetime.fromisoformat(requested_at) < self.code_valid_for:
            at = f"{datetime.fromisoformat(requested_at):%Y-%m-%d %H:%M:%S} UTC"
            return f"The exchange was asked for a code at {at}: {as_it_is(state.get('message', ''))}"
        with payment.hook.get_conn(priority=Priority.URGENT) as client:
            slot = client.take_slot()
            # Noted before the request, so that a later try mails no second code if the answer is lost.
            self._keep(context, requested_at=datetime.now(UTC).isoformat(), refused=0)
            try:
                asked = client.request_auth_code(user_id=str(self.user_id), slot=slot)
            except QuoineError as error:
                if not error.may_have_been_carried_out:
                    self._keep(context, requested_at=None)
                    raise
                self.log.warning("Nobody knows whether a code was sent.\n%s", in_lines(str(error)))
                message = "its answer was lost, so look whether a code has come."
            else:
                # The exchange sends no code to a user with an authenticator app (facts, Withdrawals).
                message = asked.message or ("a code was sent." if asked.sent else "none was sent; read it in the app.")
        self._keep(context, message=message)
        return f"The exchange was asked for a code: {as_it_is(message)}"

    def _ask_again(self, context: Context, payment: WithdrawalPayment, reason: str) -> Any:
        refused = int(self._state(context).get("refused", 0)) + 1
        if refused >= self.code_attempts:
            self._keep(context, requested_at=None, refused=0)
            raise stop(
                f"{refused} codes were refused, which is all that may be typed.",
                next="Clear this task to have a new code sent.",
                details=reason,
            )
        self._keep(context, refused=refused)
        self.log.warning("Nothing was sent; asking again (%s of %s). %s", refused + 1, self.code_attempts, reason)
        return self._ask(context, payment, reason)

    def _state(self, context: Context) -> dict[str, Any]:
        state: Any = context["task_state_store"].get(CODE_STATE)
        return state or {}

    def _keep(self, context: Context, **state: Any) -> None:
        """Keep something about the code for the next try; nothing secret, the store is in clear."""
        context["task_state_store"].set(CODE_STATE, {**self._state(context), **state}, retention=NEVER_EXPIRE)

    def _wipe_answer(self, context: Context) -> None:
        """Delete a typed code from Airflow's tables. The question stays as it was asked."""
        # From Airflow 3.4 on, what is put there replaces the question's text.
        asked = self._state(context).get("asked") or {}
        self.subject, self.body = asked.get("subject", self.subject), asked.get("body", self.body)
        self.put_question(context)

    def _show_answer(
        self, context: Context, option: str, person: dict[str, Any], payment: WithdrawalPayment | None
    ) -> None:
        """Leave who chose what, and what became of it, on Airflow's page and in an XCom. Nothing depends on it."""
        by = {name: str(person.get(name) or "") for name in ("id", "name")}
        try:
            became = payment.outcome() if payment else NOT_SENT
            context["ti"].xcom_push(key=ANSWER, value={"chosen": option, "by": by["name"], "outcome": became})
        except Exception as error:  # noqa: BLE001 - whatever it is, the withdrawal's end counts
            self.log.warning("What became of the answer could not be shown: %s: %s", type(error).__name__, error)
            return
        fields = {"Answered by": by["name"], "What became of it": became}
        self.write(context, answer={"chosen": option, "by": by, "fields": fields})


def _code_in(event: dict[str, Any]) -> str:
    """Return the code that a person has typed, masked in the log from now on; empty if there is none."""
    code = str((event.get("params_input") or {}).get(CODE_FIELD) or "").strip()
    if code:
        mask_secret(code)
    return code


def _refused_code(error: QuoineError) -> str:
    """
    Return the exchange's words if they may be about the authentication code, else nothing.

    "Token is invalid" can mean a wrong code or a wrong key (facts, Error bodies), but the key was accepted a moment
    ago, when the code was requested.
    """
    from airflow_provider_quoine.exchange.errors import QuoineRefusedError

    if not isinstance(error, QuoineRefusedError):
        return ""
    words = error.message.lower()
    return (
        f"The exchange says: {error.message}" if error.status == 401 or "token" in words or "auth_code" in words else ""
    )
