"""The real network, with pysher and threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_quoine.exchange.errors import QuoineStreamError

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.stream.endpoint import PusherEndpoint
    from airflow_provider_quoine.exchange.stream.events import OnEnd, OnMessages
    from airflow_provider_quoine.exchange.stream.transport import PusherTransport


class PysherNetwork:
    """
    Makes the connections of one event loop to one endpoint.

    pysher's thread receives. Another one does whatever else may block: it imports pysher, reads certificates, and
    sends.
    """

    def __init__(self, endpoint: PusherEndpoint) -> None:
        self._endpoint = endpoint
        self._worker = ThreadPoolExecutor(1, "quoine-stream-sender")

    def prepare(self) -> asyncio.Future[None]:
        """Begin the slow work that is done once; it fails with QuoineStreamError if ``ca_path`` cannot be read."""
        return asyncio.get_running_loop().run_in_executor(self._worker, self._prepare)

    def _prepare(self) -> None:
        from airflow_provider_quoine.exchange.stream.abortable_socket import tls_context
        from airflow_provider_quoine.exchange.stream.transport import PusherTransport

        path = self._endpoint.ca_path
        try:
            tls = tls_context(path) if self._endpoint.tls else None
        except OSError as error:
            raise QuoineStreamError(
                f"The CA file {path!r} for the stream cannot be used: {error}. Correct its path in the connection."
            ) from error
        self._new_transport = partial(PusherTransport, self._endpoint, worker=self._worker, tls=tls)

    def connect(self, on_messages: OnMessages, on_end: OnEnd) -> PusherTransport:
        """Begin to make a connection, of which ``heard``, ``send`` and ``end`` are used."""
        transport = self._new_transport(on_messages, on_end)
        transport.start()
        return transport

    def close(self) -> None:
        """Clean up, after the last connection has ended."""
        self._worker.shutdown(wait=True)
