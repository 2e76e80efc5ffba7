"""Faults on order: what shall go wrong, where, and how often."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: Every endpoint of the reference, as it is written there.
ENDPOINTS = (
    "POST /users/onboarding",
    "POST /users/onboarding_status",
    "GET /users/:user_id/auth_code",
    "POST /btc_withdrawals/",
    "GET /btc_withdrawals/:id",
)
_PATTERNS = tuple((re.compile(re.sub(r":\w+", "[^/]+", endpoint)), endpoint) for endpoint in ENDPOINTS)

When = Literal["before", "after", "now", "handshake", "connect", "subscribe"]


@dataclass(frozen=True)
class Kind:
    """
    A kind of fault.

    :param of: what it can befall: an endpoint (rest), the stream, or the listening socket (port)
    :param whens: when it can strike; the first one is the default
    :param takes: the parameters that it takes beside endpoint, kind, times and when
    :param needs: those of them that have no default
    """

    of: Literal["rest", "stream", "port"]
    whens: tuple[When, ...]
    takes: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()


_STREAM: tuple[When, ...] = ("now", "connect", "subscribe")

#: All kinds of fault by name. "before" and "after" are meant of the work that the request asks for.
KINDS = {
    "refuse": Kind("port", ("now",), frozenset({"seconds"}), frozenset({"seconds"})),
    "delay": Kind("rest", ("before", "after"), frozenset({"seconds"}), frozenset({"seconds"})),
    "drop_before": Kind("rest", ("before",)),
    "drop_after": Kind("rest", ("after",)),
    "status": Kind("rest", ("before", "after"), frozenset({"status", "body", "content_type"}), frozenset({"status"})),
    "garbage": Kind("rest", ("after", "before")),
    "truncated": Kind("rest", ("after",)),
    "close": Kind("stream", _STREAM, frozenset({"code", "abrupt"})),
    "pusher_error": Kind("stream", _STREAM, frozenset({"code", "message", "keep_open"}), frozenset({"message"})),
    "silence": Kind("stream", (*_STREAM, "handshake")),
    "refuse_handshake": Kind("stream", ("handshake",), frozenset({"status"}), frozenset({"status"})),
    "frame": Kind("stream", _STREAM, frozenset({"text"}), frozenset({"text"})),
    "object_data": Kind("stream", ("subscribe", "connect")),
    "delay_subscription": Kind("stream", ("subscribe",), frozenset({"seconds"}), frozenset({"seconds"})),
    "ignore_subscription": Kind("stream", ("subscribe",)),
    "refuse_subscription": Kind("stream", ("subscribe",), frozenset({"internal"})),
}


class Fault(BaseModel):
    """
    One order.

    :param kind: a key of :data:`KINDS`
    :param endpoint: a member of :data:`ENDPOINTS`, or ``stream``; None for the kind that befalls the port
    :param times: how many requests, connections or subscriptions it befalls; with ``now`` it befalls every open
        connection at once
    :param when: when it strikes
    :param request_contains: text that the body of a request must have for an endpoint's fault to befall it, so that a
        fault meets one of many who ask at the same time
    :param seconds: how long the delay or the refusal lasts
    :param status: HTTP status of the answer, or of the refused WebSocket handshake
    :param body: its body
    :param content_type: its media type
    :param code: Pusher error or WebSocket close code; None sends none
    :param message: the Pusher error's words
    :param abrupt: reset the stream's socket, with no closing handshake
    :param keep_open: send a Pusher error's words only, and leave the connection open whatever the code says
    :param text: a frame, sent as it is ahead of what the client waits for
    :param internal: name the event ``pusher_internal:subscription_error``, as some servers do
    """

    model_config = ConfigDict(extra="forbid")

    kind: str
    endpoint: str | None = None
    times: int = Field(default=1, ge=1)
    when: When = "now"
    request_contains: str = ""
    seconds: float = Field(default=0.0, ge=0)
    status: int = Field(default=500, ge=200, le=599)
    body: str = ""
    content_type: str = "text/plain"
    code: int | None = None
    message: str = ""
    abrupt: bool = False
    keep_open: bool = False
    text: str = ""
    internal: bool = False

    @model_validator(mode="before")
    @classmethod
    def _check(cls, order: Any) -> Any:
        if not isinstance(order, dict) or order.get("kind") not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}")
        kind = KINDS[order["kind"]]
        places = {"rest": ENDPOINTS, "stream": ("stream",), "port": (None,)}[kind.of]
        if order.get("endpoint") not in places:
            raise ValueError(f"endpoint of {order['kind']} must be one of {', '.join(map(str, places))}")
        if order.setdefault("when", kind.whens[0]) not in kind.whens:
            raise ValueError(f"when of {order['kind']} must be one of {', '.join(kind.whens)}")
        takes = kind.takes | ({"request_contains"} if kind.of == "rest" else set())
        if not {*order} <= {"kind", "endpoint", "times", "when", *takes} or not kind.needs <= {*order}:
            raise ValueError(f"{order['kind']} takes {sorted(takes)} and needs {sorted(kind.needs)}")
        return order

    @property
    def target(self) -> str:
        """What it waits for: an endpoint, or ``stream`` and the moment, as in ``stream connect``."""
        return f"stream {self.when}" if self.endpoint == "stream" else str(self.endpoint)


def endpoint_of(method: str, path: str) -> str | None:
    """
    Find the endpoint that a request is for.

    :param method: HTTP method
    :param path: path without query
    :return: a member of :data:`ENDPOINTS`, or None
    """
    return next((name for pattern, name in _PATTERNS if pattern.fullmatch(f"{method} {path}")), None)


class Faults:
    """The orders that wait, first in first out."""

    def __init__(self) -> None:
        self.waiting: list[Fault] = []

    def take(self, target: str | None, body: bytes = b"") -> Fault | None:
        """
        Take the first fault that waits for this.

        :param target: see :attr:`Fault.target`
        :param body: of the request
        """
        fits = (fault for fault in self.waiting if fault.target == target and fault.request_contains.encode() in body)
        fault = next(fits, None)
        if fault is not None:
            fault.times -= 1
            if not fault.times:
                self.waiting.remove(fault)
        return fault
