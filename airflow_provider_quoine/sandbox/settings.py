"""The settings of the sandbox exchange."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Literal

Clock = Callable[[], float]
NumberForm = Literal["number", "string"]


def new_api_secret() -> str:
    """
    Make an API secret.

    :return: base64 that ends in ``==``, as in the sample of api-reference 1.2. The text itself is the key (facts,
        Signing), so the signatures of a client that decodes it first are refused.
    """
    return base64.b64encode(secrets.token_bytes(37)).decode("ascii")


def new_pusher_secret() -> str:
    """
    Make a Pusher app secret.

    :return: 20 hexadecimal digits, as in the hosted service
    """
    return secrets.token_hex(10)


@dataclass(frozen=True, kw_only=True)
class SandboxSettings:
    """
    The settings of one sandbox.

    :param host: address to listen on; by default reachable from this machine only
    :param port: port to listen on; 0 takes a free one
    :param vendor_id: api_id of the vendor, whose key signs onboarding (decisions, Who signs)
    :param vendor_secret: the vendor's API secret, at least 32 bytes as RFC 7518 3.2 demands for HS256
    :param pusher_key: app key in the stream's URL
    :param pusher_app_id: app number in the URLs of Pusher's HTTP API
    :param pusher_secret: app secret, which signs requests to that API
    :param pace: seconds per step of a user or a withdrawal; None advances by hand only
    :param limit: requests per ``window`` and client address (api-reference, Rate limit)
    :param window: seconds of the sliding window
    :param date_tolerance: seconds by which a signed ``Date`` may be off (facts, Signing)
    :param code_lifetime: seconds for which an authentication code is valid (decisions, Sandbox: 300)
    :param code_digits: digits of an authentication code (5 in the sample of api-reference 2.1). A test that searches
        logs for leaked codes needs more, since 5 digits also occur by chance
    :param balance: initial balance of every user, in bitcoin
    :param minimum: smallest withdrawal in bitcoin (that there is a minimum is known, its value is not)
    :param market_rate: events per second on every market channel that has a subscriber; 0 is a silent market
    :param seed: seed of the market's random walk
    :param replay: raw captures (JSON Lines, compressed if the name ends in ``.gz``), replayed in place of the market
    :param replay_speed: 2 replays twice as fast as received
    :param replay_delay: seconds from the first subscription to a captured channel to the start of the replay
    :param activity_timeout: seconds of silence after which a client has to ping, and is sent a ping (Pusher protocol 7)
    :param pong_timeout: further seconds before the connection is closed with 4201
    :param withdrawal_amounts: whether a withdrawal's amount is a JSON number or string (facts, Withdrawals)
    :param market_amounts: the same for executions and products (facts, Streams)
    :param clock: the exchange's clock, in Unix seconds
    """

    host: str = "127.0.0.1"
    port: int = 0
    vendor_id: str = "7"
    vendor_secret: str = field(default_factory=new_api_secret, repr=False)
    pusher_key: str = "quoine-sandbox"
    pusher_app_id: str = "1"
    pusher_secret: str = field(default_factory=new_pusher_secret, repr=False)
    pace: float | None = 5.0
    limit: int = 300
    window: float = 300.0
    date_tolerance: float = 900.0
    code_lifetime: float = 300.0
    code_digits: int = 5
    balance: Decimal = Decimal(10)
    minimum: Decimal = Decimal("0.0001")
    market_rate: float = 2.0
    seed: int = 1
    replay: tuple[Path, ...] = ()
    replay_speed: float = 1.0
    replay_delay: float = 1.0
    activity_timeout: int = 120
    pong_timeout: float = 30.0
    withdrawal_amounts: NumberForm = "number"
    market_amounts: NumberForm = "string"
    clock: Clock = time.time

    def __post_init__(self) -> None:
        """Validate the settings. Error messages never contain a secret."""
        if len(self.vendor_secret.encode()) < 32:
            raise ValueError("The vendor secret is too short: give at least 32 bytes (RFC 7518 3.2), or none")
        if not self.vendor_id or not self.pusher_key:
            raise ValueError("The vendor id and the Pusher key must not be empty")
        if not self.pusher_app_id.isdecimal() or not self.pusher_secret:
            raise ValueError("The Pusher app id must be a number, and the Pusher secret must not be empty")
        if not 0 <= self.port <= 65535:
            raise ValueError("The port must be 0 to 65535")
        if self.limit < 1 or self.window <= 0:
            raise ValueError("The limit must be at least 1 and the window longer than 0 seconds")
        if (self.pace is not None and self.pace < 0) or self.market_rate < 0:
            raise ValueError("The pace and the market rate must be 0 or more")
        if not self.replay_speed > 0 or self.replay_delay < 0:
            raise ValueError("The replay's speed must be more than 0, and its delay 0 seconds or more")
        if not 4 <= self.code_digits <= 12:
            raise ValueError("The authentication code must have 4 to 12 digits")
