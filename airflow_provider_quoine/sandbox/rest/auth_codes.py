"""Authentication codes: each valid once and for a limited time, kept so that a test can read them."""

from __future__ import annotations

import hmac
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.settings import Clock

#: The exchange's responses to a request for a code, by delivery (facts, Withdrawals).
CODE_RESPONSES: dict[str, dict[str, Any]] = {
    "email": {"message": "Email token was sent", "email_sent": True},
    "sms": {"message": "SMS token was sent"},
    "app": {"message": "Token was ignored: the user has an authenticator app", "ignored": True},
}


@dataclass(frozen=True)
class AuthCode:
    """
    A code that a user was sent.

    :param via: ``email`` or ``sms``; ``app`` if nothing was sent and the user reads the code in an authenticator app
    :param sent_at: Unix seconds
    """

    user_id: int
    via: str
    code: str = field(repr=False)
    sent_at: float


class AuthCodes:
    """
    All codes that were sent, and which of them are still valid.

    :param lifetime: seconds for which a code is valid
    """

    def __init__(self, *, digits: int, lifetime: float, clock: Clock) -> None:
        self._digits = digits
        self._lifetime = lifetime
        self._clock = clock
        self._valid: dict[int, AuthCode] = {}
        self.sent: list[AuthCode] = []

    def send(self, user_id: int, via: str) -> dict[str, Any]:
        """
        Send a code to a user and return the response. The user's previous code is no longer valid (decisions, Sandbox).

        :param via: a key of :data:`CODE_RESPONSES`
        """
        code = str(secrets.randbelow(10**self._digits)).zfill(self._digits)
        sent = AuthCode(user_id=user_id, via=via, code=code, sent_at=self._clock())
        self.sent.append(sent)
        self._valid[user_id] = sent
        return CODE_RESPONSES[via]

    def consume(self, user_id: int, code: str) -> None:
        """
        Use a code up. It stays used up if the withdrawal is refused afterwards (decisions, Sandbox).

        :raises Refusal: 422 if it is wrong, used up or expired; the exchange words it as for a bad key (facts,
            Withdrawals)
        """
        sent = self._valid.get(user_id)
        matches = sent is not None and hmac.compare_digest(sent.code.encode(), code.encode())
        if sent is None or not matches or self._clock() - sent.sent_at >= self._lifetime:
            raise Refusal(422, {"message": "Token is invalid"}, reason="auth_code is wrong, used up or expired")
        del self._valid[user_id]

    def counts(self) -> dict[str, int]:
        """Count the codes by delivery."""
        deliveries = Counter(code.via for code in self.sent)
        return {via: deliveries[via] for via in CODE_RESPONSES}
