"""The sandbox as a server: one process, one port, in the foreground or in a thread of a test."""

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

from airflow_provider_quoine.sandbox import admin, publishing, rest, stream
from airflow_provider_quoine.sandbox.control import SandboxControl
from airflow_provider_quoine.sandbox.exchange import Exchange
from airflow_provider_quoine.sandbox.gate import Gate, refusal_response
from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.settings import SandboxSettings


class _Protocol(H11Protocol):
    """Tells each request its transport, so that a fault can drop the socket: ASGI itself has no way to."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


async def _on_refusal(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)  # noqa: S101 - for mypy
    if hasattr(request.state, "seen"):
        request.state.seen.reason = refusal.reason
    return refusal_response(refusal)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - for mypy
    return JSONResponse({"message": error.detail}, status_code=error.status_code)


class Sandbox(uvicorn.Server):
    """
    The server, bound to its port before it runs.

    :param settings: see :class:`SandboxSettings`
    :raises OSError: when the port is in use, or the address is not this machine's
    """

    def __init__(self, settings: SandboxSettings) -> None:
        self.settings = settings
        self.exchange = Exchange(settings)
        self.stream = stream.Stream(self.exchange)
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
                timeout_graceful_shutdown=5,
            )
        )

    def _listen(self, port: int) -> socket.socket:
        host = self.settings.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=2048)
        # Taken over by each connection. asyncio sets it only where a socket names its protocol, and without it every
        # answer's body waits 40 ms for the acknowledgement of its head.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening

    def _build(self) -> FastAPI:
        app = FastAPI(title="Quoine sandbox", openapi_url=None, redirect_slashes=False)
        app.state.exchange = self.exchange
        app.state.stream = self.stream
        app.state.refuse = self.refuse
        app.include_router(admin.router)
        app.include_router(rest.router)
        app.include_router(stream.router)
        app.include_router(publishing.router)
        app.add_exception_handler(Refusal, _on_refusal)
        app.add_exception_handler(HTTPException, _on_http_exception)
        app.add_middleware(Gate, exchange=self.exchange)
        return app

    @property
    def url(self) -> str:
        """The base URL."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self.port}"

    def airflow_connection(self) -> str:
        """
        Write the Airflow connection of the vendor as JSON, ready for ``AIRFLOW_CONN_QUOINE_DEFAULT``.

        :return: JSON that holds the vendor's secret
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
                    # The money is of no worth here; at the exchange itself, the addresses are named one by one.
                    "withdrawal_addresses": "*",
                    "withdrawal_link": f"{self.url}/?withdrawal={{id}}#withdrawals",
                    "request_limit": self.settings.limit,
                    "request_window": self.settings.window,
                },
            }
        )

    def refuse(self, seconds: float) -> int:
        """
        Close the port for a while; connections of the stream stay.

        :param seconds: until it is open again
        :return: how many connections of the REST API it ended
        """
        for server in self.servers:
            server.close()
        # A kept-alive connection would get past the closed port.
        idle = [connection for connection in self.server_state.connections if isinstance(connection, _Protocol)]
        for connection in idle:
            connection.shutdown()
        self._reopening = asyncio.create_task(self._reopen(seconds))
        return len(idle)

    async def _reopen(self, seconds: float) -> None:
        await self.exchange.pause(seconds)
        self._socket = self._listen(self.port)
        await self.startup(sockets=[self._socket])

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop."""
        super().run(sockets=[self._socket])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is waiting, then the server."""
        self.exchange.stopping.set()
        await self.stream.close()
        if self._reopening is not None:
            await self._reopening
        await super().shutdown(sockets=[self._socket])


class SandboxServer:
    """
    A sandbox in a thread, for tests: ``with SandboxServer() as sandbox: requests.get(sandbox.url, timeout=5)``.

    :param settings: by default a free port of 127.0.0.1
    """

    def __init__(self, settings: SandboxSettings | None = None) -> None:
        self._sandbox = Sandbox(settings or SandboxSettings())
        #: Its state; to be touched before it serves only, since it belongs to the thread that serves.
        self.exchange = self._sandbox.exchange
        self._thread = threading.Thread(target=self._sandbox.run, name="quoine-sandbox", daemon=True)
        self.settings = self._sandbox.settings
        self.url = self._sandbox.url
        self.port = self._sandbox.port
        self.pusher_key = self.settings.pusher_key
        self.pusher_app_id = self.settings.pusher_app_id
        self.pusher_secret = self.settings.pusher_secret
        self.vendor_id = self.settings.vendor_id
        self.vendor_secret = self.settings.vendor_secret
        self.control = SandboxControl(self.url)

    def airflow_connection(self) -> str:
        """Write the vendor's Airflow connection as JSON; see :meth:`Sandbox.airflow_connection`."""
        return self._sandbox.airflow_connection()

    def __enter__(self) -> SandboxServer:
        # The socket listens already: a client that comes before the loop runs just waits for it.
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sandbox.should_exit = True
        self._thread.join(timeout=30)
        if self._thread.is_alive():
            raise RuntimeError("The sandbox did not stop within 30 s")
