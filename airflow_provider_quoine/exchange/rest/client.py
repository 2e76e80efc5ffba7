"""The exchange's REST API: one method per endpoint, typed in and out; a write is never sent again by itself."""

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
from airflow_provider_quoine.exchange.budget.request_budget import RequestBudget
from airflow_provider_quoine.exchange.budget.rules import Priority
from airflow_provider_quoine.exchange.budget.slot import Slot
from airflow_provider_quoine.exchange.errors import (
    QuoineAnswerLostError,
    QuoineConnectionError,
    QuoineError,
    QuoineInputError,
    QuoineRateLimitedError,
    QuoineRefusedError,
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
from airflow_provider_quoine.exchange.rest import quoting, refusals, responses
from airflow_provider_quoine.exchange.rest.auth import ApiAuth, JwtAuth
from airflow_provider_quoine.exchange.rest.endpoints import (
    AUTH_CODE_REQUEST,
    CREATE_USER,
    CREATE_WITHDRAWAL,
    GET_WITHDRAWAL,
    USER_STATUS,
    Endpoint,
)
from airflow_provider_quoine.exchange.rest.retries import RequestRunner
from airflow_provider_quoine.exchange.rest.sending import NotConnectedError
from airflow_provider_quoine.exchange.rest.transport import Transport, in_flight_seconds

MAX_RESPONSE_BYTES = 64 * 1024
"""No response of this API comes near it. A longer one is cut, and unreadable if it is a success."""

MAX_FIELDS_BYTES = 64 * 1024
"""No body comes near it, documents left out. A longer one is refused, so that the time in flight is bounded."""

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
    Speaks to the exchange. Every method sends one request, or none; a read may be retried.

    Failures are :class:`~airflow_provider_quoine.exchange.errors.QuoineError` with
    ``may_have_been_carried_out``. A write is never retried and no redirect is followed: either could send credentials
    or money to where nobody asked for it. Reads share kept-alive connections. Each write opens a connection of its own
    (decisions, Requests: a kept one that the server has dropped would leave a withdrawal unknown).
    Proxies are those of the environment, as ``requests`` knows them; ``.netrc`` is not read.

    Each request takes a slot of the budget first. A method that is given a slot, from :meth:`take_slot`, uses that one
    instead and does not wait; a retry of a read takes a new one.

    :param base_url: ``https://host[:port][/prefix]``; plain ``http`` to this machine only, since credentials and
        codes would travel readable (decisions, Requests).
    :param auth: signs each request once.
    :param connect_timeout: seconds for each of: connecting to an address, the TLS handshake, and sending each 64 KiB.
        The system's resolver looks up the name, with a time-out of its own.
    :param read_timeout: seconds without a byte of the response; a response may take four times that in all.
    :param verify: True, or the path of the CA file or folder to trust; TLS is always verified.
    :param budget: shared by all clients of this exchange; None sends without slots.
    :param priority: at which this client takes its slots, for reads and writes alike.
    :param read_attempts: how often a read is sent at most, see
        :data:`~airflow_provider_quoine.exchange.rest.retries.TRANSIENT`; each attempt takes a slot.
    :param patience: seconds to wait for a slot at most.
    :param observer: is told of every request.
    :raises QuoineInputError: one of these cannot be used.
    """

    def __init__(
        self,
        *,
        base_url: str,
        auth: ApiAuth | JwtAuth,
        connect_timeout: float,
        read_timeout: float,
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
        self._requests = RequestRunner(
            budget=budget, priority=priority, read_attempts=read_attempts, patience=patience, observer=observer
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the kept-alive connections."""
        self._reads.close()

    def take_slot(self) -> Slot:
        """
        Wait for a slot and take it, to be given to one request, which then does not wait.

        For a request that must not wait once it has begun, such as a withdrawal between its record and its first byte.

        :raises QuoineBudgetError: out of patience.
        """
        return self._requests.take_slot()

    async def take_slot_async(self) -> Slot:
        """Do as :meth:`take_slot` without blocking the event loop: for triggers."""
        return await self._requests.take_slot_async()

    def in_flight_seconds(self, *documents: Document) -> float:
        """
        Bound the time from a request's first byte to the end of its response.

        Connecting is not in it: ``before_send`` is called after that. See
        :func:`~airflow_provider_quoine.exchange.rest.transport.in_flight_seconds`.

        :param documents: those that the request carries.
        :return: seconds.
        """
        connect_timeout, read_timeout = self._timeouts
        body_bytes = MAX_FIELDS_BYTES + sum(len(document.content) for document in documents)
        return in_flight_seconds(body_bytes, connect_timeout=connect_timeout, read_timeout=read_timeout)

    def create_onboarding_user(
        self,
        *,
        user: OnboardingUser,
        password: str,
        id_document: Document,
        proof_address: Document,
        bank_statement: Document,
        slot: Slot | None = None,
        before_send: Callable[[], None] | None = None,
    ) -> str:
        """
        Create an onboarding user (api-reference 1.1); the vendor's key signs (decisions, Who signs).

        :param user: the form.
        :param password: the new user's password; must obey
            :func:`~airflow_provider_quoine.exchange.models.check_password`.
        :param id_document: identity document.
        :param proof_address: proof of address.
        :param bank_statement: bank statement.
        :param slot: of :meth:`take_slot`; None takes one now.
        :param before_send: called once, when the connection is up and before the first byte leaves; a QuoineError
            that it raises stops the request.
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
            responses.read_user_id,
            secrets=(password,),
            slot=slot,
            before_send=before_send,
            data={**user.form_fields(), "password": password},
            files={
                field: (document.name, document.content, _media_type(document.name))
                for field, document in documents.items()
            },
        )

    def get_onboarding_status(self, *, user_id: str, password: str, slot: Slot | None = None) -> OnboardingAnswer:
        """
        Check an onboarding user's status (api-reference 1.2); the vendor's key signs.

        :param user_id: of :meth:`create_onboarding_user`.
        :param password: that user's password, not the caller's.
        :param slot: of :meth:`take_slot`; None takes one now.
        :return: the status, and the user's own credentials if the answer holds them.
        :raises QuoineError: see the class. No error quotes the body of a success: it may hold the credentials.
        """
        if not password:
            raise QuoineInputError("The password of the onboarding user is empty.")
        return self._send(
            USER_STATUS,
            responses.read_onboarding_answer,
            secrets=(password,),
            slot=slot,
            data=write_json({"user_id": check_id("user id", user_id), "password": password}),
        )

    def request_auth_code(self, *, user_id: str, slot: Slot | None = None) -> AuthCodeRequest:
        """
        Have the exchange send the user an authentication code (api-reference 2.1); the user's own key signs.

        It sends an e-mail or SMS each time, so it must not be repeated blindly (facts, Withdrawals).

        :param user_id: the user's id.
        :param slot: of :meth:`take_slot`; None takes one now.
        :return: whether a code was sent, and the exchange's words.
        :raises QuoineError: see the class; where it may have been carried out, a code may be on its way.
        """
        endpoint = AUTH_CODE_REQUEST.at(check_id("user id", user_id))
        return self._send(endpoint, responses.read_auth_code_request, slot=slot)

    def create_withdrawal(
        self,
        *,
        order: WithdrawalOrder,
        auth_code: str,
        slot: Slot | None = None,
        before_send: Callable[[], None] | None = None,
    ) -> Withdrawal:
        """
        Create a bitcoin withdrawal (api-reference 2.1); the user's own key signs. There is no way back.

        The exchange knows no idempotency key and no list of withdrawals: if the error's
        ``may_have_been_carried_out`` is True, it must not be sent again.

        :param order: amount and address.
        :param auth_code: the code that the exchange sent to the user; right once.
        :param slot: of :meth:`take_slot`; None takes one now.
        :param before_send: as in :meth:`create_onboarding_user`.
        :return: the withdrawal as the exchange took it, with the order's amount and address.
        :raises QuoineError: see the class.
        """
        if not isinstance(auth_code, str) or not _AUTH_CODE.fullmatch(auth_code.strip()):
            raise QuoineInputError("The authentication code must be the text that the exchange sent, no blanks.")
        code, payment = auth_code.strip(), {"amount": order.amount, "address": str(order.address)}
        return self._send(
            CREATE_WITHDRAWAL,
            partial(responses.read_created_withdrawal, order=order),
            secrets=(code,),
            slot=slot,
            before_send=before_send,
            data=write_json({"auth_code": code, "btc_withdrawal": payment}),
        )

    def get_withdrawal(self, *, withdrawal_id: str, slot: Slot | None = None) -> Withdrawal:
        """
        Look up a bitcoin withdrawal (api-reference 2.2); the user's own key signs.

        :param withdrawal_id: the exchange's id.
        :param slot: of :meth:`take_slot`; None takes one now.
        :raises QuoineError: see the class.
        """
        endpoint = GET_WITHDRAWAL.at(check_id("withdrawal id", withdrawal_id))
        return self._send(endpoint, responses.read_withdrawal, slot=slot)

    def _send(
        self,
        endpoint: Endpoint,
        read: Callable[[Any], Result],
        *,
        slot: Slot | None,
        secrets: tuple[str, ...] = (),
        before_send: Callable[[], None] | None = None,
        data: str | Mapping[str, str] | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
    ) -> Result:
        # Every request of this package goes through here. Each attempt is signed anew: a nonce is good once.
        send = partial(self._send_once, endpoint, read, secrets, before_send, data, files)
        return self._requests.run(endpoint, send, slot=slot)

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
        documents_bytes = sum(len(content) for _, content, _ in (files or {}).values())
        if len(request.body or b"") > MAX_FIELDS_BYTES + documents_bytes:
            raise QuoineInputError(
                f"The form is longer than {MAX_FIELDS_BYTES} bytes, its documents left out. Nothing was sent. Shorten "
                "its fields and file names."
            )
        # A form is about a person, and so may the names of its files be.
        values = data.values() if isinstance(data, Mapping) else ()
        personal = (*values, *(name for name, _, _ in (files or {}).values()))
        scrub = quoting.Scrubber((self._auth.secret, *secrets, *_signatures(request)), personal)
        transport = Transport(before_send=before_send) if endpoint.writes else self._reads
        # Raised after the block, so that no error has a context that holds the request.
        failure: QuoineError
        try:
            with self._open(transport, request) as response:
                return _read_response(endpoint, read, scrub, response, *_read_body(response))
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
        # Not by Session.send: it looks at a redirect's target and may fail there, after the request was carried out.
        return transport.send(
            request,
            stream=True,
            timeout=self._timeouts,
            verify=self._environment["verify"] or True,
            proxies=self._environment["proxies"],
        )

    @cached_property
    def _environment(self) -> Mapping[str, Any]:
        # Looked up once: to look for proxies costs a tenth of a request.
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
        if len(body) > MAX_RESPONSE_BYTES:
            return bytes(body[:MAX_RESPONSE_BYTES]), False
    return bytes(body), True


def _read_response(
    endpoint: Endpoint,
    read: Callable[[Any], Result],
    scrub: quoting.Scrubber,
    response: requests.Response,
    body: bytes,
    whole: bool,
) -> Result:
    status, content_type = response.status_code, response.headers.get("Content-Type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    answer = responses.parse(responses.decode(body, response.encoding))
    kind = refusals.error_of(status=status, media_type=media_type, answer=answer, whole=whole, writes=endpoint.writes)
    fault = "no refusal that the exchange documents"
    if kind is None:
        kind, fault = QuoineUnreadableAnswerError, f"but its body is longer than {MAX_RESPONSE_BYTES} bytes"
        if whole:
            try:
                return read(answer)
            except ValueError as error:
                fault = f"but {error}"
    explained = media_type == refusals.JSON and refusals.explains(answer)
    if isinstance(answer, str):
        # Before tags are taken out, which may be part of a password.
        answer = scrub.hide(answer)
    message, quoted = scrub(quoting.words(answer)), scrub(quoting.excerpt(answer))
    if endpoint.answers_with_secret and 200 <= status < 300:
        quoted = ""
        message = message if kind is QuoineRefusedError else ""
    if kind is QuoineUnreadableAnswerError or (endpoint.writes and kind is QuoineServerError):
        came = f"{len(body)} bytes of {scrub(content_type) or 'unknown type'}"
        text = f"HTTP {status}, {fault}: {came}{quoted and ': '}{quoted}."
    else:
        text = f"HTTP {status}: {message or 'no words'}."
    retry_after = responses.retry_after(response.headers, message, datetime.now(UTC)) if status == 429 else None
    if kind is QuoineRateLimitedError:
        text += f" Wait {retry_after:g} s."
    raise _failure(
        endpoint,
        kind,
        text,
        status=status,
        message=message,
        body=quoted,
        server_time=responses.read_http_date(response.headers.get("Date")),
        retry_after=retry_after,
        explained=explained,
    )


def _failure(endpoint: Endpoint, kind: type[QuoineError], problem: str, **fields: Any) -> QuoineError:
    repeatable = kind.may_have_been_carried_out and not endpoint.writes
    advice = _READ_ADVICE if repeatable else kind.advice
    failure = kind(f"{endpoint.what} failed: {problem} {advice}", **fields)
    failure.only_reads = not endpoint.writes
    return failure
