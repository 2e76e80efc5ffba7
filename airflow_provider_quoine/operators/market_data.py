"""Operators that read the market streams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException

from airflow_provider_quoine.operators.failures import without_retry
from airflow_provider_quoine.triggers.market_data import QuoineOrderBookTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context


class QuoineOrderBookSnapshotOperator(BaseOperator):
    """
    Take one order book of a pair from the live stream (api-reference II).

    Waits in the triggerer and holds no worker slot. The exchange sends no book on subscription, so this lasts until
    each side has changed once.

    :param pair: currency pair code without separator, such as ``btcjpy``.
    :param depth: rows to keep of each side, best first; all by default (the exchange sends at most 40).
    :param snapshot_timeout: seconds to listen before the task fails.
    :param quoine_conn_id: connection that names the stream.
    :return: ``pair``, ``taken_at``, ``bids`` and ``asks`` (rows ``[price, quantity]``, best first),
        ``bids_received_at``, ``asks_received_at``, ``best_bid``, ``best_ask``, ``mid``, ``spread``, ``crossed``;
        numbers as plain digits in strings, times in ISO 8601 and UTC, None where a side is empty.
    """

    template_fields: Sequence[str] = ("quoine_conn_id", "pair")
    ui_color = "#dcfce7"

    def __init__(
        self,
        *,
        pair: str,
        depth: int | None = None,
        snapshot_timeout: float = 60,
        quoine_conn_id: str = "quoine_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pair = pair
        self.depth = depth
        self.snapshot_timeout = snapshot_timeout
        self.quoine_conn_id = quoine_conn_id

    def execute(self, context: Context) -> None:
        """
        Check the input and go over to the triggerer.

        :raises AirflowFailException: on wrong input, which no retry would mend.
        """
        with without_retry():
            trigger = self._trigger()
        self.defer(trigger=trigger, method_name="execute_complete")

    def _trigger(self) -> QuoineOrderBookTrigger:
        from airflow_provider_quoine.exchange.errors import QuoineInputError
        from airflow_provider_quoine.exchange.market import normalise_pair

        if self.depth is not None and (type(self.depth) is not int or self.depth < 1):
            raise QuoineInputError(
                f"depth is {self.depth!r}: give a whole number above 0, or leave it out for all rows."
            )
        seconds = self.snapshot_timeout
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise QuoineInputError(f"snapshot_timeout is {seconds!r}: give seconds above 0.")
        return QuoineOrderBookTrigger(
            quoine_conn_id=self.quoine_conn_id, pair=normalise_pair(self.pair), timeout=seconds, depth=self.depth
        )

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """
        Return the snapshot.

        :param event: the trigger's.
        :raises AirflowException: if there is none.
        """
        match event:
            case {"status": "success", "snapshot": dict(snapshot)}:
                return snapshot
            case {"status": "timeout" | "error", "message": str(message)}:
                raise AirflowException(message)
            case _:
                raise AirflowException(
                    f"The order-book trigger sent {event!r:.200}, which is no snapshot. Scheduler, triggerer and "
                    "workers must run the same version of airflow-provider-quoine."
                )
