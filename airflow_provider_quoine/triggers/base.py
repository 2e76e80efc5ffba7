"""The base of the triggers that end a deferred task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_quoine.exchange.errors import QuoineError
from airflow_provider_quoine.triggers.events import Outcome, Status


class OutcomeTrigger(BaseTrigger):
    """
    A trigger whose events are each an :class:`~airflow_provider_quoine.triggers.events.Outcome`, its failure included.

    Only name look-up, imports, certificates and files take long: they run on other threads.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's has no types

    @abstractmethod
    def stored_arguments(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain JSON."""

    @abstractmethod
    def outcomes(self) -> AsyncIterator[Outcome]:
        """
        Yield what the events say.

        :raises QuoineError: if the trigger cannot go on; its last event then says why.
        :raises AirflowException: likewise.
        """

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments; Airflow rebuilds the trigger from them in a triggerer."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self.stored_arguments()

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the events."""
        try:
            async for outcome in self.outcomes():
                yield outcome.as_event()
        except (QuoineError, AirflowException) as error:
            yield Outcome(status=Status.ERROR, message=str(error)).as_event()
