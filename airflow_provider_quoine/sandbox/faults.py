"""Fault injection: which faults there are, and those that are pending."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: All endpoints, as the reference writes them.
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

    :param affects: an endpoint (rest), the stream, or the listening socket (port)
    :param when: possible times; the first one is the default
    :param takes: parameters besides endpoint, kind, times and when
    :param needs: those of them that have no default
    """

    affects: Literal["rest", "stream", "port"]
    when: tuple[When, ...]
    takes: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()


_STREAM: tuple[When, ...] = ("now", "connect", "subscribe")

#: All kinds of fault by name. "before" and "after" mean before and after the request is carried out.
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
    A fault to apply.

    :param kind: a key of :data:`KINDS`
    :param endpoint: a member of :data:`ENDPOINTS`, or ``stream``; None for a fault of the port
    :param times: number of requests, connections or subscriptions that it affects; with ``now`` it affects all open
        connections once
    :param when: when it is applied
    :param request_contains: for an endpoint's fault: affect only requests whose body contains this text, so that a test
        can choose one of many concurrent requests
    :param seconds: duration of a delay, or of the time the port is closed
    :param status: HTTP status of the response, or of the refused WebSocket handshake
    :param body: body of the response
    :param content_type: media type of the body
    :param code: code of a Pusher error or a WebSocket close; None sends none
    :param message: text of the Pusher error
    :param abrupt: reset the stream's socket, without a closing handshake
    :param keep_open: leave the connection open after a Pusher error, whatever its code
    :param text: a frame, sent unchanged, before the message that the client waits for
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
    def _check(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("kind") not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}")
        kind = KINDS[given["kind"]]
        endpoints = {"rest": ENDPOINTS, "stream": ("stream",), "port": (None,)}[kind.affects]
        if given.get("endpoint") not in endpoints:
            raise ValueError(f"endpoint of {given['kind']} must be one of {', '.join(map(str, endpoints))}")
        if given.setdefault("when", kind.when[0]) not in kind.when:
            raise ValueError(f"when of {given['kind']} must be one of {', '.join(kind.when)}")
        takes = kind.takes | ({"request_contains"} if kind.affects == "rest" else set())
        if not {*given} <= {"kind", "endpoint", "times", "when", *takes} or not kind.needs <= {*given}:
            raise ValueError(f"{given['kind']} takes {sorted(takes)} and needs {sorted(kind.needs)}")
        return given

    @property
    def target(self) -> str:
        """The target of a pending fault: an endpoint, or ``stream`` and the time, as in ``stream connect``."""
        return f"stream {self.when}" if self.endpoint == "stream" else str(self.endpoint)


def endpoint_of(method: str, path: str) -> str | None:
    """
    Return the endpoint of a request.

    :param method: HTTP method
    :param path: path without query
    :return: a member of :data:`ENDPOINTS`, or None
    """
    return next((name for pattern, name in _PATTERNS if pattern.fullmatch(f"{method} {path}")), None)


class Faults:
    """Faults that are pending, first in, first out."""

    def __init__(self) -> None:
        self.pending: list[Fault] = []

    def take(self, target: str | None, body: bytes = b"") -> Fault | None:
        """
        Take the first pending fault for a target.

        :param target: see :attr:`Fault.target`
        :param body: body of the request
        """
        matching = (
            fault for fault in self.pending if fault.target == target and fault.request_contains.encode() in body
        )
        fault = next(matching, None)
        if fault is not None:
            fault.times -= 1
            if not fault.times:
                self.pending.remove(fault)
        return fault

    def clear(self) -> int:
        """
        Remove all pending faults.

        :return: number of faults removed
        """
        removed = len(self.pending)
        self.pending.clear()
        return removed
