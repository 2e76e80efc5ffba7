"""The exchange's REST API: one method per endpoint, typed in and out; nothing is ever sent twice by itself."""

from __future__ import annotations

import http.client
import ipaddress
import math
import mimetypes
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property, partial
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from airflow_provider_quoine import __version__
from airflow_provider_quoine.exchange.budget.request_budget import Priority, RequestBudget
from airflow_provider_quoine.exchange.errors import (
    STATUS_ERRORS,
    QuoineAnswerLostError,
    QuoineConnectionError,
    QuoineError,
    QuoineInputError,
    QuoineRateLimitedError,
    QuoineRefusedError,
    QuoineResponseError,
    QuoineServerError,
    QuoineUnreadableAnswerError,
)
from airflow_provider_quoine.exchange.exact_json import write_json
from airflow_provider_quoine.exchange.models import (
    AuthCodeRequest,
    Document,
    OnboardingAnswer,
    OnboardingUser,
    Withdrawal,
    WithdrawalOrder,
    check_id,
    check_password,
)
from airflow_provider_quoine.exchange.observer import Observer
from airflow_provider_quoine.exchange.rest import responses as answers
from airflow_provider_quoine.exchange.rest.auth import ApiAuth, JwtAuth
from airflow_provider_quoine.exchange.rest.endpoints import (
    AUTH_CODE_REQUEST,
    CREATE_USER,
    CREATE_WITHDRAWAL,
    GET_WITHDRAWAL,
    USER_STATUS,
    Endpoint,
)
from airflow_provider_quoine.exchange.rest.retries import Attempts
from airflow_provider_quoine.exchange.rest.transport import NotConnectedError, Transport

MAX_ANSWER_BYTES = 1024 * 1024
"""No answer of this API comes near it; what is longer is cut and, as a success, unreadable."""

_HEADERS = {
    **requests.utils.default_headers(),
    "User-Agent": f"airflow-provider-quoine/{__version__}",
    "Accept": "application/json",
}
_READ_BYTES = 64 * 1024
_LOST = (requests.RequestException, HTTPError, http.client.HTTPException, OSError, ValueError)
_READ_ADVICE = "This call only reads: nothing was changed at the exchange, and it can be repeated."
_AUTH_CODE = re.compile(r"[!-~]{1,64}")

Result = TypeVar("Result")


class QuoineClient:
    """
    Speaks to the exchange. Every method sends exactly one request, or none; a read may be repeated.

    Failures are :class:`~airflow_provider_quoine.exchange.errors.QuoineError` with
    ``may_have_been_carried_out``. A write is never repeated and no redirect is followed, because both would carry
    credentials or money where nobody asked for it. Each request takes a slot of the budget first. Reads share
    kept-alive connections. Each write opens a connection of its own (decided: one that the server has dropped
    meanwhile would leave a withdrawal unknown).
    Proxies are those of the environment, as ``requests`` knows them; ``.netrc`` is not read.

    :param base_url: ``https://host[:port][/prefix]``; plain ``http`` to this machine only, since credentials and
        codes would travel readable (decided).
    :param auth: signs each request once.
    :param connect_timeout: seconds for each of: connecting, the TLS handshake, and sending each 64 KiB. Looking
        up the name is the system resolver's, with its own time-out.
    :param read_timeout: seconds without a byte of the answer; an answer may take four times that in all.
    :param verify: True, or the path of the CA file or folder to trust; TLS is always verified.
    :param budget: shared by everybody who asks this exchange; without one, nothing is held back.
    :param priority: of reads in the budget; a write is always urgent.
    :param read_attempts: how often a read is sent at most, see
        :data:`~airflow_provider_quoine.exchange.rest.retries.PASSING`; each attempt takes a slot.
    :param patience: seconds to wait for a slot at most.
    :param observer: is told of every request.
    :raises QuoineInputError: one of these cannot be used.
    """

    def __init__(
        self,
        *,
        base_url: str,
        auth: ApiAuth | JwtAuth,
        connect_timeout: float = 10.0,
        read_timeout: float = 30.0,
        verify: bool | str = True,
        budget: RequestBudget | None = None,
        priority: Priority = Priority.NORMAL,
        read_attempts: int = 1,
        patience: float = math.inf,
        observer: Observer | None = None,
    ) -> None:
        self._base_url = _check_base_url(base_url)
        if not all(0 < seconds < math.inf for seconds in (connect_timeout, read_timeout)):
            raise QuoineInputError("Both time-outs must be seconds above zero.")
        if not verify or (isinstance(verify, str) and not os.path.exists(verify)):
            raise QuoineInputError(
                f"verify is {verify!r}: TLS is always verified, so give True or the path of an existing CA file."
            )
        self.budget = budget
        self._auth = auth
        self._timeouts = (connect_timeout, read_timeout)
        self._verify = verify
        self._reads = Transport()
        self._attempts = Attempts(
            budget=budget, priority=priority, read_attempts=read_attempts, patience=patience, observer=observer
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept for reads."""
        self._reads.close()

    def take_slot(self) -> float:
        """
        Wait for the slot of this client's next request, and take it; that request then waits no more.

        For what must not wait once it has begun, such as a withdrawal between its record and its first byte.

        :return: seconds waited.
        :raises QuoineBudgetError: out of patience.
        """
        return self._attempts.take_slot()

    async def take_slot_async(self) -> float:
        """Do as :meth:`take_slot` without blocking the event loop: for triggers."""
        return await self._attempts.take_slot_async()

    def create_onboarding_user(
        self,
        *,
        user: OnboardingUser,
        password: str,
        id_document: Document,
        proof_address: Document,
        bank_statement: Document,
        before_send: Callable[[], None] | None = None,
    ) -> str:
        """
        Create an onboarding user (api-reference 1.1); the vendor's key signs (facts, Who signs).

        :param user: the form.
        :param password: the new user's password; must obey
            :func:`~airflow_provider_quoine.exchange.models.check_password`.
        :param id_document: identity document.
        :param proof_address: proof of address.
        :param bank_statement: bank statement.
        :param before_send: called once, when the connection stands and before the first byte leaves; what it
            raises (a QuoineError) stops the request.
        :return: the user's id.
        :raises QuoineError: see the class; where it may have been carried out, the user may exist.
        """
        check_password(password)
        documents = {
            "id_document": id_document,
            "proof_address": proof_address,
            "bank_statement": bank_statement,
        }
        return self._send(
            CREATE_USER,
            answers.read_user_id,
            secrets=(password,),
            before_send=before_send,
            data={**user.form_fields(), "password": password},
            files={
                field: (document.name, document.content, _media_type(document.name))
                for field, document in documents.items()
            },
        )

    def get_onboarding_status(self, *, user_id: str, password: str) -> OnboardingAnswer:
        """
        Check an onboarding user's status (api-reference 1.2); the vendor's key signs.

        :param user_id: of :meth:`create_onboarding_user`.
        :param password: that user's password, not the caller's.
        :return: the status, and the user's own credentials if the answer holds them.
        :raises QuoineError: see the class. No error quotes the body of a success: it may hold the credentials.
        """
        if not password:
            raise QuoineInputError("The password of the onboarding user is empty.")
        return self._send(
            USER_STATUS,
            answers.read_onboarding_answer,
            secrets=(password,),
            data=write_json({"user_id": check_id("user id", user_id), "password": password}),
        )

    def request_auth_code(self, *, user_id: str) -> AuthCodeRequest:
        """
        Have the exchange send the user an authentication code (api-reference 2.1); the user's own key signs.

        It sends an e-mail or SMS each time, so it must not be repeated blindly (facts, Withdrawals).

        :param user_id: the user's id.
        :return: whether a code was sent, and the exchange's words.
        :raises QuoineError: see the class; where it may have been carried out, a code may be on its way.
        """
        return self._send(AUTH_CODE_REQUEST.at(check_id("user id", user_id)), answers.read_auth_code_request)

    def create_withdrawal(
        self,
        *,
        order: WithdrawalOrder,
        auth_code: str,
        before_send: Callable[[], None] | None = None,
    ) -> Withdrawal:
        """
        Create a bitcoin withdrawal (api-reference 2.1); the user's own key signs. There is no way back.

        The exchange knows no idempotency key and no list of withdrawals: if the error's
        ``may_have_been_carried_out`` is True, it must not be sent again.

        :param order: amount and address.
        :param auth_code: the code that the exchange sent to the user; right once.
        :param before_send: as in :meth:`create_onboarding_user`.
        :return: the withdrawal as the exchange took it.
        :raises QuoineError: see the class.
        """
        if not isinstance(auth_code, str) or not _AUTH_CODE.fullmatch(auth_code.strip()):
            raise QuoineInputError("The authentication code must be the text that the exchange sent, no blanks.")
        code, payment = auth_code.strip(), {"amount": order.amount, "address": str(order.address)}
        return self._send(
            CREATE_WITHDRAWAL,
            answers.read_withdrawal,
            secrets=(code,),
            before_send=before_send,
            data=write_json({"auth_code": code, "btc_withdrawal": payment}),
        )

    def get_withdrawal(self, *, withdrawal_id: str) -> Withdrawal:
        """
        Look up a bitcoin withdrawal (api-reference 2.2); the user's own key signs.

        :param withdrawal_id: the exchange's id.
        :raises QuoineError: see the class.
        """
        return self._send(GET_WITHDRAWAL.at(check_id("withdrawal id", withdrawal_id)), answers.read_withdrawal)

    def _send(
        self,
        endpoint: Endpoint,
        read: Callable[[Any], Result],
        *,
        secrets: tuple[str, ...] = (),
        before_send: Callable[[], None] | None = None,
        data: str | Mapping[str, str] | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
    ) -> Result:
        # Every request of this package leaves here. Signed per attempt: a nonce is good once.
        send = partial(self._send_once, endpoint, read, secrets, before_send, data, files)
        return self._attempts.run(endpoint, send)

    def _send_once(
        self,
        endpoint: Endpoint,
        read: Callable[[Any], Result],
        secrets: tuple[str, ...],
        before_send: Callable[[], None] | None,
        data: str | Mapping[str, str] | None,
        files: Mapping[str, tuple[str, bytes, str]] | None,
    ) -> Result:
        request = requests.Request(
            endpoint.method,
            self._base_url + endpoint.path,
            headers={**_HEADERS, "Content-Type": "application/json"} if isinstance(data, str) else _HEADERS,
            data=data,
            files=files,
            auth=self._auth,
        ).prepare()
        scrub = answers.Scrubber((self._auth.secret, *secrets, *_signatures(request)))
        transport = Transport(before_send=before_send) if endpoint.writes else self._reads
        # Raised after the block, so that no error carries another one that holds the request.
        failure: QuoineError
        try:
            with self._open(transport, request) as response:
                return _read_answer(endpoint, read, scrub, response, *_read_body(response))
        except NotConnectedError as error:
            failure = _failure(endpoint, QuoineConnectionError, f"no connection. {scrub(str(error))}.")
        except QuoineError:
            raise
        except _LOST as error:
            said = scrub(f"{type(error).__name__}: {error}")
            failure = _failure(endpoint, QuoineAnswerLostError, f"the answer was lost. {said}.")
        finally:
            if transport is not self._reads:
                transport.close()
        raise failure

    def _open(self, transport: Transport, request: requests.PreparedRequest) -> requests.Response:
        # Not by Session.send, which looks where a redirect leads and may fail over it after the deed.
        return transport.send(
            request,
            stream=True,
            timeout=self._timeouts,
            verify=self._environment["verify"] or True,
            proxies=self._environment["proxies"],
        )

    @cached_property
    def _environment(self) -> Mapping[str, Any]:
        # Once, because to look for proxies costs a tenth of a request.
        with requests.Session() as session:
            return session.merge_environment_settings(self._base_url, {}, True, self._verify, None)


def _check_base_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url.strip())
        requests.Request("GET", base_url.strip()).prepare()
        host, credentials = parts.hostname or "", parts.username or parts.password
    except ValueError:
        raise QuoineInputError("The base URL cannot be read; it should look like https://api.quoine.com/.") from None
    if credentials or parts.query or parts.fragment or parts.scheme not in {"http", "https"} or not host:
        raise QuoineInputError(
            "The base URL must be http(s)://host[:port][/prefix], without user, password, query and fragment."
        )
    if parts.scheme == "http" and not _is_loopback(host):
        raise QuoineInputError(
            f"The base URL http://{host} would let credentials and codes travel readable: use https. Plain http is "
            "for this machine (127.0.0.1, localhost) only."
        )
    return base_url.strip().rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _media_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _signatures(request: requests.PreparedRequest) -> list[str]:
    values = [request.headers.get(name, "") for name in ("Authorization", "X-Quoine-Auth")]
    return [*values, *(value.rpartition(":")[2] for value in values)]


def _read_body(response: requests.Response) -> tuple[bytes, bool]:
    body = bytearray()
    for chunk in response.iter_content(_READ_BYTES):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return bytes(body[:MAX_ANSWER_BYTES]), False
    return bytes(body), True


def _read_answer(
    endpoint: Endpoint,
    read: Callable[[Any], Result],
    scrub: answers.Scrubber,
    response: requests.Response,
    body: bytes,
    whole: bool,
) -> Result:
    status, succeeded = response.status_code, 200 <= response.status_code < 300
    answer = answers.parse(answers.decode(body, response.encoding))
    refused = succeeded and isinstance(answer, dict) and answer.get("success") is False
    fault = f"its body is longer than {MAX_ANSWER_BYTES} bytes"
    if succeeded and whole and not refused:
        try:
            return read(answer)
        except ValueError as error:
            fault = str(error)
    if isinstance(answer, str):
        # Before tags are taken out, which may be part of a password.
        answer = scrub.hide(answer)
    message, body_text = scrub(answers.words(answer)), scrub(answers.excerpt(answer))
    if succeeded and endpoint.answers_with_secret:
        body_text = ""
        message = message if refused else ""
    if succeeded and not refused:
        seen = body_text or f"{len(body)} bytes of {scrub(response.headers.get('Content-Type', 'unknown type'))}"
        kind: type[QuoineResponseError] = QuoineUnreadableAnswerError
        text = f"HTTP {status}, but {fault}: {seen}."
    else:
        kind = QuoineRefusedError if refused else STATUS_ERRORS.get(status, QuoineServerError)
        text = f"HTTP {status}: {message or 'no words'}."
    fields: dict[str, Any] = {
        "status": status,
        "message": message,
        "body": body_text,
        "server_time": answers.read_http_date(response.headers.get("Date")),
    }
    if issubclass(kind, QuoineRateLimitedError):
        fields["retry_after"] = answers.retry_after(response.headers, message, datetime.now(UTC))
        text += f" Wait {fields['retry_after']:g} s."
    raise _failure(endpoint, kind, text, **fields) from None


def _failure(endpoint: Endpoint, kind: type[QuoineError], problem: str, **fields: Any) -> QuoineError:
    repeatable = kind.may_have_been_carried_out and not endpoint.writes
    advice = _READ_ADVICE if repeatable else kind.advice
    return kind(f"{endpoint.what} failed: {problem} {advice}", **fields)
