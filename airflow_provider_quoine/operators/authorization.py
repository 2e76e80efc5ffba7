"""An operator that asks a person for the authentication code and withdraws with it, in one task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from airflow.sdk.execution_time.hitl import upsert_hitl_detail
from airflow.sdk.log import mask_secret

from airflow_provider_quoine.exchange.budget.rules import Priority
from airflow_provider_quoine.failures import without_retry
from airflow_provider_quoine.operators.withdrawal_task import WithdrawalTask
from airflow_provider_quoine.payments.withdrawals import check_policy

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_provider_quoine.exchange.errors import QuoineError
    from airflow_provider_quoine.exchange.models import WithdrawalOrder
    from airflow_provider_quoine.payments.records import Entry
    from airflow_provider_quoine.payments.send_once import SendOnce

SEND, CANCEL = "Send", "Cancel"
#: The name of a secret, so that Airflow masks the value wherever it shows parameters by name.
CODE_FIELD = "one_time_token"
CODE = re.compile(r"[0-9A-Za-z-]{4,16}")

BODY = """\
Connection **{connection}** is about to withdraw

- amount: **{amount} BTC**
- address: `{address}`
- for user {user_id}

{request}

A withdrawal cannot be taken back. Compare amount and address, then type the code and choose **{send}**;
**{cancel}** sends nothing. If the exchange refuses the code, this question comes again (at most {attempts} times in
all) and the exchange's words are in the task's log.
"""


class QuoineAuthorizeWithdrawalOperator(WithdrawalTask, HITLOperator):
    """
    Have the exchange send a code, ask a person for it on Airflow's page, and withdraw with it (api-reference 2.1).

    The task holds no worker slot while it waits. The typed code is wiped from Airflow's tables before it is used. It
    is used inside this task and returned nowhere. If the person does not answer in time, the task fails; there is no
    default answer. At most one withdrawal is sent per run and task, whatever is retried or cleared. The other
    parameters are those of :class:`~airflow_provider_quoine.operators.withdrawal_task.WithdrawalTask`.

    :param user_id: the exchange's id of the user, who gets the code.
    :param code_attempts: number of codes that may be typed before the task fails.
    :param code_valid_for: age of an unused code from which a later try requests another one (decisions, Codes: no
        lifetime is on record).
    :param response_timeout: time that the person has.
    :param assigned_users: users who may answer; by default everybody with the permission.
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
            response_timeout=response_timeout,
            **kwargs,
        )
        self.user_id = user_id
        self.code_attempts = code_attempts
        self.code_valid_for = code_valid_for

    def execute(self, context: Context) -> Any:
        """Request a code unless one is on its way, then ask a person for it."""
        once, record, order = self.begin(context)
        if result := self.go_on_if_sent(context, record, order):
            return result
        return self._ask(context, once, record, order)

    def _ask(self, context: Context, once: SendOnce, record: Entry, order: WithdrawalOrder) -> Any:
        with without_retry():
            check_policy(hook=self.hook, order=order)
            self._refuse_another_order(once, record, order)
            request = self._request_code(once, record)
        self.subject = f"Withdraw {order.amount} BTC?"
        self.body = BODY.format(
            connection=self.quoine_conn_id,
            amount=order.amount,
            address=order.address,
            user_id=self.user_id,
            request=request,
            send=SEND,
            cancel=CANCEL,
            attempts=self.code_attempts,
        )
        return HITLOperator.execute(self, context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Take the code, wipe it from Airflow's tables, and send; ask again if the exchange refuses the code."""
        from airflow_provider_quoine.exchange.errors import QuoineError

        code = str((event.get("params_input") or {}).get(CODE_FIELD) or "").strip()
        if code:
            mask_secret(code)
        self._wipe_answer(context)
        self._check_answer(context, {**event, "params_input": {}})
        # The fields are rendered again by now, and the policy may have changed: both are checked again.
        once, record, order = self.begin(context)
        if result := self.go_on_if_sent(context, record, order):
            return result
        self._refuse_another_order(once, record, order)
        if not CODE.fullmatch(code):
            return self._ask_again(context, once, record, order, "That is no authentication code.")
        with without_retry():
            # The code counts as used from here on. If its outcome stays unknown, a later try needs another one.
            if not self.is_dry_run:
                once.note(code_requested_at=None)
            try:
                return self.send(context, once, order, code)
            except QuoineError as error:
                refused = once.has_sent and _refused_code(error)
                if refused or not once.has_sent:
                    once.note(code_requested_at=record.get("code_requested_at"))
                if refused:
                    return self._ask_again(context, once, record, order, refused)
                raise
            finally:
                # Wiping had opened the question again, so it may have been answered a second time.
                self._wipe_answer(context)

    def _refuse_another_order(self, once: SendOnce, record: Entry, order: WithdrawalOrder) -> None:
        """
        Stop if the person was asked about another order.

        Templates are rendered again after the answer. Airflow keeps the text of a task's first question when the
        task asks again, in later tries too.
        """
        asked_for = record.get("asked_for", str(order))
        if asked_for != str(order):
            raise AirflowFailException(
                f"A person was asked about {asked_for}, and now this task is about {order}: a template or the DAG has "
                "changed meanwhile. Nothing was sent. Start a new run."
            )
        once.note(asked_for=str(order))

    def _request_code(self, once: SendOnce, record: Entry) -> str:
        """Return the sentence about the code for the person."""
        from airflow_provider_quoine.exchange.errors import QuoineError

        requested_at = record.get("code_requested_at")
        if requested_at and datetime.now(UTC) - datetime.fromisoformat(requested_at) < self.code_valid_for:
            return f"The exchange was asked for a code at {requested_at}: {record.get('code_message', '')}"
        with self.hook.get_conn(priority=Priority.URGENT) as client:
            slot = client.take_slot()
            # Noted before the request, so that a later try mails no second code if the answer is lost.
            once.note(code_requested_at=datetime.now(UTC).isoformat(), codes_refused=0)
            try:
                asked = client.request_auth_code(user_id=str(self.user_id), slot=slot)
            except QuoineError as error:
                if not error.may_have_been_carried_out:
                    once.note(code_requested_at=None)
                    raise
                self.log.warning("%s", error)
                message = "its answer was lost, so look whether a code has come."
            else:
                # The exchange sends no code to a user with an authenticator app (facts, Withdrawals).
                message = asked.message or ("a code was sent." if asked.sent else "none was sent; read it in the app.")
        once.note(code_message=message)
        return f"The exchange was asked for a code: {message}"

    def _ask_again(self, context: Context, once: SendOnce, record: Entry, order: WithdrawalOrder, reason: str) -> Any:
        refused = int(record.get("codes_refused", 0)) + 1
        if refused >= self.code_attempts:
            once.note(code_requested_at=None, codes_refused=0)
            raise AirflowFailException(
                f"{reason} {refused} codes were refused and nothing was sent. Clear the task to have a new code sent."
            )
        once.note(codes_refused=refused)
        self.log.warning("%s Nothing was sent; asking again (%s of %s).", reason, refused + 1, self.code_attempts)
        return self._ask(context, once, once.begin(order.as_dict()), order)

    def _wipe_answer(self, context: Context) -> None:
        """Delete the typed code from Airflow's tables: to ask again in the same try clears the answer."""
        upsert_hitl_detail(
            ti_id=context["ti"].id,
            options=self.options,
            subject=self.subject,
            body=self.body,
            defaults=self.defaults,
            multiple=self.multiple,
            params=self.serialized_params,
            assigned_users=self.assigned_users,
        )

    def _check_answer(self, context: Context, event: dict[str, Any]) -> None:
        try:
            answer = HITLOperator.execute_complete(self, context, event)
        except HITLTimeoutError:
            raise AirflowFailException(
                f"Nobody answered within {self.response_timeout}, so nothing was sent. Clear the task to ask again."
            ) from None
        by = (answer.get("responded_by_user") or {}).get("name", "Somebody")
        if answer["chosen_options"] != [SEND]:
            raise AirflowSkipException(f"{by} chose {CANCEL}: nothing was sent.")
        self.log.info("%s chose %s.", by, SEND)


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
