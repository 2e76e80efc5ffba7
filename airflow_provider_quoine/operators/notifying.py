"""Calls Airflow's notifiers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

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
