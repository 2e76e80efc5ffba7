"""The exchange's state behind the partner API, and the work of its endpoints."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from airflow_provider_quoine.sandbox.faults import Faults
from airflow_provider_quoine.sandbox.refusals import no_access, not_found, unauthorized
from airflow_provider_quoine.sandbox.rest.auth import Verifier
from airflow_provider_quoine.sandbox.rest.auth_codes import CODE_RESPONSES, AuthCodes
from airflow_provider_quoine.sandbox.rest.lifecycle import Lifecycle
from airflow_provider_quoine.sandbox.rest.limiter import RateLimiter
from airflow_provider_quoine.sandbox.rest.users import USER_PATHS, Document, User, Users
from airflow_provider_quoine.sandbox.rest.withdrawals import (
    WITHDRAWAL_PATHS,
    Withdrawal,
    WithdrawalOrder,
    Withdrawals,
    plain,
)
from airflow_provider_quoine.sandbox.settings import SandboxSettings

#: Possible outcomes for the next user, withdrawal or authentication code. The first one is the default.
OUTCOMES: dict[str, tuple[str, ...]] = {
    "user": tuple(USER_PATHS),
    "withdrawal": tuple(WITHDRAWAL_PATHS),
    "auth_code": tuple(CODE_RESPONSES),
}
#: Resources that have a lifecycle.
ResourceKind = Literal["users", "withdrawals"]

# An e-mail like somebody+declined@example.com sets the outcome with the request itself.
_DECLINED_EMAIL = re.compile(r".*\+declined@.*", re.IGNORECASE)


def iso(seconds: float) -> str:
    """Write a time in UTC, in ISO 8601."""
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat()


@dataclass
class RequestRecord:
    """
    A received request, without its secrets.

    :param at: time of receipt, in UTC
    :param path: path without query
    :param endpoint: the endpoint as the reference writes it; None if it is unknown
    :param api_id: the key that signed, once verified
    :param status: status of the response; None before it is sent, or if the connection was dropped
    :param fault: kind of the fault that was applied
    """

    at: str
    method: str
    path: str
    address: str
    endpoint: str | None
    api_id: str | None = None
    status: int | None = None
    carried_out: bool = False
    fault: str | None = None
    reason: str | None = None


class Exchange:
    """The exchange's state; used in one event loop only."""

    def __init__(self, settings: SandboxSettings) -> None:
        self.settings = settings
        self.stopping = asyncio.Event()
        self.faults = Faults()
        self.reset()

    def reset(self) -> None:
        """Return to the state after the start. Open stream connections are not affected."""
        settings = self.settings
        self.pace = settings.pace
        self.users = Users()
        self.withdrawals = Withdrawals(balance=settings.balance, minimum=settings.minimum)
        self.auth_codes = AuthCodes(digits=settings.code_digits, lifetime=settings.code_lifetime, clock=settings.clock)
        self.limiter = RateLimiter(limit=settings.limit, window=settings.window, clock=settings.clock)
        self.faults.clear()
        self.requests: list[RequestRecord] = []
        self._next_outcomes: dict[str, list[str]] = {subject: [] for subject in OUTCOMES}
        self.verifier = Verifier(
            secret_of=self._secret_of, clock=settings.clock, date_tolerance=settings.date_tolerance
        )

    def now(self) -> float:
        """Return the exchange's time, in Unix seconds."""
        return self.settings.clock()

    async def pause(self, seconds: float) -> None:
        """Wait; ends early when the server stops."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            pass

    def advance_due(self) -> None:
        """Take all due steps of all users and withdrawals."""
        for resource in (*self.users, *self.withdrawals):
            resource.lifecycle.advance_due(now=self.now(), pace=self.pace)

    def set_pace(self, seconds: float | None) -> None:
        """
        Change the pace from now on. Steps that are due at the old pace are taken first.

        :param seconds: seconds per step; None advances by hand only
        """
        self.advance_due()
        self.pace = seconds

    def set_state(self, kind: ResourceKind, number: str, state: str) -> None:
        """
        Set the state of a user or a withdrawal.

        :param state: any state, documented or not
        :raises Refusal: 404
        """
        self._lifecycle_of(kind, number).set_state(state, now=self.now())

    def advance(self, kind: ResourceKind, number: str) -> str:
        """
        Take the next step of a user or a withdrawal, and return its new state.

        :raises Refusal: 404; 409 if no state follows
        """
        lifecycle = self._lifecycle_of(kind, number)
        lifecycle.advance(now=self.now())
        return lifecycle.state

    def _lifecycle_of(self, kind: ResourceKind, number: str) -> Lifecycle:
        self.advance_due()
        return (self.users if kind == "users" else self.withdrawals).get(number).lifecycle

    def set_next_outcome(self, subject: str, outcome: str) -> None:
        """
        Set the outcome of the next user, withdrawal or authentication code. Several are applied first in, first out.

        :param subject: a key of :data:`OUTCOMES`
        """
        self._next_outcomes[subject].append(outcome)

    def _take_outcome(self, subject: str) -> str:
        return self._next_outcomes[subject].pop(0) if self._next_outcomes[subject] else OUTCOMES[subject][0]

    def _secret_of(self, api_id: str) -> str | None:
        if api_id == self.settings.vendor_id:
            return self.settings.vendor_secret
        self.advance_due()
        user = next((user for user in self.users if str(user.user_id) == api_id and user.approved), None)
        return user.api_secret if user else None

    def create_user(self, *, fields: Mapping[str, str], documents: Mapping[str, Document]) -> User:
        """
        Onboard a user (api-reference 1.1).

        :param fields: text parameters by name; an e-mail ``...+declined@...`` leads to DECLINED
        :raises Refusal: 422
        """
        self.users.check(fields=fields, documents=documents)
        end = "DECLINED" if _DECLINED_EMAIL.fullmatch(fields["email"]) else self._take_outcome("user")
        return self.users.create(fields=fields, documents=documents, path=USER_PATHS[end], now=self.now())

    def user_of(self, api_id: str) -> User:
        """
        Return the user who owns a key.

        :raises Refusal: 503 for the vendor's key, which has no access to a user's calls (api-reference, Introduction)
        """
        if api_id == self.settings.vendor_id:
            raise no_access("the vendor's key signed a user's call")
        return self.users.get(api_id)

    def check_vendor(self, api_id: str) -> None:
        """Make sure that the vendor's key signed. Raises Refusal: 503 for a user's key."""
        if api_id != self.settings.vendor_id:
            raise no_access("a user's key signed a vendor's call")

    def send_code(self, user: User, user_id: str) -> dict[str, Any]:
        """
        Send a user a code (api-reference 2.1).

        :return: a response of :data:`CODE_RESPONSES`
        :raises Refusal: 401 if the path names another user than the one who signed
        """
        if user_id != str(user.user_id):
            raise unauthorized()
        return self.auth_codes.send(user.user_id, self._take_outcome("auth_code"))

    def create_withdrawal(self, user: User, payload: Any) -> Withdrawal:
        """
        Create a withdrawal (api-reference 2.1). First the form is checked, then the code is used up, then the rest is
        checked.

        :raises Refusal: 422
        """
        order = WithdrawalOrder.read(payload)
        self.auth_codes.consume(user.user_id, order.auth_code)
        self.advance_due()
        self.withdrawals.check(user_id=user.user_id, order=order)
        path = WITHDRAWAL_PATHS[self._take_outcome("withdrawal")]
        return self.withdrawals.create(user_id=user.user_id, order=order, path=path, now=self.now())

    def withdrawal_of(self, user: User, withdrawal_id: str) -> Withdrawal:
        """Return a user's withdrawal (api-reference 2.2). Raises Refusal: 404, also for another user's withdrawal."""
        self.advance_due()
        withdrawal = self.withdrawals.get(withdrawal_id)
        if withdrawal.user_id != user.user_id:
            raise not_found()
        return withdrawal

    def state(self, *, last_requests: int | None = None) -> dict[str, Any]:
        """
        Describe the whole state, without secrets.

        :param last_requests: how many of the latest requests to include; None includes all
        """
        self.advance_due()
        carried_out = Counter(request.endpoint for request in self.requests if request.carried_out)
        requests = self.requests if last_requests is None else self.requests[-last_requests:]
        return {
            "now": iso(self.now()),
            "pace": self.pace,
            "users": [self._describe_user(user) for user in self.users],
            "withdrawals": [_describe_withdrawal(withdrawal) for withdrawal in self.withdrawals],
            "auth_codes": self.auth_codes.counts(),
            "carried_out": dict(carried_out),
            "requests": [asdict(request) for request in requests],
            "rate_limit": self.limiter.stats(),
            "faults": [fault.model_dump() for fault in self.faults.pending],
        }

    def _describe_user(self, user: User) -> dict[str, Any]:
        return {
            "user_id": user.user_id,
            "status": user.lifecycle.state,
            **user.fields,
            "documents": {name: asdict(document) for name, document in user.documents.items()},
            "balance": plain(self.withdrawals.balance_of(user.user_id)),
            "created_at": iso(user.created_at),
            "remaining": list(user.lifecycle.remaining),
        }


def _describe_withdrawal(withdrawal: Withdrawal) -> dict[str, Any]:
    return {
        "id": withdrawal.withdrawal_id,
        "user_id": withdrawal.user_id,
        "amount": plain(withdrawal.amount),
        "address": withdrawal.address,
        "state": withdrawal.lifecycle.state,
        "created_at": iso(withdrawal.created_at),
        "remaining": list(withdrawal.lifecycle.remaining),
    }
