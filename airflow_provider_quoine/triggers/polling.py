"""Deferred waits for an onboarding status or a withdrawal's state."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_quoine.exchange.errors import QuoineError
from airflow_provider_quoine.triggers.loop import spare_the_loop
from airflow_provider_quoine.waiting.poller import wait_for_end
from airflow_provider_quoine.waiting.status_queries import OnboardingStatusWatch, WithdrawalWatch


class _PollingTrigger(BaseTrigger):
    """
    Look every ``poke_interval`` seconds, or as often as the request budget allows, until the wait is over.

    All triggers of a triggerer process and a connection share one poller.

    Its one event is ``{"progress": "done" | "failed", "state": ..., "answer": {...}}`` or ``{"error": words}``;
    it carries ids and states and never a secret, because Airflow logs and stores events in clear.
    """

    watch_type: ClassVar[type[OnboardingStatusWatch | WithdrawalWatch]]

    def __init__(self, *, poke_interval: float, **watch: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.poke_interval = poke_interval
        self.watch = self.watch_type(**watch)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments; Airflow rebuilds the trigger from them in a triggerer."""
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {"poke_interval": self.poke_interval, **dataclasses.asdict(self.watch)}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for a final state or a refusal, then yield the one event."""
        spare_the_loop()
        try:
            seen = await wait_for_end(self.watch, poke_interval=self.poke_interval)
        except (QuoineError, AirflowNotFoundException) as error:
            yield _event(error=str(error))
        else:
            yield _event(progress=str(seen.progress), state=seen.state, answer=seen.answer)


class QuoineWithdrawalTrigger(_PollingTrigger):
    """
    Wait for a withdrawal's final state.

    :param poke_interval: seconds between two looks.
    :param watch: the fields of :class:`~airflow_provider_quoine.waiting.status_queries.WithdrawalWatch`.
    """

    watch_type = WithdrawalWatch


class QuoineOnboardingStatusTrigger(_PollingTrigger):
    """
    Wait for an onboarding user's APPROVED or DECLINED.

    :param poke_interval: seconds between two looks.
    :param watch: the fields of :class:`~airflow_provider_quoine.waiting.status_queries.OnboardingStatusWatch`.
    """

    watch_type = OnboardingStatusWatch


def _event(**payload: Any) -> TriggerEvent:
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]
