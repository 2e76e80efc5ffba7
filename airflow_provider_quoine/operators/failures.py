"""Which failures Airflow may retry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowFailException


@contextmanager
def without_retry() -> Iterator[None]:
    """
    Fail at once, whatever the task's retries, where the same request would be refused again.

    Wrong input and the exchange's refusals need a person, who corrects them and clears the task. A request limit
    or a connection that could not be made passes by itself: those keep their error and Airflow's retries.
    """
    from airflow_provider_quoine.exchange.errors import QuoineInputError, QuoineRateLimitedError, QuoineRefusedError

    try:
        yield
    except QuoineRateLimitedError:
        raise
    except (QuoineInputError, QuoineRefusedError) as error:
        raise AirflowFailException(str(error)) from None
