"""Tests a connection, and explains its faults to the person who filled in the form."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_quoine.exchange.errors import (
    QuoineConnectionError,
    QuoineError,
    QuoineRateLimitedError,
    QuoineRefusedError,
    QuoineResponseError,
    QuoineUnauthorizedError,
)

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.rest.client import QuoineClient

#: The exchange refuses a signed Date that is older (facts, Signing).
DATE_TOLERANCE_SECONDS = 900
#: No user or withdrawal has this id: a look-up of it changes nothing and shows whether the key is accepted.
NOBODY = "0"
#: The exchange's words for a wrong key or signature. A wrong user password gets others (facts, Error bodies).
KEY_REFUSED = ("api authentication failed", "nonce")


def diagnose(client: QuoineClient) -> tuple[bool, str]:
    """
    Test a key with two look-ups that change nothing.

    The reference has no call for a test. A user's own key may look up withdrawals, the vendor's may ask for an
    onboarding status (decisions, Who signs): the key is good if either look-up gets past authentication.

    :return: whether the key is accepted, and a sentence that says so or what to correct.
    """
    look_ups = (
        ("a user's own key", lambda: client.get_withdrawal(withdrawal_id=NOBODY)),
        ("the vendor's key", lambda: client.get_onboarding_status(user_id=NOBODY, password="nobody's")),
    )
    refusal: QuoineError | None = None
    for whose, look_up in look_ups:
        try:
            look_up()
        except QuoineConnectionError as error:
            return False, f"The exchange is not reachable: {error}"
        except QuoineError as error:
            if _gets_past_authentication(error):
                return True, f"The exchange accepts the key as {whose}."
            refusal = error
        else:
            return True, f"The exchange accepts the key as {whose}."
    return False, _explain(refusal)


def _gets_past_authentication(error: QuoineError) -> bool:
    # Any web server refuses a path that it does not know: only the exchange explains it in its own shapes.
    if not isinstance(error, QuoineRefusedError) or not error.explained:
        return False
    if isinstance(error, QuoineUnauthorizedError):
        return not any(known in error.message.casefold() for known in KEY_REFUSED)
    return not isinstance(error, QuoineRateLimitedError)


def _explain(error: QuoineError | None) -> str:
    if not isinstance(error, QuoineUnauthorizedError):
        return f"The exchange answers, but does not say whether the key is good: {error}"
    ahead = _seconds_ahead(error)
    if abs(ahead) > DATE_TOLERANCE_SECONDS:
        return (
            f"This machine's clock is wrong: it is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the "
            f"exchange's, which refuses requests that are more than {DATE_TOLERANCE_SECONDS} s off. Set the clock."
        )
    return (
        f"Wrong key: the exchange says {error.message!r}. Check API id, API secret and signing scheme; the secret is "
        "used as it is, so it must be pasted whole."
    )


def _seconds_ahead(error: QuoineResponseError) -> float:
    if error.server_time is None:
        return 0.0
    return (datetime.now(UTC) - error.server_time).total_seconds()
