"""A client of the partner API for the sandbox's tests, with signing code of its own (facts, Signing)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import requests

from airflow_provider_quoine.sandbox.server import SandboxServer

ADDRESS = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"
PASSWORD = "Passw0rd-of-a-user"
FIELDS = {
    "first_name": "Hanako",
    "last_name": "Yamada",
    "phone": "+819017901357",
    "email": "hanako@example.com",
    "country": "JP",
    "password": PASSWORD,
}
DOCUMENTS = {
    "id_document": ("passport.pdf", b"%PDF-1"),
    "proof_address": ("bill.JPG", b"\xff\xd8"),
    "bank_statement": ("statement.png", b"\x89PNG"),
}


@dataclass(frozen=True)
class Key:
    """An API key."""

    api_id: str
    secret: str


def apiauth(key: Key, request: requests.PreparedRequest, **changes: str) -> dict[str, str]:
    """Sign with APIAuth; ``changes`` replaces signed parts: date, nonce, md5."""
    body = request.body or b""
    body = body.encode() if isinstance(body, str) else body
    parts = {
        "content_type": request.headers.get("Content-Type", ""),
        "md5": base64.b64encode(hashlib.md5(body).digest()).decode(),
        "target": request.path_url,
        "date": formatdate(usegmt=True),
        "nonce": uuid.uuid4().hex,
    } | changes
    signature = base64.b64encode(hmac.digest(key.secret.encode(), ",".join(parts.values()).encode(), "sha1"))
    return {
        "Date": parts["date"],
        "NONCE": parts["nonce"],
        "Content-MD5": parts["md5"],
        "Authorization": f"APIAuth {key.api_id}:{signature.decode()}",
    }


def _segment(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def token(key: Key, claims: dict[str, Any], alg: str = "HS256") -> str:
    """Write a JWT by hand."""
    signed = ".".join(_segment(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": alg}, claims))
    return f"{signed}.{_segment(hmac.digest(key.secret.encode(), signed.encode(), 'sha256'))}"


def quoine_jwt(key: Key, request: requests.PreparedRequest, **changes: Any) -> dict[str, str]:
    """Sign with JWT; ``changes`` replaces claims."""
    claims = {"path": request.path_url, "nonce": str(time.time_ns()), "token_id": key.api_id} | changes
    return {"X-Quoine-API-Version": "2", "X-Quoine-Auth": token(key, claims)}


def status_and_json(response: requests.Response) -> tuple[int, object]:
    """Return the status and the decoded body of a response."""
    return response.status_code, response.json()


Sign = Callable[[Key, requests.PreparedRequest], dict[str, str]]


class Partner:
    """Calls a sandbox with the vendor's key or a user's."""

    def __init__(self, sandbox: SandboxServer) -> None:
        self.sandbox = sandbox
        self.control = sandbox.control
        self.vendor = Key(sandbox.vendor_id, sandbox.vendor_secret)

    def call(
        self,
        method: str,
        path: str,
        key: Key,
        *,
        sign: Sign = apiauth,
        timeout: float | tuple[float, float] = 60,
        **parts: Any,
    ) -> requests.Response:
        """Send one signed request on a new connection."""
        request = requests.Request(method, self.sandbox.url + path, **parts).prepare()
        request.headers.update(sign(key, request))
        with requests.Session() as session:
            session.trust_env = False
            return session.send(request, timeout=timeout, allow_redirects=False)

    def onboard(self, **changes: Any) -> requests.Response:
        """Onboard a user; ``changes`` replaces fields and documents, None leaves one out."""
        parts = FIELDS | DOCUMENTS | changes
        fields = {name: part for name, part in parts.items() if isinstance(part, str)}
        documents = {name: part for name, part in parts.items() if isinstance(part, tuple)}
        return self.call("POST", "/users/onboarding", self.vendor, data=fields, files=documents)

    def status(self, user_id: int, password: str = PASSWORD) -> requests.Response:
        """Get a user's status."""
        payload = {"user_id": user_id, "password": password}
        return self.call("POST", "/users/onboarding_status", self.vendor, json=payload)

    def approved_user(self, **changes: Any) -> Key:
        """Onboard and approve a user, and return the user's key."""
        user_id = self.onboard(**changes).json()["user_id"]
        self.control.approve(user_id)
        response = self.status(user_id).json()
        return Key(response["api_id"], response["api_secret"])

    def code(self, user: Key) -> str:
        """Request a code and return it."""
        self.call("GET", f"/users/{user.api_id}/auth_code", user).raise_for_status()
        return self.control.latest_code(user.api_id)

    def withdraw(
        self,
        user: Key,
        code: str,
        amount: str = "0.5",
        address: str = ADDRESS,
        timeout: float | tuple[float, float] = 60,
    ) -> requests.Response:
        """Create a withdrawal. The amount is JSON text and sent unchanged."""
        body = f'{{"auth_code": "{code}", "btc_withdrawal": {{"amount": {amount}, "address": "{address}"}}}}'
        headers = {"Content-Type": "application/json"}
        return self.call("POST", "/btc_withdrawals/", user, data=body, headers=headers, timeout=timeout)

    def withdrawal(self, user: Key, withdrawal_id: int) -> requests.Response:
        """Get a withdrawal."""
        return self.call("GET", f"/btc_withdrawals/{withdrawal_id}", user)
