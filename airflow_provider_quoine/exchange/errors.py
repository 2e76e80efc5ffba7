"""The errors of the exchange, as one tree. Each says whether the request may have been carried out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import ClassVar, Self

DEFAULT_RETRY_AFTER = 300.0
"""Seconds to pause after a 429 that names none (facts, Error bodies)."""


class QuoineError(Exception):
    """
    Base of all errors of the exchange.

    ``str(error)`` tells the person on call what happened, whether anything may have been done at the exchange, and what
    to do next. It never holds a secret.
    """

    may_have_been_carried_out: bool = False
    """Whether the exchange may have done what was asked. If True, no program sends a write again."""

    only_reads: bool = False
    """Whether the request that failed only reads, so that nothing can have been changed at the exchange."""

    advice: ClassVar[str] = "Nothing was done at the exchange."
    """What to do next: the end of a failed write's message."""


class QuoineInputError(QuoineError, ValueError):
    """The input is wrong. It was refused here, and nothing was sent."""


class QuoineFormError(QuoineInputError):
    """
    The onboarding form is wrong.

    :param text: the whole message.
    :param faults: field → what is wrong with it, with the field's name in it.
    """

    def __init__(self, text: str, *, faults: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(text)
        self.faults = faults

    @classmethod
    def of(cls, faults: Mapping[str, str]) -> Self:
        """Make the error of some faults, each on a line."""
        lines = [f"{words}." for words in faults.values()]
        return cls("\n".join(["The onboarding form was not sent:", *lines]), faults=faults)


class QuoineBudgetError(QuoineError):
    """No slot of the request budget was free in time; nothing was sent."""


class QuoineConnectionError(QuoineError):
    """No connection: name not resolved, refused, connect time-out, TLS handshake, proxy refusal. Nothing was sent."""

    advice = (
        "Nothing was sent, so nothing was done at the exchange. Check host, proxy, firewall and certificate, "
        "then try again."
    )


class QuoineAnswerLostError(QuoineError):
    """The request was sent at least in part, and no whole answer came: time-out, reset, an answer cut short."""

    may_have_been_carried_out = True
    advice = (
        "The exchange may have carried it out. Look it up at the exchange before anything is done again; "
        "do not simply repeat it."
    )


class QuoineResponseError(QuoineError):
    """
    An answer that is no success, from the exchange or from something in front of it.

    :param text: the whole message for the person on call.
    :param status: HTTP status of the answer.
    :param message: the server's own words, scrubbed of secrets; empty if it had none.
    :param body: excerpt of the body, scrubbed of secrets; empty if it must not be quoted.
    :param server_time: the answer's ``Date``, aware, UTC; None if it had none that can be read.
    :param retry_after: with 429, seconds to wait before any further request: from Retry-After, else from the words,
        else :data:`DEFAULT_RETRY_AFTER`.
    :param explained: whether the body is JSON in a shape of the exchange's refusals (facts, Error bodies).
    """

    def __init__(
        self,
        text: str,
        *,
        status: int,
        message: str,
        body: str,
        server_time: datetime | None = None,
        retry_after: float | None = None,
        explained: bool = False,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.message = message
        self.body = body
        self.server_time = server_time
        self.retry_after = retry_after
        self.explained = explained


class QuoineRefusedError(QuoineResponseError):
    """
    The exchange refused, so the request was not carried out.

    An answer to a write counts as a refusal only if its shape is on record (``exchange/rest/refusals.py``).
    """

    advice = "The exchange refused, so nothing was done. Correct what it names, then try again."


class QuoineUnauthorizedError(QuoineRefusedError):
    """
    401: wrong key, wrong signature, too old a Date, used nonce, wrong password or wrong authentication code.

    The exchange uses the same words, such as "Token is invalid", for several of these (facts, Error bodies).
    """

    advice = (
        "The exchange refused, so nothing was done. Check API id and secret, the signing scheme, this "
        "machine's clock and, where the call takes one, the user's password or the authentication code."
    )


class QuoineNotFoundError(QuoineRefusedError):
    """404: no such withdrawal or user under this key, or a wrong base URL."""

    advice = "The exchange refused, so nothing was done. Check the id, whose key signs, and the base URL."


class QuoineRateLimitedError(QuoineRefusedError):
    """429: more than 300 requests in 5 minutes (api-reference, Introduction; counted per address, facts, Limits)."""

    retry_after: float
    advice = "The request limit is used up, so nothing was done. Wait the time named, then try again."


class QuoineServerError(QuoineResponseError):
    """5xx, 3xx, and all other answers that may be something else than a refusal. It may have been carried out."""

    may_have_been_carried_out = True
    advice = QuoineAnswerLostError.advice


class QuoineServiceUnavailableError(QuoineServerError):
    """
    503: no codes can be sent at present, the key may not make this call, or the usage limit is reached.

    The reference has one status for all three (api-reference, Introduction): a person has to read the words.
    """


class QuoineUnreadableAnswerError(QuoineResponseError):
    """2xx with a body that is malformed or incomplete. It was very likely carried out."""

    may_have_been_carried_out = True
    advice = (
        "The exchange said yes, so it was very likely carried out. Look it up at the exchange; do not simply repeat it."
    )


STATUS_ERRORS: dict[int, type[QuoineResponseError]] = {
    400: QuoineRefusedError,
    401: QuoineUnauthorizedError,
    403: QuoineRefusedError,
    404: QuoineNotFoundError,
    405: QuoineRefusedError,
    411: QuoineRefusedError,
    413: QuoineRefusedError,
    414: QuoineRefusedError,
    415: QuoineRefusedError,
    422: QuoineRefusedError,
    429: QuoineRateLimitedError,
    431: QuoineRefusedError,
    503: QuoineServiceUnavailableError,
}
"""
The error of each status: for a read, and for a write if the answer's shape is on record (decisions, Doubt). Every other
status, 408, 409 and 499 among them, is a :class:`QuoineServerError`.
"""


class QuoineStreamError(QuoineError):
    """A market stream has ended for good. A lost connection is no error: it is made again."""

    advice = "A stream only reads: nothing was done at the exchange."


class QuoineStreamRefusedError(QuoineStreamError):
    """The stream's server refused for good: Pusher codes 4000-4099 (wrong key, no such app, TLS required, ...)."""


class QuoineSubscriptionRefusedError(QuoineStreamError):
    """The stream's server refused a channel."""


class QuoineStreamDataError(QuoineStreamError, ValueError):
    """An event's data is malformed. The stream goes on."""
