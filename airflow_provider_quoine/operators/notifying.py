"""Calls Airflow's notifiers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_quoine.failures import explain
from airflow_provider_quoine.payments.refusals import PaymentInDoubtError

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier, Context

log = logging.getLogger(f"airflow.task.{__name__}")


def notify(notifiers: Sequence[BaseNotifier], context: Context, **more: Any) -> None:
    """
    Call notifiers. What they cannot send is logged: money does not depend on a mail server.

    :param more: names for their templates, beside those of the context.
    """
    for notifier in notifiers:
        try:
            # A notifier renders its templates in place, and may be called again.
            copy.copy(notifier)(cast(Any, {**context, **more}))
        except Exception as error:  # noqa: BLE001 - a notifier is the author's, and may raise anything
            log.warning("%s could not tell anybody: %s: %s", type(notifier).__name__, type(error).__name__, error)


@contextmanager
def telling_of_doubt(notifiers: Sequence[BaseNotifier], context: Context) -> Iterator[None]:
    """Call notifiers if what is done inside ends in an unknown outcome; its lines are their ``exception``."""
    try:
        yield
    except PaymentInDoubtError as error:
        notify(notifiers, context, exception=explain(error))
        raise
