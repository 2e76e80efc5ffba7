"""The exchange as a whole: everything that it holds, carries out and tells."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_provider_quoine.sandbox.auth import Verifier
from airflow_provider_quoine.sandbox.faults import Faults
from airflow_provider_quoine.sandbox.limiter import RateLimiter
from airflow_provider_quoine.sandbox.outbox import CODE_ANSWERS, Outbox
from airflow_provider_quoine.sandbox.refusals import no_access, not_found, unauthorized
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from airflow_provider_quoine.sandbox.users import USER_LIVES, Document, User, Users
from airflow_provider_quoine.sandbox.withdrawals import (
    WITHDRAWAL_LIVES,
    Withdrawal,
    WithdrawalOrder,
    Withdrawals,
    plain,
)

#: What can be ordered of the next user, withdrawal or code; what happens when nothing was ordered stands first.
OUTCOMES: dict[str, tuple[str, ...]] = {
    "user": tuple(USER_LIVES),
    "withdrawal": tuple(WITHDRAWAL_LIVES),
    "auth_code": tuple(CODE_ANSWERS),
}

# An order that is given with the request itself: somebody+declined@example.com.
_DECLINED_EMAIL = re.compile(r".*\+declined@.*", re.IGNORECASE)


def iso(seconds: float) -> str:
    """Write a time in UTC."""
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat()


@dataclass
class Seen:
    """
    A request that the exchange saw, without its secrets.

    :param at: when, in UTC
    :param method: HTTP method
    :param path: path without query
    :param address: the client's
    :param endpoint: as the reference writes it, or None for an unknown one
    :param api_id: who signed it, once that is sure
    :param status: of the answer; None while there is none, or when the socket was dropped
    :param carried_out: whether the work was done
    :param fault: the kind of fault that befell it
    :param reason: why it was refused
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
    """
    The exchange's state and its work; all of it lives in one event loop.

    :param settings: see :class:`SandboxSettings`
    """

    def __init__(self, settings: SandboxSettings) -> None:
        self.settings = settings
        self.stopping = asyncio.Event()
        self.reset()

    def reset(self) -> None:
        """Forget everything, as if just started; open stream connections stay."""
        settings = self.settings
        self.pace = settings.pace
        self.users = Users()
        self.withdrawals = Withdrawals(balance=settings.balance, minimum=settings.minimum)
        self.outbox = Outbox(digits=settings.code_digits, lifetime=settings.code_lifetime, clock=settings.clock)
        self.limiter = RateLimiter(limit=settings.limit, window=settings.window, clock=settings.clock)
        self.faults = Faults()
        self.requests: list[Seen] = []
        self._outcomes: dict[str, list[str]] = {of: [] for of in OUTCOMES}
        self._verifier = Verifier(
            secret_of=self._secret_of, clock=settings.clock, date_tolerance=settings.date_tolerance
        )

    def now(self) -> float:
        """The exchange's time, in Unix seconds."""
        return self.settings.clock()

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the server."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            pass

    def settle(self) -> None:
        """Bring every life to where it stands now."""
        for one in (*self.users, *self.withdrawals):
            one.life.settle(now=self.now(), pace=self.pace)

    def set_pace(self, seconds: float | None) -> None:
        """
        Change the pace from now on; steps that were due at the old one are taken first.

        :param seconds: per step; None moves lives by hand only
        """
        self.settle()
        self.pace = seconds

    def order_outcome(self, of: str, outcome: str) -> None:
        """
        Order how the next user, withdrawal or code request ends, first in first out.

        :param of: a key of :data:`OUTCOMES`
        :param outcome: one of its values
        """
        self._outcomes[of].append(outcome)

    def _outcome(self, of: str) -> str:
        return self._outcomes[of].pop(0) if self._outcomes[of] else OUTCOMES[of][0]

    def _secret_of(self, api_id: str) -> str | None:
        if api_id == self.settings.vendor_id:
            return self.settings.vendor_secret
        self.settle()
        user = next((user for user in self.users if str(user.user_id) == api_id and user.approved), None)
        return user.api_secret if user else None

    def verify(self, *, target: str, headers: Mapping[str, str], body: bytes) -> str:
        """Tell who signed a request; see :meth:`Verifier.verify`."""
        return self._verifier.verify(target=target, headers=headers, body=body)

    def create_user(self, *, fields: Mapping[str, str], documents: Mapping[str, Document]) -> User:
        """
        Onboard a user (api-reference 1.1).

        :param fields: text parameters by name; an e-mail ``...+declined@...`` orders that end
        :param documents: documents by parameter name
        :raises Refusal: 422
        """
        self.users.check(fields=fields, documents=documents)
        end = "DECLINED" if _DECLINED_EMAIL.fullmatch(fields["email"]) else self._outcome("user")
        return self.users.create(fields=fields, documents=documents, path=USER_LIVES[end], now=self.now())

    def user_of(self, api_id: str) -> User:
        """
        Find the user whose own key this is.

        :raises Refusal: 503 for the vendor's key: a call that it has no access to (api-reference, "Introduction")
        """
        if api_id == self.settings.vendor_id:
            raise no_access("the vendor's key signed a user's call")
        return self.users.get(api_id)

    def check_vendor(self, api_id: str) -> None:
        """
        Make sure that the vendor's key signed.

        :raises Refusal: 503 for a user's key
        """
        if api_id != self.settings.vendor_id:
            raise no_access("a user's key signed a vendor's call")

    def send_code(self, user: User, user_id: str) -> dict[str, Any]:
        """
        Send a user a code (api-reference 2.1, notice).

        :param user: who asks
        :param user_id: about whom
        :return: one of the shapes in facts, Withdrawals
        :raises Refusal: 401 when it is somebody else
        """
        if user_id != str(user.user_id):
            raise unauthorized()
        return self.outbox.send(user.user_id, self._outcome("auth_code"))

    def create_withdrawal(self, user: User, payload: Any) -> Withdrawal:
        """
        Create a withdrawal (api-reference 2.1): the form is checked, then the code used up, then all else checked.

        :param user: whose
        :param payload: the decoded JSON
        :raises Refusal: 422
        """
        order = WithdrawalOrder.read(payload)
        self.outbox.use(user.user_id, order.auth_code)
        self.settle()
        self.withdrawals.check(user_id=user.user_id, order=order)
        path = WITHDRAWAL_LIVES[self._outcome("withdrawal")]
        return self.withdrawals.create(user_id=user.user_id, order=order, path=path, now=self.now())

    def withdrawal_of(self, user: User, withdrawal_id: str) -> Withdrawal:
        """
        Find one of a user's own withdrawals (api-reference 2.2).

        :raises Refusal: 404, for another user's too
        """
        self.settle()
        withdrawal = self.withdrawals.get(withdrawal_id)
        if withdrawal.user_id != user.user_id:
            raise not_found()
        return withdrawal

    def state(self, *, last_requests: int | None = None) -> dict[str, Any]:
        """
        Tell all that the exchange holds, without secrets.

        :param last_requests: how many of the latest requests to tell; None tells all
        """
        self.settle()
        carried_out = Counter(seen.endpoint for seen in self.requests if seen.carried_out)
        requests = self.requests if last_requests is None else self.requests[-last_requests:]
        return {
            "now": iso(self.now()),
            "pace": self.pace,
            "users": [self._describe_user(user) for user in self.users],
            "withdrawals": [_describe_withdrawal(withdrawal) for withdrawal in self.withdrawals],
            "outbox": self.outbox.counts(),
            "carried_out": dict(carried_out),
            "requests": [asdict(seen) for seen in requests],
            "rate_limit": self.limiter.figures(),
            "faults": [fault.model_dump() for fault in self.faults.waiting],
        }

    def _describe_user(self, user: User) -> dict[str, Any]:
        return {
            "user_id": user.user_id,
            "status": user.life.state,
            **user.fields,
            "documents": {name: asdict(document) for name, document in user.documents.items()},
            "balance": plain(self.withdrawals.balance_of(user.user_id)),
            "created_at": iso(user.created_at),
            "ahead": list(user.life.ahead),
        }


def _describe_withdrawal(withdrawal: Withdrawal) -> dict[str, Any]:
    return {
        "id": withdrawal.withdrawal_id,
        "user_id": withdrawal.user_id,
        "amount": plain(withdrawal.amount),
        "address": withdrawal.address,
        "state": withdrawal.life.state,
        "created_at": iso(withdrawal.created_at),
        "ahead": list(withdrawal.life.ahead),
    }
