"""Failures that Airflow must not retry, and the failure of two versions that run at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException


@contextmanager
def without_retry() -> Iterator[None]:
    """
    Fail without a retry if the same request would be refused again.

    Wrong input and the exchange's refusals need a person, who corrects them and clears the task. A request limit and
    a failed connection are transient: they keep their error, and Airflow retries.
    """
    from airflow_provider_quoine.exchange.errors import QuoineInputError, QuoineRateLimitedError, QuoineRefusedError

    try:
        yield
    except QuoineRateLimitedError:
        raise
    except (QuoineInputError, QuoineRefusedError) as error:
        raise AirflowFailException(str(error)) from None


def unknown_event(event: dict[str, Any] | None, *, sender: str, expected: str) -> AirflowException:
    """
    Return the error for an event that no trigger of this version sends.

    :param sender: the trigger, at the beginning of a sentence.
    :param expected: what the event should have been.
    """
    return AirflowException(
        f"{sender} sent {event!r:.200}, which is no {expected}. Scheduler, triggerer and workers must run the same "
        "version of airflow-provider-quoine."
    )
