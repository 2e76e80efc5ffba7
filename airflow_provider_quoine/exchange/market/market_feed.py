"""A pair's market from the stream, as a sequence of states: one for every trade, or of the book at most every 0.1 s."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Hashable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from airflow_provider_quoine.exchange.errors import QuoineStreamDataError
from airflow_provider_quoine.exchange.market.channels import (
    EXECUTIONS,
    PRICE_LADDERS,
    executions_channel,
    price_ladder_channel,
)
from airflow_provider_quoine.exchange.market.market_state import MarketData, MarketState
from airflow_provider_quoine.exchange.market.messages import Side, decode_execution, decode_price_ladder, decoding
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.market.top_of_book import TopOfBook

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint, PusherStream, StreamEvent

log = logging.getLogger(__name__)

CONFLATION = 0.1
"""
Seconds in which events are collected into one batch of states. The two sides of a book come as separate events and are
so read together; a busy book has one state in this time.
"""
IDLE_INTERVAL = 1.0
"""Seconds between two states of a quiet book: a silence is noticed by them."""
TRADE_QUEUE_SIZE = 5_000
"""Trades that are queued while the event loop is blocked. Beyond it the oldest are dropped, and counted."""
REOPEN_AFTER = 300.0
"""Seconds without a working stream until the stream is opened again, with the Airflow connection read again."""

States = tuple[MarketState, ...]


class MarketFeed:
    """A pair's book or its trades, from the stream."""

    def __init__(self, *, pair: Pair, data: MarketData) -> None:
        self.pair = pair
        self.data = data
        self._sides = {side: price_ladder_channel(pair, side) for side in Side}
        self._openings = 0
        self._last_heard = time.monotonic()
        self._best_prices: dict[Side, tuple[StreamEvent, Decimal | None]] = {}
        self._dropped = self._missed_trades = self._unreadable_books = self._unreadable_messages = 0
        self._trades_epoch: Hashable = None
        self._unreadable = False

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels to subscribe to."""
        return tuple(self._sides.values()) if self.data is MarketData.BOOK else (executions_channel(self.pair),)

    async def states(self, endpoint: PusherEndpoint) -> AsyncGenerator[States, None]:
        """
        Open the stream and yield states, until the stream has not worked for :data:`REOPEN_AFTER`.

        :return: at least every :data:`IDLE_INTERVAL` one state of the book; or a state for each trade since the last
            time, in their order, and then one without a trade.
        :raises QuoineStreamError: if the server refuses for good.
        """
        from airflow_provider_quoine.exchange.stream.pusher import PusherStream

        queue_size = None if self.data is MarketData.BOOK else TRADE_QUEUE_SIZE
        next_states = self._next_book if self.data is MarketData.BOOK else self._next_trades
        self._openings += 1
        self._dropped = self._unreadable_messages = 0
        worked = time.monotonic()
        async with PusherStream(endpoint=endpoint, channels=self.channels, queue_size=queue_size) as stream:
            while time.monotonic() - worked < REOPEN_AFTER:
                yield await next_states(stream)
                if stream.problem is None:
                    worked = time.monotonic()

    def disconnected_state(self) -> MarketState:
        """Return the state without a stream, in which only the length of the silence is known."""
        return MarketState(
            at=datetime.now(UTC),
            monotonic=time.monotonic(),
            epoch=(self._openings, None),
            last_heard=self._last_heard,
            connected=False,
        )

    async def _next_book(self, stream: PusherStream) -> States:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_INTERVAL):
                await stream.news()
            await asyncio.sleep(CONFLATION)
        async with decoding():
            bid, ask = (self._best_price(stream, side) for side in (Side.BUY, Side.SELL))
        state = MarketState(
            at=datetime.now(UTC),
            monotonic=time.monotonic(),
            epoch=(self._openings, len(stream.gaps), stream.unreadable + self._unreadable_books),
            last_heard=self._last_heard,
            connected=stream.confirmed,
            top=TopOfBook(bid=bid, ask=ask),
        )
        return (state,)

    def _best_price(self, stream: PusherStream, side: Side) -> Decimal | None:
        event = stream.newest(self._sides[side], PRICE_LADDERS.event)
        if event is None:
            return None
        if side not in self._best_prices or self._best_prices[side][0] is not event:
            self._last_heard = time.monotonic()
            self._best_prices[side] = event, self._decode_best_price(event, side)
        return self._best_prices[side][1] if stream.is_current(event) else None

    def _decode_best_price(self, event: StreamEvent, side: Side) -> Decimal | None:
        try:
            prices = [level.price for level in decode_price_ladder(event.data)]
        except QuoineStreamDataError as error:
            self._unreadable_books += 1
            self._warn_unreadable(error)
            return None
        self._unreadable = False
        best = max if side == Side.BUY else min
        return best(prices, default=None)

    async def _next_trades(self, stream: PusherStream) -> States:
        states: list[MarketState] = []
        loop = asyncio.get_running_loop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_INTERVAL) as limit:
                async for event in stream:
                    if not states:
                        limit.reschedule(loop.time() + CONFLATION)
                    states += self._trade_states(event, stream)
        # Time passes for a watcher in a quiet market too.
        now = MarketState(
            at=datetime.now(UTC),
            monotonic=time.monotonic(),
            epoch=self._trades_epoch,
            last_heard=self._last_heard,
            connected=stream.confirmed,
        )
        return (*states, now)

    def _trade_states(self, event: StreamEvent, stream: PusherStream) -> States:
        """Return the state of one trade; none if it cannot be read."""
        if stream.dropped > self._dropped:
            lost, self._dropped = stream.dropped - self._dropped, stream.dropped
            self._missed_trades += lost
            log.warning("%d trades of %s were lost: the queue of %d was full.", lost, self.pair, TRADE_QUEUE_SIZE)
        # Messages that the stream itself cannot read, which it logs.
        self._missed_trades += stream.unreadable - self._unreadable_messages
        self._unreadable_messages = stream.unreadable
        if event.event != EXECUTIONS.event:
            return ()
        try:
            trade = decode_execution(event.data)
        except QuoineStreamDataError as error:
            self._missed_trades += 1
            self._warn_unreadable(error)
            return ()
        self._unreadable = False
        self._last_heard = now = time.monotonic()
        self._trades_epoch = (self._openings, event.connection)
        missed_trades, self._missed_trades = self._missed_trades, 0
        state = MarketState(
            at=event.received_at,
            monotonic=now,
            epoch=self._trades_epoch,
            last_heard=now,
            trade=trade,
            missed_trades=missed_trades,
        )
        return (state,)

    def _warn_unreadable(self, error: QuoineStreamDataError) -> None:
        """Warn once, until data can be read again. The data itself is logged at debug level only."""
        if not self._unreadable:
            log.warning("The stream sends data of %s (%s) that cannot be read; it is skipped.", self.pair, self.data)
        log.debug("%s", error)
        self._unreadable = True
