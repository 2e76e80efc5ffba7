"""The outbox: authentication codes as the person gets them, each right once and for a while."""

from __future__ import annotations

import hmac
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_quoine.sandbox.refusals import Refusal
from airflow_provider_quoine.sandbox.settings import Clock

#: What the exchange answers to a request for a code, by the way it goes (facts, Withdrawals).
CODE_ANSWERS: dict[str, dict[str, Any]] = {
    "email": {"message": "Email token was sent", "email_sent": True},
    "sms": {"message": "SMS token was sent"},
    "app": {"message": "Token was ignored: the user has an authenticator app", "ignored": True},
}


@dataclass(frozen=True)
class Message:
    """
    A code on its way to a person.

    :param user_id: whose
    :param by: email or sms; app when nothing was sent, and the person reads the code in an authenticator app
    :param code: the code
    :param sent_at: Unix seconds
    """

    user_id: int
    by: str
    code: str = field(repr=False)
    sent_at: float


class Outbox:
    """
    All messages, and which codes are still right.

    :param digits: length of a code
    :param lifetime: seconds for which a code is right
    :param clock: Unix seconds
    """

    def __init__(self, *, digits: int, lifetime: float, clock: Clock) -> None:
        self._digits = digits
        self._lifetime = lifetime
        self._clock = clock
        self._current: dict[int, Message] = {}
        self.messages: list[Message] = []

    def send(self, user_id: int, by: str) -> dict[str, Any]:
        """
        Make a code for a user; the one before is right no more (decided).

        :param user_id: whose
        :param by: a key of :data:`CODE_ANSWERS`
        :return: the exchange's answer
        """
        code = str(secrets.randbelow(10**self._digits)).zfill(self._digits)
        message = Message(user_id=user_id, by=by, code=code, sent_at=self._clock())
        self.messages.append(message)
        self._current[user_id] = message
        return CODE_ANSWERS[by]

    def use(self, user_id: int, code: str) -> None:
        """
        Use a code up. It is used up even if the withdrawal is then refused for another reason (decided).

        :param user_id: whose
        :param code: as typed
        :raises Refusal: 422 with the same words as for a bad key (facts, Withdrawals) when it is wrong, used or old
        """
        message = self._current.get(user_id)
        right = message is not None and hmac.compare_digest(message.code.encode(), code.encode())
        if message is None or not right or self._clock() - message.sent_at >= self._lifetime:
            raise Refusal(422, {"message": "Token is invalid"}, reason="auth_code is wrong, used up or too old")
        del self._current[user_id]

    def counts(self) -> dict[str, int]:
        """Tell how many messages went each way."""
        ways = Counter(message.by for message in self.messages)
        return {by: ways[by] for by in CODE_ANSWERS}
