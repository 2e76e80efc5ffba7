"""The one connection of an event loop to a stream's server, shared by all who listen there."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from airflow_provider_quoine.exchange.errors import QuoineStreamError, QuoineSubscriptionRefusedError
from airflow_provider_quoine.exchange.stream.feeds import Feeds
from airflow_provider_quoine.exchange.stream.subscriptions import Subscriptions
from airflow_provider_quoine.exchange.stream.supervisor import PusherSupervisor

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.stream.endpoint import PusherEndpoint
    from airflow_provider_quoine.exchange.stream.listener import Share
    from airflow_provider_quoine.exchange.stream.policy import StreamTiming

log = logging.getLogger(__name__)

_Place = tuple[asyncio.AbstractEventLoop, "PusherEndpoint", "StreamTiming"]

_HUBS: dict[_Place, StreamHub] = {}
"""Those that take new shares."""


class StreamHub:
    """
    A connection and its users; the first one makes it, and with the last one it goes.

    :param place: loop, endpoint and timing that its users have in common.
    """

    def __init__(self, place: _Place) -> None:
        loop, endpoint, timing = self._place = place
        self.turns = asyncio.Lock()
        self._shares: dict[Share, None] = {}
        feeds = Feeds(loop)
        self._subscriptions = Subscriptions(timing=timing, feeds=feeds, refuse=self._refuse_channel)
        self.supervisor = PusherSupervisor(
            endpoint=endpoint,
            timing=timing,
            feeds=feeds,
            subscriptions=self._subscriptions,
            on_loss=self._note_loss,
            on_refusal=self._fail,
        )
        self._prepared = self.supervisor.prepare()
        self._running = loop.create_task(self._run(), name="quoine-stream")
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    def at(cls, endpoint: PusherEndpoint, timing: StreamTiming) -> StreamHub:
        """Return the running loop's hub for an endpoint, a new one if there is none."""
        place = (asyncio.get_running_loop(), endpoint, timing)
        hub = _HUBS.get(place)
        if hub is None:
            hub = _HUBS[place] = cls(place)
        return hub

    async def join(self, share: Share) -> None:
        """
        Let a share in, without waiting for a connection.

        :raises QuoineStreamError: if ``ca_path`` cannot be read.
        """
        self._shares[share] = None
        self._subscriptions.add(share)
        try:
            # Waited for, not awaited: one who is cancelled must not cancel it for the others.
            await asyncio.wait({self._prepared})
            self._prepared.result()
        except BaseException:
            await self.leave(share)
            raise

    async def leave(self, share: Share) -> None:
        """Let a share go; after the last one, thread, socket and task are gone on return."""
        self._subscriptions.remove(share)
        del self._shares[share]
        share.fail(QuoineStreamError("The stream was closed by its own user."))
        if not self._shares:
            self._retire()
            # A task of its own, because closing goes on even if this one is cancelled.
            self._closing = asyncio.create_task(self._close(), name="quoine-stream-close")
            await asyncio.wait({self._closing})

    async def _run(self) -> None:
        await asyncio.wait({self._prepared})
        if self._prepared.exception():
            return
        try:
            await self.supervisor.run()
        except QuoineStreamError as error:
            self._fail(error)
        except Exception as error:
            log.exception("The stream from %s failed by a defect of this package.", self.supervisor.where)
            failure = QuoineStreamError(f"The stream failed by a defect of this package: {error!r}.")
            failure.__cause__ = error
            self._fail(failure)

    async def _close(self) -> None:
        self._running.cancel()
        await asyncio.wait({self._running, self._prepared})
        await self.supervisor.close()

    def _retire(self) -> None:
        """Take no new shares: whoever comes now gets a new connection."""
        if _HUBS.get(self._place) is self:
            del _HUBS[self._place]

    def _note_loss(self, since: float, reason: str) -> None:
        for share in self._shares:
            share.note_loss(since, reason)

    def _fail(self, failure: QuoineStreamError) -> None:
        self._retire()
        for share in self._shares:
            self._fail_share(share, failure)

    def _fail_share(self, share: Share, failure: QuoineStreamError) -> None:
        self._subscriptions.remove(share)
        share.fail(failure)

    def _refuse_channel(self, channel: str, words: str) -> None:
        refusal = QuoineSubscriptionRefusedError(
            f"The stream's server at {self.supervisor.where} refuses {channel}: {words}. Check the channel's name and "
            f"that the Pusher key may read it. {QuoineSubscriptionRefusedError.advice}"
        )
        for share in self._subscriptions.shares_of(channel):
            self._fail_share(share, refusal)
