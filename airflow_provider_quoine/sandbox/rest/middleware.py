"""Middleware of the partner API: records every request, applies the rate limit, and applies faults."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from email.utils import formatdate

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_quoine.sandbox.faults import Fault, endpoint_of
from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.rest.exchange import Exchange, RequestRecord, iso
from airflow_provider_quoine.sandbox.sockets import reset_socket

logger = logging.getLogger(__name__)

_GARBAGE = b'\xff\xfe{"id": <html>'
# Not part of the partner API, so neither counted nor recorded: the page, the controls, and Pusher's HTTP API.
_EXEMPT_PATHS = ("/_sandbox/", "/apps/", "/favicon.ico")


@dataclass
class _BufferedResponse:
    """A complete response that is not sent yet, because a fault may still replace it."""

    status: int = 500
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""


async def _read_body(receive: Receive) -> bytes | None:
    """Read the whole body; return None if the client disconnects first."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _call(app: ASGIApp, scope: Scope, body: bytes) -> _BufferedResponse:
    """Call the endpoint and buffer its response."""
    response = _BufferedResponse()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            response.status, response.headers = message["status"], list(message["headers"])
        else:
            response.body += message.get("body", b"")

    await app(scope, receive, send)
    return response


def _buffered(response: Response) -> _BufferedResponse:
    return _BufferedResponse(status=response.status_code, headers=list(response.raw_headers), body=bytes(response.body))


def _altered(response: _BufferedResponse, fault: Fault) -> _BufferedResponse:
    """Return the response that the fault prescribes, or the given one."""
    if fault.kind == "status":
        return _buffered(Response(fault.body, status_code=fault.status, media_type=fault.content_type))
    if fault.kind == "garbage":
        return _buffered(Response(_GARBAGE, status_code=200, media_type="application/json"))
    return response


async def _wait_for_disconnect(receive: Receive) -> None:
    """Wait until the server has noticed the end of the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


class RequestMiddleware:
    """ASGI middleware around the endpoints of the partner API."""

    def __init__(self, app: ASGIApp, *, exchange: Exchange) -> None:
        self._app = app
        self._exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"] == "/" or scope["path"].startswith(_EXEMPT_PATHS):
            await self._app(scope, receive, send)
            return
        # A client that has reset its connection has no address any more. It most likely called from the sandbox's own.
        client = scope["client"] or scope["server"]
        record = RequestRecord(
            at=iso(self._exchange.now()),
            method=scope["method"],
            path=scope["path"],
            address=client[0],
            endpoint=endpoint_of(scope["method"], scope["path"]),
        )
        self._exchange.requests.append(record)
        scope["state"]["record"] = record
        body = await _read_body(receive)
        if body is None:
            record.reason = "the client disconnected before the end of its request"
            return
        await self._respond(scope, body, record, receive, send)
        fault = f" ({record.fault})" if record.fault else ""
        logger.info("%s %s %s%s", record.method, record.path, record.status, fault)

    async def _respond(self, scope: Scope, body: bytes, record: RequestRecord, receive: Receive, send: Send) -> None:
        try:
            self._exchange.limiter.admit(record.address)
        except Refusal as refusal:
            record.reason = refusal.reason
            await self._send(_buffered(refusal.as_response()), record, send)
            return
        fault = self._exchange.faults.take(record.endpoint, body)
        if fault is None:
            await self._send(await self._carry_out(scope, body, record), record, send)
            return
        record.fault = fault.kind
        response = _BufferedResponse()
        if fault.when == "before":
            await self._exchange.pause(fault.seconds)
        # With "before", only a delay carries the request out at all.
        if fault.when == "after" or fault.kind == "delay":
            response = await self._carry_out(scope, body, record)
        if fault.when == "after":
            await self._exchange.pause(fault.seconds)
        if fault.kind in {"drop_before", "drop_after"}:
            reset_socket(scope["state"]["transport"])
            await _wait_for_disconnect(receive)
            return
        response = _altered(response, fault)
        if fault.kind == "truncated":
            await self._send(response, record, send, upto=len(response.body) // 2)
            scope["state"]["transport"].close()
            await _wait_for_disconnect(receive)
            return
        await self._send(response, record, send)

    async def _carry_out(self, scope: Scope, body: bytes, record: RequestRecord) -> _BufferedResponse:
        response = await _call(self._app, scope, body)
        record.carried_out = response.status < 400
        return response

    async def _send(
        self, response: _BufferedResponse, record: RequestRecord, send: Send, upto: int | None = None
    ) -> None:
        record.status = response.status
        date = formatdate(self._exchange.now(), usegmt=True).encode("ascii")
        headers = [(b"date", date), *response.headers]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        more = upto is not None
        await send({"type": "http.response.body", "body": response.body[:upto], "more_body": more})
