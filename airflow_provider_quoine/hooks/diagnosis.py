"""Tests a connection, and explains its faults to the person who filled in the form."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pendulum

from airflow_provider_quoine.exchange.addresses import Network, check_address, decode_address
from airflow_provider_quoine.exchange.amounts import Amount
from airflow_provider_quoine.exchange.errors import (
    QuoineBudgetError,
    QuoineConnectionError,
    QuoineError,
    QuoineInputError,
    QuoineRateLimitedError,
    QuoineRefusedError,
    QuoineResponseError,
    QuoineStreamError,
    QuoineUnauthorizedError,
)
from airflow_provider_quoine.exchange.market.channels import executions_channel
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.hooks.connection import COUNT, UNLIMITED, ConnectionExtras, ConnectionSettings

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.rest.client import QuoineClient
    from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint

#: The exchange refuses a signed Date that is older (facts, Signing).
DATE_TOLERANCE_SECONDS = 900
#: No user or withdrawal has this id: a look-up of it changes nothing and shows whether the key is accepted.
NOBODY = "0"
WHERE = "Check the base URL; if it is right, try again later."
#: The exchange's words for a wrong key or signature. A wrong user password gets others (facts, Error bodies).
KEY_REFUSED = ("api authentication failed", "nonce")
STREAM_PATIENCE = 10.0
"""Seconds to wait until a channel of the market stream is confirmed."""
#: Airflow prints these words as rich markup on the command line, where ``[/x]`` is a fault.
BRACKETS = str.maketrans("[]", "()")
AMOUNTS = ("withdrawal_max", "withdrawal_max_24h", "withdrawal_max_day", "withdrawal_min")
COUNTS = ("withdrawal_count_24h", "withdrawal_count_day")
#: Fields without which no withdrawal is allowed (decisions, Policy).
NEEDED = ("withdrawal_addresses", "withdrawal_max", "withdrawal_max_24h", "withdrawal_max_day", *COUNTS)


def diagnose(settings: ConnectionSettings, *, client: QuoineClient, stranger: QuoineClient) -> tuple[bool, str]:
    """
    Test key, withdrawal policy and market stream. Nothing is changed at the exchange.

    :param client: signs with the key to test.
    :param stranger: signs with a made-up key.
    :return: whether all that is filled in is good, and sentences that say so or what to correct.
    """
    checks = (_key(client, stranger), _policy(settings.extras), _stream(settings))
    words = " ".join(said for _, said in checks)
    return all(fine for fine, _ in checks), words.translate(BRACKETS)


def _key(client: QuoineClient, stranger: QuoineClient) -> tuple[bool, str]:
    """
    Test a key with look-ups.

    The reference has no call for a test. A user's own key may look up withdrawals, the vendor's may ask for an
    onboarding status (decisions, Who signs): the key is good if either look-up gets past authentication, and the same
    look-up with a made-up key does not. Any other server treats both alike.
    """
    look_ups: tuple[tuple[str, Callable[[QuoineClient], object]], ...] = (
        ("a user's own key", lambda client: client.get_withdrawal(withdrawal_id=NOBODY)),
        ("the vendor's key", lambda client: client.get_onboarding_status(user_id=NOBODY, password="nobody's")),
    )
    refusal: QuoineError | None = None
    for whose, look_up in look_ups:
        try:
            look_up(client)
        except QuoineConnectionError as error:
            return False, f"The exchange is not reachable: {error}"
        except (QuoineBudgetError, QuoineRateLimitedError) as error:
            return False, f"The key was not tested: {error}"
        except QuoineError as error:
            if not _gets_past_authentication(error):
                refusal = error
                continue
        try:
            look_up(stranger)
        except QuoineError as error:
            if _refuses_key(error):
                return True, f"The exchange accepts the key as {whose}."
            words = f": {error}"
        else:
            words = ", and answers it as well."
        return False, f"This is not the exchange: the server does not refuse a made-up key{words}"
    return False, _explain(refusal)


def _gets_past_authentication(error: QuoineError) -> bool:
    # Any web server refuses a path that it does not know: only the exchange explains it in its own shapes.
    if not isinstance(error, QuoineRefusedError) or not error.explained:
        return False
    return not (_refuses_key(error) or isinstance(error, QuoineRateLimitedError))


def _refuses_key(error: QuoineError) -> bool:
    if not isinstance(error, QuoineUnauthorizedError):
        return False
    return any(known in error.message.casefold() for known in KEY_REFUSED)


def _explain(error: QuoineError | None) -> str:
    if not isinstance(error, QuoineUnauthorizedError) or not error.message:
        return f"A server answers, but not as the exchange does, so the key was not tested: {error} {WHERE}"
    ahead = _seconds_ahead(error)
    if abs(ahead) > DATE_TOLERANCE_SECONDS:
        return (
            f"This machine's clock is wrong: it is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the "
            f"exchange's, which refuses requests that are more than {DATE_TOLERANCE_SECONDS} s off. Set the clock."
        )
    if not _refuses_key(error):
        return f"A server refuses the key, but not as the exchange does: it says {error.message!r}. {WHERE}"
    return (
        f"Wrong key: the exchange says {error.message!r}. Check API id, API secret and signing scheme; the secret is "
        "used as it is, so it must be pasted whole."
    )


def _seconds_ahead(error: QuoineResponseError) -> float:
    if error.server_time is None:
        return 0.0
    return (datetime.now(UTC) - error.server_time).total_seconds()


def _policy(extras: ConnectionExtras) -> tuple[bool, str]:
    if not any(getattr(extras, name) for name in (*NEEDED, "withdrawal_min")):
        return True, "No withdrawal policy, so no withdrawals."
    problems = "; ".join(_policy_problems(extras))
    if problems:
        return False, f"The withdrawal policy allows nothing until this is corrected: {problems}."
    return True, "The withdrawal policy is complete."


def _policy_problems(extras: ConnectionExtras) -> Iterator[str]:
    """Say of each policy field what a payment would refuse about it."""
    yield from _bound_problems({name: (getattr(extras, name) or "").strip() for name in (*NEEDED, *AMOUNTS)})
    try:
        pendulum.timezone(extras.withdrawal_timezone)
    except (ValueError, OSError):
        zone = extras.withdrawal_timezone[:40]
        yield f"{_label('withdrawal_timezone')}: {zone!r} is no time zone: write a name such as Asia/Tokyo"
    listed = re.split(r"[\s,]+", extras.withdrawal_addresses.strip())
    for number, address in enumerate(listed, start=1):
        if address in ("", "*"):
            continue
        try:
            check_address(decode_address(address), network=Network(extras.bitcoin_network))
        except QuoineInputError as error:
            yield f"{_label('withdrawal_addresses')}, entry {number}: {str(error).rstrip('.')}"


def _bound_problems(bounds: dict[str, str]) -> Iterator[str]:
    for name in NEEDED:
        if not bounds[name]:
            yield f"{_label(name)} is empty, which allows no withdrawal"
    stated = {name: text for name, text in bounds.items() if text and text != UNLIMITED}
    amounts: dict[str, Amount] = {}
    for name in AMOUNTS:
        try:
            if name in stated:
                amounts[name] = Amount(stated[name])
        except QuoineInputError as error:
            yield f"{_label(name)}: {str(error).rstrip('.')}; or write {UNLIMITED}"
    for name in COUNTS:
        if name in stated and not re.fullmatch(COUNT, stated[name]):
            number = f"{stated[name][:40]!r} is no whole number: give plain digits"
            yield f"{_label(name)}: {number}, or write {UNLIMITED} in small letters"
    least = amounts.pop("withdrawal_min", None)
    for name, most in amounts.items():
        if least is not None and least > most:
            yield f"{_label('withdrawal_min')} is {least}, more than the {most} in {_label(name)}"


def _label(name: str) -> str:
    return repr(ConnectionExtras.label_of(name))


def _stream(settings: ConnectionSettings) -> tuple[bool, str]:
    if not settings.extras.pusher_key:
        return True, "No Pusher key, so no market streams."
    endpoint = settings.pusher_endpoint
    if problem := asyncio.run(_listen(endpoint)):
        return False, f"The market stream at {endpoint} does not answer: {problem}"
    return True, "The market stream answers."


async def _listen(endpoint: PusherEndpoint) -> str:
    """Subscribe to a channel; return why it is not confirmed, else nothing."""
    from airflow_provider_quoine.exchange.stream.pusher import PusherStream

    soon = replace(endpoint, timing=replace(endpoint.timing, connect_timeout=STREAM_PATIENCE))
    try:
        async with PusherStream(endpoint=soon, channels=[executions_channel(Pair("btcjpy"))]) as stream:
            try:
                async with asyncio.timeout(STREAM_PATIENCE):
                    while not stream.confirmed:
                        await stream.news()
            except TimeoutError:
                return f"{stream.problem}. Check the fields of the market stream."
    except QuoineStreamError as error:
        return str(error)
    return ""
