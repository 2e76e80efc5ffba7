"""Deferred waits on the market streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.triggers.loop import spare_the_loop

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.order_book import OrderBook
    from airflow_provider_quoine.exchange.pusher import PusherStream


class QuoineOrderBookTrigger(BaseTrigger):
    """
    Listen to both sides of a pair until there is a whole book.

    Its one event is ``{"status": "success", "snapshot": {...}}``, or ``{"status": "timeout" | "error", "message":
    words}``; nothing in it is secret.

    :param quoine_conn_id: connection that names the stream.
    :param pair: currency pair code, such as ``btcjpy``.
    :param timeout: seconds to listen.
    :param depth: rows to keep of each side; None keeps all.
    """

    def __init__(self, *, quoine_conn_id: str, pair: str, timeout: float, depth: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.quoine_conn_id = quoine_conn_id
        self.pair = pair
        self.timeout = timeout
        self.depth = depth

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments; Airflow rebuilds the trigger from them in a triggerer."""
        arguments = ("quoine_conn_id", "pair", "timeout", "depth")
        return f"{__name__}.{type(self).__qualname__}", {name: getattr(self, name) for name in arguments}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event. Only name look-up, imports and certificates take long: they run on other threads."""
        spare_the_loop()
        from airflow_provider_quoine.exchange.errors import QuoineError

        try:
            payload = await self._listen()
        except (QuoineError, AirflowException) as error:
            payload = {"status": "error", "message": str(error)}
        yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    async def _listen(self) -> dict[str, Any]:
        from airflow_provider_quoine.exchange.errors import QuoineStreamDataError
        from airflow_provider_quoine.exchange.order_book import OrderBook
        from airflow_provider_quoine.exchange.pusher import PusherStream

        book = OrderBook(pair=self.pair)
        endpoint = await QuoineHook(self.quoine_conn_id).aget_stream_endpoint()
        unreadable = ""
        # The time-out stands inside: closing the stream must not turn a snapshot into a time-out.
        async with PusherStream(endpoint=endpoint, channels=book.channels, queue_size=1000) as stream:
            try:
                async with asyncio.timeout(self.timeout):
                    async for event in stream:
                        book.update(event)
                        if not book.complete:
                            continue
                        try:
                            snapshot = book.snapshot(datetime.now(UTC), depth=self.depth)
                        except QuoineStreamDataError as error:
                            # The next event replaces its whole side.
                            unreadable = str(error)
                        else:
                            return {"status": "success", "snapshot": snapshot.as_dict()}
            except TimeoutError:
                pass
            return {"status": "timeout", "message": self._silence(book, stream, unreadable)}

    def _silence(self, book: OrderBook, stream: PusherStream, unreadable: str) -> str:
        silent = [name for name, side in book.channels.items() if side in book.silent_sides]
        words = [f"No order book of {book.pair} within {self.timeout:g} s on {' and '.join(book.channels)}."]
        if not stream.connections:
            words.append(f"The stream's server was never reached: {stream.problem}.")
        elif stream.problem:
            words.append(f"The connection was made, but in the end there was none: {stream.problem}.")
        if stream.connections and silent:
            words.append(
                f"Nothing came on {' and '.join(silent)}. The exchange sends no book on subscription, so a quiet pair "
                "needs a longer time-out; a misspelt pair gives no error either, only silence."
            )
        return " ".join([*words, unreadable]).strip()
