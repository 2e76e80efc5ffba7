"""A small client of the sandbox's controls, for tests and tools; it needs nothing but Python."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any


class SandboxControl:
    """
    Watches and steers a running sandbox.

    Every method raises :class:`RuntimeError` with the answer when the sandbox refuses, and :class:`OSError` when it
    is not there.

    :param url: the sandbox's base URL, such as ``http://127.0.0.1:8799``
    :param timeout: seconds for one call
    """

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError("The sandbox's URL must begin with http:// or https://")
        self._base = f"{url.rstrip('/')}/_sandbox"
        self._timeout = timeout
        # A proxy of the environment has no business between this machine and itself.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _call(self, method: str, path: str, payload: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked above
            f"{self._base}/{path}",
            method=method,
            data=None if payload is None else json.dumps(payload).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                told = error.read().decode("utf-8", "replace")
            raise RuntimeError(f"The sandbox refused {method} {path}: {error.code} {told}") from None

    def state(self, *, requests: int | None = None) -> dict[str, Any]:
        """
        Tell all that the sandbox holds.

        :param requests: how many of the latest requests to tell; None tells all
        """
        answer: dict[str, Any] = self._call("GET", f"state?requests={requests}" if requests else "state")
        return answer

    def outbox(self) -> list[dict[str, Any]]:
        """List the messages with codes, oldest first: ``user_id``, ``by``, ``code``, ``sent_at``."""
        answer: list[dict[str, Any]] = self._call("GET", "outbox")
        return answer

    def latest_code(self, user_id: int | str) -> str:
        """
        Read the newest code in a user's mailbox.

        :param user_id: whose
        :raises LookupError: when none was sent
        """
        codes = [str(message["code"]) for message in self.outbox() if str(message["user_id"]) == str(user_id)]
        if not codes:
            raise LookupError(f"No code was sent to user {user_id}")
        return codes[-1]

    def fault(self, kind: str, endpoint: str | None = None, **parameters: Any) -> dict[str, Any]:
        """
        Order a fault; see :class:`airflow_provider_quoine.sandbox.faults.Fault`.

        :param kind: what goes wrong
        :param endpoint: as the reference writes it (``POST /btc_withdrawals/``), or ``stream``
        :param parameters: times, when, and those that the kind takes
        """
        place = {} if endpoint is None else {"endpoint": endpoint}
        answer: dict[str, Any] = self._call("POST", "faults", {"kind": kind, **place, **parameters})
        return answer

    def clear_faults(self) -> None:
        """Take back all faults that have not struck yet."""
        self._call("DELETE", "faults")

    def set_user(self, user_id: int | str, status: str) -> None:
        """Put a user into a status, on record or not."""
        self._call("POST", f"users/{user_id}/state", {"state": status})

    def approve(self, user_id: int | str) -> None:
        """Approve a user."""
        self.set_user(user_id, "APPROVED")

    def decline(self, user_id: int | str) -> None:
        """Decline a user."""
        self.set_user(user_id, "DECLINED")

    def set_withdrawal(self, withdrawal_id: int | str, state: str) -> None:
        """Put a withdrawal into a state, on record or not."""
        self._call("POST", f"withdrawals/{withdrawal_id}/state", {"state": state})

    def advance_withdrawal(self, withdrawal_id: int | str) -> str:
        """Take a withdrawal's next step, and tell its new state."""
        return str(self._call("POST", f"withdrawals/{withdrawal_id}/advance")["state"])

    def outcome(self, of: str, outcome: str, *, times: int = 1) -> None:
        """
        Order how the next ones end, first in first out.

        :param of: ``user`` (APPROVED, DECLINED), ``withdrawal`` (processed, cancelled, declined, reverted) or
            ``auth_code`` (email, sms, app)
        :param outcome: one of these
        :param times: how many of the next ones
        """
        self._call("POST", "outcomes", {"of": of, "outcome": outcome, "times": times})

    def pace(self, seconds: float | None) -> None:
        """
        Change the pace of all lives.

        :param seconds: per step; None moves lives by hand only
        """
        self._call("POST", "pace", {"seconds": seconds})

    def market_rate(self, per_second: float) -> None:
        """
        Change how fast the market is.

        :param per_second: events per second and channel; 0 is a silent market
        """
        self._call("POST", "market_rate", {"per_second": per_second})

    def replay(self, *, speed: float | None = None) -> int:
        """
        Replay the raw captures that the sandbox was started with, from their beginning and at once.

        :param speed: how many times as fast as they were received; None leaves it as it is set
        :return: how many events they hold
        """
        return int(self._call("POST", "replay", {"speed": speed})["events"])

    def publish(self, channel: str, event: str, data: Any) -> int:
        """
        Publish one exact event.

        :param channel: channel name
        :param event: event name
        :param data: a str goes out as it is, anything else as JSON
        :return: how many subscribers there were
        """
        answer = self._call("POST", "publish", {"channel": channel, "event": event, "data": data})
        return int(answer["subscribers"])

    def reset(self) -> None:
        """Make the sandbox forget everything; open stream connections stay."""
        self._call("POST", "reset")
