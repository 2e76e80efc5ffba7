"""A small client of the sandbox's controls, for tests and tools; it uses the standard library only."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any


class SandboxControl:
    """
    Inspects and controls a running sandbox.

    Every method raises :class:`RuntimeError` with the response if the sandbox refuses the call, and :class:`OSError` if
    it cannot be reached.

    :param url: the sandbox's base URL, such as ``http://127.0.0.1:8799``
    :param timeout: seconds for one call
    """

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError("The sandbox's URL must begin with http:// or https://")
        self._base = f"{url.rstrip('/')}/_sandbox"
        self._timeout = timeout
        # The sandbox runs on this machine: a proxy from the environment would be wrong.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _call(self, method: str, path: str, payload: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked above
            f"{self._base}/{path}",
            method=method,
            data=None if payload is None else json.dumps(payload).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode("utf-8", "replace")
            raise RuntimeError(f"The sandbox refused {method} {path}: {error.code} {text}") from None

    def state(self, *, requests: int | None = None) -> dict[str, Any]:
        """
        Return the whole state, without secrets.

        :param requests: how many of the latest requests to include; None includes all
        """
        return dict(self._call("GET", f"state?requests={requests}" if requests else "state"))

    def auth_codes(self) -> list[dict[str, Any]]:
        """List all authentication codes, oldest first: ``user_id``, ``via``, ``code``, ``sent_at``."""
        return list(self._call("GET", "auth_codes"))

    def latest_code(self, user_id: int | str) -> str:
        """Return the newest code of a user. Raises LookupError if none was sent."""
        codes = [str(sent["code"]) for sent in self.auth_codes() if str(sent["user_id"]) == str(user_id)]
        if not codes:
            raise LookupError(f"No code was sent to user {user_id}")
        return codes[-1]

    def fault(self, kind: str, endpoint: str | None = None, **parameters: Any) -> dict[str, Any]:
        """
        Inject a fault; see :class:`airflow_provider_quoine.sandbox.faults.Fault`.

        :param endpoint: as the reference writes it (``POST /btc_withdrawals/``), or ``stream``
        :param parameters: ``times``, ``when``, and the parameters of this kind
        :return: ``{"hit": N}``, the number of connections, for a fault that is applied now; else ``{"pending": N}``
        """
        place = {} if endpoint is None else {"endpoint": endpoint}
        return dict(self._call("POST", "faults", {"kind": kind, **place, **parameters}))

    def clear_faults(self) -> None:
        """Remove all pending faults."""
        self._call("DELETE", "faults")

    def set_user(self, user_id: int | str, status: str) -> None:
        """Set a user's status, documented or not."""
        self._call("POST", f"users/{user_id}/state", {"state": status})

    def approve(self, user_id: int | str) -> None:
        """Approve a user."""
        self.set_user(user_id, "APPROVED")

    def decline(self, user_id: int | str) -> None:
        """Decline a user."""
        self.set_user(user_id, "DECLINED")

    def set_withdrawal(self, withdrawal_id: int | str, state: str) -> None:
        """Set a withdrawal's state, documented or not."""
        self._call("POST", f"withdrawals/{withdrawal_id}/state", {"state": state})

    def advance_withdrawal(self, withdrawal_id: int | str) -> str:
        """Take a withdrawal's next step, and return its new state."""
        return str(self._call("POST", f"withdrawals/{withdrawal_id}/advance")["state"])

    def set_next_outcome(self, subject: str, outcome: str, *, times: int = 1) -> None:
        """
        Set the outcome of the next users, withdrawals or authentication codes. Outcomes are used first in, first out.

        :param subject: ``user`` (APPROVED, DECLINED), ``withdrawal`` (processed, cancelled, declined, reverted) or
            ``auth_code`` (email, sms, app)
        :param outcome: one of these
        :param times: for how many of the next ones
        """
        self._call("POST", "outcomes", {"subject": subject, "outcome": outcome, "times": times})

    def set_pace(self, seconds: float | None) -> None:
        """
        Change the pace of users and withdrawals.

        :param seconds: seconds per step; None advances by hand only
        """
        self._call("POST", "pace", {"seconds": seconds})

    def set_market_rate(self, per_second: float) -> None:
        """
        Change the event rate of the market.

        :param per_second: events per second on each channel that has a subscriber; 0 stops the market
        """
        self._call("POST", "market_rate", {"per_second": per_second})

    def start_replay(self, *, speed: float | None = None) -> int:
        """
        Start the replay of the raw captures now, from the beginning.

        :param speed: 2 replays twice as fast as received; None takes the sandbox's setting
        :return: number of events
        """
        return int(self._call("POST", "replay", {"speed": speed})["events"])

    def publish(self, channel: str, event: str, data: Any) -> int:
        """
        Publish one event.

        :param data: a str is sent unchanged, anything else as JSON
        :return: number of subscribers
        """
        return int(self._call("POST", "publish", {"channel": channel, "event": event, "data": data})["subscribers"])

    def reset(self) -> None:
        """Return to the state after the start. Open stream connections stay."""
        self._call("POST", "reset")
