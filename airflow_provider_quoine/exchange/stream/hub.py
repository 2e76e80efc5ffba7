"""The one connection of an event loop to a stream's server, shared by all listeners of that loop."""

from __future__ import annotations

import asyncio
import logging

from airflow_provider_quoine.exchange.errors import QuoineStreamError
from airflow_provider_quoine.exchange.stream.channels import Listener
from airflow_provider_quoine.exchange.stream.endpoint import PusherEndpoint
from airflow_provider_quoine.exchange.stream.inboxes import Inboxes
from airflow_provider_quoine.exchange.stream.network import PysherNetwork
from airflow_provider_quoine.exchange.stream.subscriptions import Subscriptions
from airflow_provider_quoine.exchange.stream.supervisor import PusherSupervisor

log = logging.getLogger(__name__)

_OPEN: set[StreamHub] = set()
"""All hubs, each until its thread, socket and task are gone."""


def open_connections() -> int:
    """Count the connections of this process, reached or not, each until its thread, socket and task are gone."""
    return len(_OPEN)


class StreamHub:
    """A connection and its listeners: made for the first one, closed after the last one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, endpoint: PusherEndpoint) -> None:
        self._place = (loop, endpoint)
        self._network: PysherNetwork = (endpoint.network or PysherNetwork)(endpoint)
        self._subscriptions = Subscriptions(endpoint, Inboxes(loop))
        self.supervisor = PusherSupervisor(endpoint, self._network, self._subscriptions)
        self._prepared = self._network.prepare()
        self._running = loop.create_task(self._run(), name="quoine-stream")
        self._joinable = True
        """Whether it takes new listeners; else the next one gets a new connection."""
        _OPEN.add(self)

    @classmethod
    def at(cls, endpoint: PusherEndpoint) -> StreamHub:
        """Return the running loop's hub for an endpoint; make one if there is none."""
        place = (asyncio.get_running_loop(), endpoint)
        # A copy: another thread may open one for its event loop.
        return next((hub for hub in tuple(_OPEN) if hub._joinable and hub._place == place), None) or cls(*place)

    async def join(self, listener: Listener) -> None:
        """Add a listener, without waiting for a connection; raise QuoineStreamError if ``ca_path`` cannot be read."""
        self._subscriptions.add(listener)
        try:
            # A listener that is cancelled must not cancel the preparation for the others.
            await asyncio.shield(self._prepared)
        except BaseException:
            await self.leave(listener)
            raise

    async def leave(self, listener: Listener) -> None:
        """Remove a listener; after the last one, thread, socket and task are gone on return."""
        if self.supervisor.doubt_since and not listener.failure:
            listener.note_loss(self.supervisor.doubt_since, "a ping was not answered yet when the stream was left")
        self._subscriptions.remove(listener)
        listener.fail(QuoineStreamError("The stream was closed by its own user."))
        if not self._subscriptions.inboxes.channels:
            if self._joinable:
                self._joinable = False
                self._running.cancel()
            # It closes all, and goes on even if this task is cancelled.
            await asyncio.wait({self._running})

    async def _run(self) -> None:
        try:
            await asyncio.wait({self._prepared})
            if not self._prepared.exception():
                await self.supervisor.run()
        except QuoineStreamError as error:
            self._subscriptions.fail(error)
        except Exception as error:
            log.exception("The stream from %s failed by a defect of this package.", self.supervisor.endpoint)
            failure = QuoineStreamError(f"The stream failed by a defect of this package: {error!r}.")
            failure.__cause__ = error
            self._subscriptions.fail(failure)
        finally:
            # Here, because the end of the event loop cancels this task and no listener may have left.
            self._joinable = False
            try:
                await asyncio.wait({self._prepared})
                await self.supervisor.close()
            finally:
                try:
                    # Again, because the end of the event loop may have cancelled that too.
                    await self.supervisor.close()
                finally:
                    self._network.close()
                    _OPEN.discard(self)
