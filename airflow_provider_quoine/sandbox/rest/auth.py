"""Verification of both signing schemes, as strict as the exchange (facts, Signing)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from email.utils import format_datetime, parsedate_to_datetime

import jwt

from airflow_provider_quoine.sandbox.refusals import Refusal, not_authenticated
from airflow_provider_quoine.sandbox.settings import Clock

_APIAUTH = re.compile(r"APIAuth ([^:\s]+):(\S+)")
_NONCE = re.compile(r"[0-9a-fA-F]{32}")
_JWT_NONCE = re.compile(r"[0-9]{1,20}")


def _same(digest: bytes, given: str) -> bool:
    """Compare a digest with the base64 text of a header, in constant time."""
    return hmac.compare_digest(base64.b64encode(digest), given.encode())


def _seconds(date: str) -> float:
    """Read an RFC 7231 date. Only the exact form is accepted, since the text itself is signed."""
    try:
        moment = parsedate_to_datetime(date)
        exact = format_datetime(moment, usegmt=True) == date
    except ValueError:
        exact = False
    if not exact:
        raise not_authenticated("Date is missing or not in RFC 7231 form")
    return moment.timestamp()


class Verifier:
    """
    Verifies signatures and remembers nonces.

    :param secret_of: returns the secret of an api_id, or None if it is unknown
    :param date_tolerance: seconds by which a ``Date`` may be off, before and after (facts, Signing: 900 before;
        decisions, Sandbox: after)
    """

    def __init__(self, *, secret_of: Callable[[str], str | None], clock: Clock, date_tolerance: float) -> None:
        self._secret_of = secret_of
        self._clock = clock
        self._tolerance = date_tolerance
        self._nonces: dict[tuple[str, str], float] = {}
        self._last_jwt_nonce: dict[str, int] = {}

    def verify(self, *, target: str, headers: Mapping[str, str], body: bytes) -> str:
        """
        Check a request's signature, APIAuth or JWT.

        :param target: path and query string, exactly as received
        :param headers: the request's headers by lower-case name
        :return: the api_id that signed
        :raises Refusal: 401 in plain text; only a request that is valid otherwise uses its nonce up
        """
        if "x-quoine-auth" in headers:
            return self._verify_jwt(target, headers)
        return self._verify_apiauth(target, headers, body)

    def _known_secret(self, api_id: str) -> str:
        secret = self._secret_of(api_id)
        if secret is None:
            raise not_authenticated("unknown api_id")
        return secret

    def _verify_apiauth(self, target: str, headers: Mapping[str, str], body: bytes) -> str:
        stated = _APIAUTH.fullmatch(headers.get("authorization", ""))
        if not stated:
            raise not_authenticated("no signature")
        api_id, signature = stated.groups()
        secret = self._known_secret(api_id)
        date, nonce = headers.get("date", ""), headers.get("nonce", "")
        md5 = headers.get("content-md5", "")
        signed_at = _seconds(date)
        if not _NONCE.fullmatch(nonce):
            raise not_authenticated("NONCE is not 32 hex characters")
        if md5 and not _same(hashlib.md5(body, usedforsecurity=False).digest(), md5):
            raise not_authenticated("Content-MD5 is not that of the body")
        canonical = ",".join((headers.get("content-type", ""), md5, target, date, nonce))
        if not _same(hmac.digest(secret.encode(), canonical.encode(), "sha1"), signature):
            raise not_authenticated("signature does not match")
        self._check_date(signed_at)
        self._use_nonce(api_id, nonce)
        return api_id

    def _check_date(self, signed_at: float) -> None:
        age = self._clock() - signed_at
        if age > self._tolerance:
            raise not_authenticated(f"Date is older than {self._tolerance:g} seconds", disclosed=True)
        if age < -self._tolerance:
            raise not_authenticated(f"Date is more than {self._tolerance:g} seconds ahead", disclosed=True)

    def _use_nonce(self, api_id: str, nonce: str) -> None:
        now = self._clock()
        # An older nonce cannot be replayed, since the Date that was signed with it is out of tolerance.
        while self._nonces and next(iter(self._nonces.values())) < now - 2 * self._tolerance:
            del self._nonces[next(iter(self._nonces))]
        if (api_id, nonce) in self._nonces:
            raise not_authenticated("NONCE was seen before")
        self._nonces[(api_id, nonce)] = now

    def _verify_jwt(self, target: str, headers: Mapping[str, str]) -> str:
        if headers.get("x-quoine-api-version") != "2":
            raise not_authenticated("X-Quoine-API-Version is not 2")
        token = headers["x-quoine-auth"]
        try:
            api_id = str(jwt.decode(token, options={"verify_signature": False}).get("token_id", ""))
            claims = jwt.decode(token, self._known_secret(api_id), algorithms=["HS256"])
        except jwt.InvalidTokenError as error:
            raise not_authenticated(f"JWT: {error}") from None
        if claims.get("path") != target:
            raise not_authenticated("JWT: path is not that of the request")
        nonce = str(claims.get("nonce", ""))
        if not _JWT_NONCE.fullmatch(nonce):
            raise not_authenticated("JWT: nonce is not a number")
        if int(nonce) <= self._last_jwt_nonce.get(api_id, -1):
            raise Refusal(401, "Nonce is too small")
        self._last_jwt_nonce[api_id] = int(nonce)
        return api_id
