"""What a browser sends for a new applicant, and what a hostile one might."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tests.plugins.browser import Person, token_in
from tests.support.documents import JPEG, PDF, PNG

BOUNDARY = "----a-boundary-of-a-test"
#: Each of them is searched for where it must not be: no other test has them.
TEXTS = {
    "first_name": "Hanako-Marker",
    "last_name": "Suzuki-Marker",
    "email": "hanako-marker@example.com",
    "phone": "+81 90-8642-7531",
    "country": "JP",
    "first_furi_name": "ハナコシルシ",
    "last_furi_name": "スズキシルシ",
    "address": "1-2-3 Marunouchi-Marker",
    "city": "Tokyo-Marker",
    "postcode": "106-86420-Marker",
    "dag_id": "create_applicant",
}


@dataclass(frozen=True)
class Part:
    """One part of a form: a text, or a file if it has a name."""

    content: bytes
    name: str | None = None
    head: bytes = b""

    def write(self, field: str) -> bytes:
        """Write it as a browser does."""
        named = "" if self.name is None else f'; filename="{self.name}"'
        head = f'Content-Disposition: form-data; name="{field}"{named}\r\n'.encode()
        return head + self.head + b"\r\n" + self.content + b"\r\n"


FILES = {
    "id_document": Part(PDF, "passport-marker.pdf"),
    "proof_address": Part(PNG, "bill-marker.PNG"),
    "bank_statement": Part(JPEG, "statement-marker.jpeg"),
}


def form_of(token: str, **changes: Any) -> dict[str, Part]:
    """Fill in the form, but for changes: a text, a part, or None for a field that is left out."""
    form = {field: Part(text.encode()) for field, text in {"token": token, **TEXTS}.items()} | FILES
    for field, change in changes.items():
        form[field] = Part(change.encode()) if isinstance(change, str) else change
    return {field: part for field, part in form.items() if part is not None}


def body_of(form: Mapping[str, Part] | list[tuple[str, Part]], boundary: str = BOUNDARY) -> bytes:
    """Write a whole form."""
    parts = form.items() if isinstance(form, Mapping) else form
    start = f"--{boundary}\r\n".encode()
    return b"".join(start + part.write(field) for field, part in parts) + f"--{boundary}--\r\n".encode()


def token_for(person: Person) -> str:
    """Open the form, and return its token."""
    return token_in(person.get("/applicants/new").text)


def post(person: Person, body: bytes, **headers: str) -> Any:
    """Send a form as a browser does, but for headers."""
    said = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Accept": "text/html", **headers}
    # The answer is not to be unpacked either.
    return person.request("POST", "/applicants/new", content=body, headers={**said, "Accept-Encoding": "identity"})


def send(person: Person, token: str = "", **changes: Any) -> Any:
    """Open the form, fill it in but for changes, and send it."""
    return post(person, body_of(form_of(token or token_for(person), **changes)))


def named(field: str, name: str) -> Part:
    """Return the right file of a field under another name."""
    return replace(FILES[field], name=name)
