"""Signs requests, in the exchange's two schemes (facts, Signing): APIAuth, the default, and JWT."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from pathlib import Path

import jwt
import requests
from requests.auth import AuthBase

from airflow_provider_quoine.exchange.errors import QuoineInputError

_KEY_ID = re.compile(r"[!-9;-~]+")
_now = partial(datetime.now, UTC)
_random_nonce = partial(secrets.token_hex, 16)


class _KeyAuth(AuthBase):
    """
    A key that signs; its repr hides the secret.

    :raises QuoineInputError: id or secret is empty or has blanks, as a paste leaves them; never quotes the secret.
    """

    def __init__(self, key_id: str, secret: str) -> None:
        if not _KEY_ID.fullmatch(key_id):
            raise QuoineInputError("The API id must be plain letters or digits, without blanks and colons.")
        if not secret or secret != secret.strip():
            raise QuoineInputError("The API secret is empty, or has a blank or line end at its start or end.")
        self.key_id = key_id
        self.secret = secret

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key_id!r}, '***')"


class ApiAuth(_KeyAuth):
    """
    ``Authorization: APIAuth <api_id>:<HMAC-SHA1>`` (facts, Signing; known answers in the exchange's vectors).

    It signs headers, path and body, so it has to come last: ``requests`` calls it after the body is encoded.
    The server refuses a Date older than 900 s and a nonce that it has seen. So each attempt is signed anew.

    :param api_id: the key's id.
    :param api_secret: the key's secret, as raw text.
    :param clock: returns the time for the Date header, aware.
    :param nonce: returns 32 hex characters, new for every request.
    :raises QuoineInputError: an unusable id or secret.
    """

    def __init__(
        self,
        api_id: str,
        api_secret: str,
        *,
        clock: Callable[[], datetime] = _now,
        nonce: Callable[[], str] = _random_nonce,
    ) -> None:
        super().__init__(api_id, api_secret)
        self.clock = clock
        self.nonce = nonce

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign the prepared request in place."""
        r.headers.setdefault("Content-Type", "application/json")
        r.headers["Date"] = format_datetime(self.clock().astimezone(UTC), usegmt=True)
        r.headers["NONCE"] = self.nonce()
        if r.body:
            body = r.body.encode() if isinstance(r.body, str) else r.body
            md5 = hashlib.md5(body, usedforsecurity=False).digest()
            r.headers["Content-MD5"] = base64.b64encode(md5).decode()
        slots = (
            r.headers["Content-Type"],
            r.headers.get("Content-MD5", ""),
            r.path_url,
            r.headers["Date"],
            r.headers["NONCE"],
        )
        # The secret is raw text: it looks like base64 and must not be decoded (facts, Signing).
        digest = hmac.digest(self.secret.encode(), ",".join(slots).encode(), "sha1")
        signature = base64.b64encode(digest).decode()
        r.headers["Authorization"] = f"APIAuth {self.key_id}:{signature}"
        return r


class JwtAuth(_KeyAuth):
    """
    ``X-Quoine-Auth: <JWT HS256 of {path, nonce, token_id}>`` (facts, Signing).

    :param token_id: the key's id.
    :param secret: the key's secret, as raw text.
    :param nonce: returns a number as text that grows with every request of the key; by default
        :func:`next_nonce`.
    :raises QuoineInputError: an unusable id or secret.
    """

    def __init__(self, token_id: str, secret: str, *, nonce: Callable[[], str] | None = None) -> None:
        super().__init__(token_id, secret)
        self.nonce = nonce or (lambda: str(next_nonce(token_id)))

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign the prepared request in place."""
        r.headers.setdefault("Content-Type", "application/json")
        r.headers["X-Quoine-API-Version"] = "2"
        claims = {"path": r.path_url, "nonce": self.nonce(), "token_id": self.key_id}
        # The vectors have the header's keys unsorted.
        r.headers["X-Quoine-Auth"] = jwt.encode(claims, self.secret, algorithm="HS256", sort_headers=False)
        return r


def next_nonce(token_id: str, *, folder: Path | None = None) -> int:
    """
    Take the next nonce of a key: the time in ms, or one more than the last, whichever is larger.

    The nonces of a key are strictly increasing over all threads and processes of one user on one host, also when the
    clock is set back: the last nonce is kept in a small locked file. ("Nonce is too small" is the best-known complaint,
    facts, Signing.) They are not over several hosts or users of a host, nor when two requests overtake each other on
    their way. The exchange then refuses with 401, and nothing was done.

    :param token_id: the key's id; only a hash of it shows in the file's name.
    :param folder: of the file; by default the system's folder for temporary files.
    :return: milliseconds since 1970.
    :raises QuoineInputError: the file cannot be opened or written, so there is no safe nonce.
    """
    key = hashlib.sha256(token_id.encode()).hexdigest()[:16]
    path = (folder or Path(tempfile.gettempdir())) / f"quoine-nonce-{os.getuid()}-{key}"
    try:
        # O_NOFOLLOW: everybody may write to the folder, and a link planted there must not redirect the write.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            # Each call opens the file anew: so the lock excludes other threads as it excludes other processes.
            fcntl.flock(handle, fcntl.LOCK_EX)
            last = os.pread(handle, 20, 0).strip()
            nonce = max(time.time_ns() // 1_000_000, int(last) + 1 if last.isdigit() else 0)
            os.pwrite(handle, f"{nonce:020d}".encode(), 0)
        finally:
            os.close(handle)
    except OSError as error:
        raise QuoineInputError(
            f"The last nonce of this key could not be kept in {path} ({error.strerror}); nothing was sent. Make "
            "the folder for temporary files writable, or use the signing scheme 'apiauth', which needs no file."
        ) from None
    return nonce
