"""What the sensors share: poke, reschedule and deferrable waits with one outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseSensorOperator, PokeReturnValue, conf
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_quoine.waiting.status_queries import Look, Progress, look_from_event, look_once, say

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_quoine.triggers.polling import QuoineOnboardingStatusTrigger, QuoineWithdrawalTrigger
    from airflow_provider_quoine.waiting.status_queries import OnboardingStatusWatch, WithdrawalWatch


class QuoineWaitSensor(BaseSensorOperator):
    """
    Wait until the exchange says how something ended.

    A failing end is never retried, since looking again would not change it. A refusal (wrong key, no such id)
    fails the task in every mode; ``soft_fail`` turns a failing end and a time-out into skipped.

    :param deferrable: wait in the triggerer and hold no worker slot. ``exponential_backoff``, ``max_wait`` and
        ``silent_fail`` have no effect then.
    :param poke_interval: seconds between two looks, 60 by default. The exchange allows 300 requests in 5
        minutes for all waits together (api-reference, Introduction).
    """

    trigger_type: ClassVar[type[QuoineOnboardingStatusTrigger | QuoineWithdrawalTrigger]]
    template_fields: Sequence[str] = ("quoine_conn_id",)
    ui_color = "#dbeafe"

    def __init__(
        self,
        *,
        quoine_conn_id: str = "quoine_default",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.quoine_conn_id = quoine_conn_id
        self.deferrable = deferrable
        self._last_state = ""

    def get_watch(self) -> OnboardingStatusWatch | WithdrawalWatch:
        """Return what to look at, from the rendered fields."""
        raise NotImplementedError

    def conclude(self, look: Look) -> PokeReturnValue:
        """
        Turn a look into a sensor's answer.

        :raises AirflowFailException: if the end is a failing one.
        """
        if look.progress == Progress.FAILED:
            raise AirflowFailException(self.failure_message(look))
        return PokeReturnValue(is_done=look.progress == Progress.DONE, xcom_value=self.result(look))

    def failure_message(self, look: Look) -> str:
        """Say what ended badly and what a person can do."""
        raise NotImplementedError

    def result(self, look: Look) -> Any:
        """Return what goes to XCom when the wait ended well."""
        raise NotImplementedError

    def needs_own_look(self, look: Look) -> bool:
        """Whether an end seen by the trigger must be looked at from here, for what no event may carry."""
        return False

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once, and log what was seen where it is news to this task's log."""
        watch = self.get_watch()
        look = look_once(watch)
        if look.problem or look.state != self._last_state:
            say(watch, look)
        self._last_state = look.state
        return self.conclude(look)

    def execute(self, context: Context) -> Any:
        """Wait in the mode that was chosen; a deferrable sensor looks once before it defers."""
        return self._wait_deferred(context) if self.deferrable else super().execute(context)

    def _wait_deferred(self, context: Context) -> Any:
        poked = self._as_poke_mode_ends(partial(self.poke, context))
        if poked.is_done:
            return poked.xcom_value
        watch = self.get_watch()
        self.defer(
            trigger=self.trigger_type(poke_interval=self.poke_interval, **vars(watch)),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )
        return None

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """
        Go on with what the trigger saw.

        :raises AirflowException: on a refusal by the exchange, or an event that is not understood.
        """
        look = look_from_event(event)
        if self.needs_own_look(look):
            return self.execute(context)
        return self._as_poke_mode_ends(partial(self.conclude, look)).xcom_value

    def _as_poke_mode_ends(self, check: Callable[[], PokeReturnValue]) -> PokeReturnValue:
        try:
            return check()
        except AirflowFailException as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(f"Skipped instead of failed: {error}") from error
            raise
        except AirflowSkipException:
            raise
        except Exception as error:
            if self.never_fail:
                raise AirflowSkipException(f"Skipped instead of failed: {error}") from error
            raise
