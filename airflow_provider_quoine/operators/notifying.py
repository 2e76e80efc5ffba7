"""Calls Airflow's notifiers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_quoine.failures import explain
from airflow_provider_quoine.payments.refusals import (
    LedgerUnusableError,
    PaymentInDoubtError,
    PaymentRefusedError,
    untold,
)
from airflow_provider_quoine.payments.schema import Note
from airflow_provider_quoine.payments.withdrawals import task_name

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier, Context

    from airflow_provider_quoine.payments.ledger import Ledger

log = logging.getLogger(f"airflow.task.{__name__}")


def notify(notifiers: Sequence[BaseNotifier], context: Context, **more: Any) -> bool:
    """
    Call notifiers. What they cannot send is logged: money does not depend on a mail server.

    :param more: names for their templates, beside those of the context.
    :return: whether one of them has told somebody.
    """
    told = False
    for notifier in notifiers:
        try:
            # A notifier renders its templates in place, and may be called again.
            copy.copy(notifier)(cast(Any, {**context, **more}))
            told = True
        except Exception as error:  # noqa: BLE001 - a notifier is the author's, and may raise anything
            log.warning("%s could not tell anybody: %s: %s", type(notifier).__name__, type(error).__name__, error)
    return told


@contextmanager
def telling_of_doubt(notifiers: Sequence[BaseNotifier], context: Context) -> Iterator[None]:
    """
    Call notifiers if what is done inside ends in an unknown outcome; its lines are their ``exception``.

    So it does if an earlier attempt has left one and nobody was told.
    """
    try:
        yield
    except PaymentInDoubtError as error:
        tell_of_doubt(notifiers, context, error)
        raise
    except PaymentRefusedError as error:
        # The task ends with its own error, whatever becomes of this.
        with suppress(LedgerUnusableError):
            if notifiers and error.payment and error.payment in _ledger().untold_doubts():
                tell_of_doubt(notifiers, context, untold(error.payment))
        raise


def tell_of_doubt(notifiers: Sequence[BaseNotifier], context: Context, error: PaymentInDoubtError) -> bool:
    """
    Tell people of an unknown outcome, and then have the ledger know it, so that they are not told again.

    :return: whether somebody was told.
    """
    told = notify(notifiers, context, exception=explain(error))
    if told and error.payment:
        try:
            _ledger().note(error.payment.order, Note.DOUBT_TOLD, actor=task_name(context))
        except Exception as failure:  # noqa: BLE001 - people were told, whatever it is
            log.warning("People may be told again: the ledger did not take that they were told. %s", failure)
    return told


def _ledger() -> Ledger:
    # Its libraries take a while to load, and most tasks need them not.
    from airflow_provider_quoine.payments.configuration import open_ledger

    return open_ledger()
