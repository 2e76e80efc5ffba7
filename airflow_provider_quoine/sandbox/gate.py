"""The way into the exchange: every request is recorded, counted against the limit, and befallen by its fault."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from email.utils import formatdate

from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_quoine.sandbox.exchange import Exchange, Seen, iso
from airflow_provider_quoine.sandbox.faults import Fault, endpoint_of
from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.sockets import reset_socket

logger = logging.getLogger(__name__)

_GARBAGE = b'\xff\xfe{"id": <html>'
# What is not the partner API's is neither counted nor recorded: the page, the controls, and Pusher's HTTP API.
_OUTSIDE = ("/_sandbox/", "/apps/", "/favicon.ico")


@dataclass
class Answer:
    """An answer, held back until it is sure that it goes out."""

    status: int = 500
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""


def refusal_response(refusal: Refusal) -> Response:
    """
    Write a refusal as the exchange does.

    :param refusal: plain text or JSON
    """
    kind = PlainTextResponse if isinstance(refusal.content, str) else JSONResponse
    return kind(refusal.content, status_code=refusal.status)


async def _read_body(receive: Receive) -> bytes | None:
    """Read the whole body; None if the client went away before its end."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _work(app: ASGIApp, scope: Scope, body: bytes) -> Answer:
    """Have the request's work done, and catch the answer."""
    answer = Answer()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status, answer.headers = message["status"], list(message["headers"])
        else:
            answer.body += message.get("body", b"")

    await app(scope, receive, send)
    return answer


def _of(response: Response) -> Answer:
    return Answer(status=response.status_code, headers=list(response.raw_headers), body=bytes(response.body))


def _in_place_of(answer: Answer, fault: Fault) -> Answer:
    """Give the answer that a fault puts in the place of the exchange's."""
    if fault.kind == "status":
        return _of(Response(fault.body, status_code=fault.status, media_type=fault.content_type))
    if fault.kind == "garbage":
        return _of(Response(_GARBAGE, status_code=200, media_type="application/json"))
    return answer


async def _gone(receive: Receive) -> None:
    """Wait until the server has noticed that the connection is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Gate:
    """
    ASGI middleware in front of the exchange's endpoints.

    :param app: the endpoints
    :param exchange: whose state it keeps
    """

    def __init__(self, app: ASGIApp, *, exchange: Exchange) -> None:
        self._app = app
        self._exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in."""
        if scope["type"] != "http" or scope["path"] == "/" or scope["path"].startswith(_OUTSIDE):
            await self._app(scope, receive, send)
            return
        seen = Seen(
            at=iso(self._exchange.now()),
            method=scope["method"],
            path=scope["path"],
            address=scope["client"][0],
            endpoint=endpoint_of(scope["method"], scope["path"]),
        )
        self._exchange.requests.append(seen)
        scope["state"]["seen"] = seen
        body = await _read_body(receive)
        if body is None:
            seen.reason = "the client went away before the end of its request"
            return
        await self._answer(scope, body, seen, receive, send)
        logger.info("%s %s %s%s", seen.method, seen.path, seen.status, f" ({seen.fault})" if seen.fault else "")

    async def _answer(self, scope: Scope, body: bytes, seen: Seen, receive: Receive, send: Send) -> None:
        try:
            self._exchange.limiter.admit(seen.address)
        except Refusal as refusal:
            seen.reason = refusal.reason
            await self._send(_of(refusal_response(refusal)), seen, send)
            return
        fault = self._exchange.faults.take(seen.endpoint, body)
        if fault is None:
            await self._send(await self._carry_out(scope, body, seen), seen, send)
            return
        seen.fault = fault.kind
        answer = Answer()
        if fault.when == "before":
            await self._exchange.pause(fault.seconds)
        # Of the faults that strike before the work, only a delay lets it happen at all.
        if fault.when == "after" or fault.kind == "delay":
            answer = await self._carry_out(scope, body, seen)
        if fault.when == "after":
            await self._exchange.pause(fault.seconds)
        if fault.kind in {"drop_before", "drop_after"}:
            reset_socket(scope["state"]["transport"])
            await _gone(receive)
            return
        answer = _in_place_of(answer, fault)
        if fault.kind == "truncated":
            await self._send(answer, seen, send, upto=len(answer.body) // 2)
            scope["state"]["transport"].close()
            await _gone(receive)
            return
        await self._send(answer, seen, send)

    async def _carry_out(self, scope: Scope, body: bytes, seen: Seen) -> Answer:
        answer = await _work(self._app, scope, body)
        seen.carried_out = answer.status < 400
        return answer

    async def _send(self, answer: Answer, seen: Seen, send: Send, upto: int | None = None) -> None:
        seen.status = answer.status
        date = formatdate(self._exchange.now(), usegmt=True).encode("ascii")
        headers = [(b"date", date), *answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        more = upto is not None
        await send({"type": "http.response.body", "body": answer.body[:upto], "more_body": more})
