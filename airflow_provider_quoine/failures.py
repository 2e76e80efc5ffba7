"""Failures that Airflow must not retry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowFailException


@contextmanager
def without_retry() -> Iterator[None]:
    """
    Fail without a retry if the same request would be refused again.

    Wrong input, the exchange's refusals and the ledger's need a person, who corrects them and clears the task. A
    request limit and a failed connection are transient: they keep their error, and Airflow retries.
    """
    from airflow_provider_quoine.exchange.errors import QuoineInputError, QuoineRateLimitedError, QuoineRefusedError
    from airflow_provider_quoine.payments.refusals import PaymentError

    try:
        yield
    except QuoineRateLimitedError:
        raise
    except (QuoineInputError, QuoineRefusedError, PaymentError) as error:
        raise AirflowFailException(str(error)) from None
