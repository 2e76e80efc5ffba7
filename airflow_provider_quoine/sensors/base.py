"""The base of the waiting sensors: poke, reschedule and deferrable waits that end alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue, conf
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_provider_quoine.failures import in_words
from airflow_provider_quoine.triggers.polling import read_observation
from airflow_provider_quoine.waiting.status_queries import Observation, Progress, log_observation, run_query

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_quoine.triggers.polling import QuoineOnboardingStatusTrigger, QuoineWithdrawalTrigger


class QuoineWaitSensor(BaseSensorOperator):
    """
    Wait for a final state at the exchange.

    A failing end is never retried, because to ask again would not change it. A refusal (wrong key, no such id)
    fails the task in every mode. ``soft_fail`` turns a failing end and a time-out into skipped.

    :param deferrable: wait in the triggerer and hold no worker slot. ``exponential_backoff``, ``max_wait`` and
        ``silent_fail`` have no effect then.
    :param poke_interval: seconds between two queries, 60 by default. The exchange allows 300 requests in 5
        minutes for all waits together (api-reference, Introduction).
    """

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

    def get_trigger(self) -> QuoineOnboardingStatusTrigger | QuoineWithdrawalTrigger:
        """Return the trigger, whose query all modes run, from the rendered fields."""
        raise NotImplementedError

    def conclude(self, seen: Observation) -> PokeReturnValue:
        """
        Turn an observation into a sensor's answer.

        :raises AirflowFailException: if the end is a failing one.
        """
        if seen.progress == Progress.FAILED:
            raise self.failure(seen)
        return PokeReturnValue(is_done=seen.progress == Progress.DONE, xcom_value=self.result(seen))

    def failure(self, seen: Observation) -> AirflowFailException:
        """Name the failing end, and tell a person what to do next."""
        raise NotImplementedError

    def result(self, seen: Observation) -> Any:
        """Return the XCom of a wait that ended well."""
        raise NotImplementedError

    def see_end(self, context: Context, seen: Observation) -> None:
        """Keep an end, good or bad, where others look for it."""

    def tell(self, context: Context, seen: Observation) -> None:
        """Add the asset event of a wait that ended well."""
        raise NotImplementedError

    def must_query_again(self, seen: Observation) -> bool:
        """Whether an end from an event must be queried again by the task, because no event may carry a secret."""
        return False

    def poke(self, context: Context) -> PokeReturnValue:
        """Run the query once; log a new state and every problem."""
        query = self.get_trigger().query
        seen = run_query(query)
        if seen.problem or seen.state != self._last_state:
            log_observation(query, seen)
        self._last_state = seen.state
        return self._conclude(context, seen)

    def execute(self, context: Context) -> Any:
        """Wait in the chosen mode; a deferrable sensor runs its query once before it defers."""
        with in_words():
            if not self.deferrable:
                return super().execute(context)
            poked = self._end_as_in_poke_mode(partial(self.poke, context))
        if poked.is_done:
            return poked.xcom_value
        timeout = timedelta(seconds=self.timeout)
        return self.defer(trigger=self.get_trigger(), method_name="execute_complete", timeout=timeout)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """
        End with the trigger's observation.

        :raises QuoineError: if the exchange refused.
        :raises QuoineForeignEventError: if no trigger of this version sends such an event.
        """
        with in_words():
            seen = read_observation(event)
            if self.must_query_again(seen):
                return self.execute(context)
            return self._end_as_in_poke_mode(partial(self._conclude, context, seen)).xcom_value

    def _conclude(self, context: Context, seen: Observation) -> PokeReturnValue:
        if seen.progress in {Progress.DONE, Progress.FAILED}:
            self.see_end(context, seen)
        concluded = self.conclude(seen)
        if concluded.is_done:
            self.tell(context, seen)
        return concluded

    def _end_as_in_poke_mode(self, check: Callable[[], PokeReturnValue]) -> PokeReturnValue:
        try:
            return check()
        except AirflowSkipException:
            raise
        except Exception as error:
            if self.never_fail or (self.soft_fail and isinstance(error, AirflowFailException)):
                raise AirflowSkipException(f"Skipped instead of failed: {error}") from error
            raise
