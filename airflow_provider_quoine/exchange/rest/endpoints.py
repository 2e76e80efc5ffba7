"""The endpoints of the REST API (api-reference I), and which of them must not be called twice."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """
    One endpoint.

    :param name: its name in metrics; that of the client's method.
    :param what: the action of a call, as the beginning of a message.
    :param method: HTTP method.
    :param path: below the base URL; ``{}`` stands for an id.
    :param writes: whether it changes or sends something. Such a call is never repeated by a program.
    :param answers_with_secret: whether a success may hold a secret. No error quotes such a body.
    """

    name: str
    what: str
    method: str
    path: str
    writes: bool
    answers_with_secret: bool = False

    def at(self, identifier: str) -> Endpoint:
        """Return the endpoint with an id in its path; the caller has checked the id."""
        return replace(self, path=self.path.format(identifier))


CREATE_USER = Endpoint(
    name="create_onboarding_user",
    what="Creating the onboarding user",
    method="POST",
    path="/users/onboarding",
    writes=True,
)
USER_STATUS = Endpoint(
    name="get_onboarding_status",
    what="Asking for the onboarding status",
    method="POST",
    path="/users/onboarding_status",
    writes=False,
    answers_with_secret=True,
)
# A GET, but it sends an e-mail or SMS (facts, Withdrawals).
AUTH_CODE_REQUEST = Endpoint(
    name="request_auth_code",
    what="Requesting the authentication code",
    method="GET",
    path="/users/{}/auth_code",
    writes=True,
)
CREATE_WITHDRAWAL = Endpoint(
    name="create_withdrawal", what="Creating the withdrawal", method="POST", path="/btc_withdrawals/", writes=True
)
GET_WITHDRAWAL = Endpoint(
    name="get_withdrawal", what="Looking up the withdrawal", method="GET", path="/btc_withdrawals/{}", writes=False
)
