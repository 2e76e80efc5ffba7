"""What a stream tells of a pair, as views of its market: every trade, and the book as often as it is worth a look."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from airflow_provider_quoine.exchange.errors import QuoineStreamDataError
from airflow_provider_quoine.exchange.market.channels import (
    EXECUTIONS,
    PRICE_LADDERS,
    executions_channel,
    normalise_pair,
    price_ladder_channel,
)
from airflow_provider_quoine.exchange.market.conditions import Feed, MarketView
from airflow_provider_quoine.exchange.market.messages import Side, decode_execution, decode_price_ladder

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint, PusherStream, StreamEvent

log = logging.getLogger(__name__)

SETTLE = 0.1
"""
Seconds from the first news to the look at it. A book's two sides come as separate events, and are so looked at
together; and however many events come, there are no more looks than one in this time.
"""
PULSE = 1.0
"""Seconds until the next look without any news: silence is told by time."""
MOST_TRADES = 5_000
"""Trades kept while the event loop is held up; beyond it the oldest are lost, and counted."""
PATIENCE = 300.0
"""Seconds without a working stream until the connection is read anew, in case a person has corrected it."""

Views = tuple[MarketView, ...]


class MarketFeed:
    """
    A pair's book or trades.

    :param pair: currency pair code.
    :param feed: which of the two.
    :raises QuoineInputError: if the pair is none.
    """

    def __init__(self, *, pair: str, feed: Feed) -> None:
        self.pair = normalise_pair(pair)
        self.feed = feed
        self._sides = {side: price_ladder_channel(self.pair, side) for side in Side}
        self._openings = 0
        self._heard = time.monotonic()
        self._best: dict[Side, tuple[StreamEvent, Decimal | None]] = {}
        self._dropped = self._missed = 0
        self._unreadable = False

    @property
    def channels(self) -> tuple[str, ...]:
        """What to subscribe to."""
        return tuple(self._sides.values()) if self.feed == Feed.BOOK else (executions_channel(self.pair),)

    async def views(self, endpoint: PusherEndpoint) -> AsyncGenerator[Views, None]:
        """
        Open the stream and look at it until it has not worked for :data:`PATIENCE`.

        :return: one view of the book at a time, at least every :data:`PULSE`; or all trades that came since the last
            time, in their order.
        :raises QuoineStreamError: refused for good.
        """
        from airflow_provider_quoine.exchange.stream.pusher import PusherStream

        queue_size = None if self.feed == Feed.BOOK else MOST_TRADES
        look = self._look_at_book if self.feed == Feed.BOOK else self._take_trades
        self._openings += 1
        self._dropped = 0
        worked = time.monotonic()
        async with PusherStream(endpoint=endpoint, channels=self.channels, queue_size=queue_size) as stream:
            while time.monotonic() - worked < PATIENCE:
                if views := await look(stream):
                    yield views
                if stream.problem is None:
                    worked = time.monotonic()

    def nothing(self) -> MarketView:
        """Return a view of what can be known without a stream: how long nothing was heard."""
        return MarketView(
            at=datetime.now(UTC),
            clock=time.monotonic(),
            unbroken=(self._openings, None),
            heard=self._heard,
            connected=False,
        )

    async def _look_at_book(self, stream: PusherStream) -> Views:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PULSE):
                await stream.news()
            await asyncio.sleep(SETTLE)
        async with stream.turn():
            best_bid, best_ask = (self._best_price(stream, side) for side in (Side.BUY, Side.SELL))
        view = MarketView(
            at=datetime.now(UTC),
            clock=time.monotonic(),
            unbroken=(self._openings, len(stream.gaps)),
            heard=self._heard,
            connected=stream.confirmed,
            best_bid=best_bid,
            best_ask=best_ask,
        )
        return (view,)

    def _best_price(self, stream: PusherStream, side: Side) -> Decimal | None:
        event = stream.newest(self._sides[side])
        if event is None or event.event != PRICE_LADDERS.event:
            return None
        if side not in self._best or self._best[side][0] is not event:
            self._heard = time.monotonic()
            self._best[side] = event, self._read_best(event, side)
        # What came by an earlier connection may have been overtaken unseen.
        current = stream.confirmed and event.connection == stream.connection
        return self._best[side][1] if current else None

    def _read_best(self, event: StreamEvent, side: Side) -> Decimal | None:
        try:
            prices = [level.price for level in decode_price_ladder(event.data)]
        except QuoineStreamDataError as error:
            self._complain(error)
            return None
        self._unreadable = False
        best = max if side == Side.BUY else min
        return best(prices, default=None)

    async def _take_trades(self, stream: PusherStream) -> Views:
        views: list[MarketView] = []
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PULSE) as patience:
                async for event in stream:
                    if not views:
                        patience.reschedule(loop.time() + SETTLE)
                    views += self._trade_views(event, stream)
        return tuple(views)

    def _trade_views(self, event: StreamEvent, stream: PusherStream) -> Views:
        """Return the view of one trade; none if it cannot be read."""
        if stream.dropped > self._dropped:
            lost, self._dropped = stream.dropped - self._dropped, stream.dropped
            self._missed += lost
            log.warning("%d trades of %s were lost: they came faster than they were taken.", lost, self.pair)
        if event.event != EXECUTIONS.event:
            return ()
        try:
            trade = decode_execution(event.data)
        except QuoineStreamDataError as error:
            self._missed += 1
            self._complain(error)
            return ()
        self._unreadable = False
        now = time.monotonic()
        missed, self._missed = self._missed, 0
        view = MarketView(
            at=event.received_at,
            clock=now,
            unbroken=(self._openings, event.connection),
            heard=now,
            trade=trade,
            missed=missed,
        )
        return (view,)

    def _complain(self, error: QuoineStreamDataError) -> None:
        """Say once that what comes cannot be read, until something can be. What came is for debugging only."""
        if not self._unreadable:
            log.warning("The stream sends a %s of %s that cannot be read; it is passed over.", self.feed, self.pair)
        log.debug("%s", error)
        self._unreadable = True
