"""Operators that read the market streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.market.schedule import seconds
from airflow_provider_quoine.failures import in_words, without_retry
from airflow_provider_quoine.triggers.events import read_event
from airflow_provider_quoine.triggers.market_data import (
    QuoineExecutionsTrigger,
    QuoineOrderBookTrigger,
    QuoineProductTrigger,
    StreamTrigger,
)

if TYPE_CHECKING:
    from airflow.sdk import Context


class SnapshotOperator(BaseOperator):
    """
    Base of the snapshot operators: they check their input, wait in the triggerer, and return the trigger's result.

    Its arguments are described at :class:`QuoineOrderBookSnapshotOperator`.
    """

    template_fields: Sequence[str] = ("quoine_conn_id", "pair")
    ui_color = "#dcfce7"
    trigger: type[StreamTrigger]
    own: Sequence[str]
    """Arguments of the trigger besides connection, pair and time-out."""

    def __init__(
        self, *, pair: str, snapshot_timeout: float = 60, quoine_conn_id: str = "quoine_default", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.pair = pair
        self.snapshot_timeout = snapshot_timeout
        self.quoine_conn_id = quoine_conn_id

    def execute(self, context: Context) -> None:
        """
        Check the input and defer to the triggerer.

        :raises AirflowFailException: on wrong input, which no retry can correct.
        """
        with without_retry():
            seconds("snapshot_timeout", self.snapshot_timeout)
            pair = Pair(self.pair)
            given = {name: getattr(self, name) for name in self.own}
            trigger = self.trigger(
                quoine_conn_id=self.quoine_conn_id, pair=pair, timeout=self.snapshot_timeout, **given
            )
            trigger.plan()
        self.defer(trigger=trigger, method_name="execute_complete")

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """
        Return the trigger's result.

        :param event: the trigger's event.
        :raises AirflowException: if there is no result.
        """
        with in_words():
            return read_event(event, sender="The stream's trigger").success()


class QuoineOrderBookSnapshotOperator(SnapshotOperator):
    """
    Take one order book of a pair from the live stream (api-reference II).

    Waits in the triggerer and holds no worker slot. The exchange sends no book on subscription, so this lasts until
    each side has changed once.

    :param pair: currency pair code without separator, such as ``btcjpy``.
    :param depth: rows to keep of each side, best first; all by default (the exchange sends at most 40).
    :param on_doubt: how a crossed book is treated: ``mark`` (it says so), ``skip`` waits for the next, ``fail``.
    :param snapshot_timeout: seconds to listen before the task fails.
    :param quoine_conn_id: connection that names the stream.
    :return: ``pair``, ``taken_at``, ``bids`` and ``asks`` (rows ``[price, quantity]``, best first),
        ``bids_received_at``, ``asks_received_at``, ``bids_age``, ``asks_age`` (seconds), ``best_bid``, ``best_ask``,
        ``mid``, ``spread``, ``crossed``, ``stale``, ``reconnects``, ``gap_seconds``, ``unreadable``; numbers as plain
        digits in strings, times in ISO 8601 and UTC, None where a side is empty.
    """

    trigger = QuoineOrderBookTrigger
    own = ("depth", "on_doubt")

    def __init__(self, *, depth: int | None = None, on_doubt: str = "mark", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.depth = depth
        self.on_doubt = on_doubt


class QuoineProductSnapshotOperator(SnapshotOperator):
    """
    Take one ticker of a product from the live stream (api-reference II).

    Waits in the triggerer and holds no worker slot. The exchange sends none on subscription, so this lasts until it
    has changed once. Its other arguments are those of :class:`QuoineOrderBookSnapshotOperator`.

    :param product_id: the exchange's number of the pair's product; may be left out where it is on record.
    :return: ``pair``, ``taken_at``, ``received_at``, ``age`` (seconds), ``stale``, ``reconnects``, ``gap_seconds``,
        ``unreadable``, the fields that the exchange sends (market_ask, last_traded_price, ...), under ``other`` those
        not on record; numbers as plain digits in strings, times in ISO 8601 and UTC.
    """

    trigger = QuoineProductTrigger
    own = ("product_id",)

    def __init__(self, *, product_id: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.product_id = product_id


class QuoineExecutionsSnapshotOperator(SnapshotOperator):
    """
    Take the next executions of a pair from the live stream, every one (api-reference II). Its other arguments are those
    of :class:`QuoineOrderBookSnapshotOperator`.

    :param count: how many.
    :return: ``executions`` (each with ``received_at``, ``connection``, ``id``, ``price``, ``quantity``, ``taker_side``,
        ``created_at``), ``dropped``, ``unreadable`` (a number of messages), ``reconnects``, ``gap_seconds``; numbers as
        plain digits in strings, times in ISO 8601 and UTC. An execution whose data cannot be read stands as it came
        under its own ``unreadable``.
    """

    trigger = QuoineExecutionsTrigger
    own = ("count",)

    def __init__(self, *, count: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = count
