"""The sandbox as a server on one port: in the foreground, or in a thread of a test."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from types import TracebackType

import uvicorn
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_provider_quoine.sandbox import admin
from airflow_provider_quoine.sandbox.control import SandboxControl
from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.rest import endpoints
from airflow_provider_quoine.sandbox.rest.exchange import Exchange
from airflow_provider_quoine.sandbox.rest.middleware import RequestMiddleware
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from airflow_provider_quoine.sandbox.stream import connection, publishing
from airflow_provider_quoine.sandbox.stream.hub import Hub

#: Seconds that requests have to end in when the server stops.
_GRACE = 5
#: Shared by all servers of a process: FastAPI's ``include_router`` makes every route anew, for 20 ms of processor time.
_ROUTES = [
    route
    for router in (admin.router, endpoints.router, connection.router, publishing.router)
    for route in router.routes
]


class _Protocol(H11Protocol):
    """Passes the transport to each request, so that a fault can reset the connection. ASGI itself offers no way."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


async def _on_refusal(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)  # noqa: S101 - for mypy
    if hasattr(request.state, "record"):
        request.state.record.reason = refusal.reason
    return refusal.as_response()


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - for mypy
    return JSONResponse({"message": error.detail}, status_code=error.status_code)


class ForegroundServer(uvicorn.Server):
    """
    The server; :meth:`run` blocks until it is stopped. The port is bound by the constructor.

    :raises OSError: if the port is in use, or the address does not belong to this machine
    :raises ValueError: if a file to replay is not a raw capture
    """

    def __init__(self, settings: SandboxSettings) -> None:
        self.settings = settings
        self.exchange = Exchange(settings)
        self.hub = Hub(settings=settings, faults=self.exchange.faults)
        self._socket = self._listen(settings.port)
        self.port: int = self._socket.getsockname()[1]
        self._reopening: asyncio.Task[None] | None = None
        super().__init__(
            uvicorn.Config(
                self._build(),
                http=_Protocol,
                ws="websockets-sansio",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                ws_ping_interval=None,
            )
        )

    def _listen(self, port: int) -> socket.socket:
        host = self.settings.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
        # Accepted connections inherit it. asyncio sets it only for sockets that name their protocol; without it, every
        # response's body waits 40 ms for the acknowledgement of its headers.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening

    def _build(self) -> FastAPI:
        app = FastAPI(title="Quoine sandbox", openapi_url=None, redirect_slashes=False, routes=_ROUTES)
        app.state.exchange = self.exchange
        app.state.hub = self.hub
        app.state.close_port = self.close_port
        app.add_exception_handler(Refusal, _on_refusal)
        app.add_exception_handler(HTTPException, _on_http_exception)
        app.add_middleware(RequestMiddleware, exchange=self.exchange)
        return app

    @property
    def url(self) -> str:
        """The base URL."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self.port}"

    def airflow_connection(self) -> str:
        """
        Return the Airflow connection of the vendor, for ``AIRFLOW_CONN_QUOINE_DEFAULT``.

        :return: JSON; contains the vendor's secret
        """
        return json.dumps(
            {
                "conn_type": "quoine",
                "host": self.url,
                "login": self.settings.vendor_id,
                "password": self.settings.vendor_secret,
                "extra": {
                    "pusher_key": self.settings.pusher_key,
                    "pusher_host": self.settings.host,
                    "pusher_port": self.port,
                    "pusher_tls": False,
                    # Any address and amount: there is no money here. For the real exchange, each bound is a number.
                    "withdrawal_addresses": "*",
                    "withdrawal_max": "unlimited",
                    "withdrawal_max_24h": "unlimited",
                    "withdrawal_count_24h": "unlimited",
                    "withdrawal_max_day": "unlimited",
                    "withdrawal_count_day": "unlimited",
                    "withdrawal_link": f"{self.url}/#withdrawal-{{id}}",
                    "request_limit": self.settings.limit,
                    "request_window": self.settings.window,
                },
            }
        )

    def close_port(self, seconds: float) -> int:
        """
        Close the port for some time. Connections of the stream stay open.

        :param seconds: until it is opened again
        :return: number of closed connections of the REST API
        """
        for server in self.servers:
            server.close()
        # A kept-alive connection could still be used although the port is closed.
        kept_alive = [each for each in self.server_state.connections if isinstance(each, _Protocol)]
        for protocol in kept_alive:
            protocol.shutdown()
        self._reopening = asyncio.create_task(self._reopen(seconds))
        return len(kept_alive)

    async def _reopen(self, seconds: float) -> None:
        await self.exchange.pause(seconds)
        self._socket = self._listen(self.port)
        await self.startup(sockets=[self._socket])

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped."""
        super().run(sockets=[self._socket])

    async def main_loop(self) -> None:
        """Wait for the end. uvicorn looks ten times a second, which costs every test that starts a sandbox 0.1 s."""
        while not self.should_exit:  # noqa: ASYNC110 - set by signal handlers and other threads
            await asyncio.sleep(0.01)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """
        End pending waits, the market and the replay, then the server.

        uvicorn's own waits 0.1 s at least, which every test that starts a sandbox waits too.
        """
        self.exchange.stopping.set()
        await self.hub.close()
        if self._reopening is not None:
            await self._reopening
        for server in self.servers:
            server.close()
        self._socket.close()
        under_way = self.server_state
        for protocol in list(under_way.connections):
            protocol.shutdown()
        try:
            async with asyncio.timeout(_GRACE):
                while (under_way.connections or under_way.tasks) and not self.force_exit:  # noqa: ASYNC110 - uvicorn's
                    await asyncio.sleep(0.01)
                for server in self.servers:
                    await server.wait_closed()
        except TimeoutError:
            for task in under_way.tasks:
                task.cancel()


class SandboxServer:
    """
    A sandbox in a thread, for tests: ``with SandboxServer() as sandbox: requests.get(sandbox.url, timeout=5)``.

    :param settings: by default a free port of 127.0.0.1
    """

    def __init__(self, settings: SandboxSettings | None = None) -> None:
        self._server = ForegroundServer(settings or SandboxSettings())
        #: The state. Change it before the server starts only: afterwards it belongs to the server's thread.
        self.exchange = self._server.exchange
        self._thread = threading.Thread(target=self._server.run, name="quoine-sandbox", daemon=True)
        self.settings = self._server.settings
        self.url = self._server.url
        self.port = self._server.port
        self.pusher_key = self.settings.pusher_key
        self.pusher_app_id = self.settings.pusher_app_id
        self.pusher_secret = self.settings.pusher_secret
        self.vendor_id = self.settings.vendor_id
        self.vendor_secret = self.settings.vendor_secret
        self.control = SandboxControl(self.url)
        self.airflow_connection = self._server.airflow_connection

    def __enter__(self) -> SandboxServer:
        # The socket already listens, so early connections wait in its backlog.
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=30)
        if self._thread.is_alive():
            raise RuntimeError("The sandbox did not stop within 30 s")
