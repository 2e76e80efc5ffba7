"""What is checked about an onboarding before anything is sent: by the task, and on the page before that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from airflow_provider_quoine.applications.application import Application
from airflow_provider_quoine.exchange.errors import QuoineFormError, QuoineInputError
from airflow_provider_quoine.exchange.models import Document, OnboardingUser


class _Kind(NamedTuple):
    """
    How a file of a type is known by its bytes. None is unpacked: a few bytes may unpack to gigabytes.

    :param begins: with one of these.
    :param ends: with this, somewhere near its end: programs append to files.
    :param near: how many bytes from the end count as near it; None for all.
    :param within: in how many bytes from its start it may begin.
    :param holds: this, somewhere.
    """

    begins: tuple[bytes, ...]
    ends: bytes
    near: int | None = 66_000
    within: int = 0
    holds: bytes = b""


# Phones append whole films to photographs.
_JPEG = _Kind((b"\xff\xd8\xff",), b"\xff\xd9", near=None)
_KINDS = {
    # ISO 32000-1, 7.5.2 and 7.5.5; readers take a header within the first 1024 bytes.
    "pdf": _Kind((b"%PDF-",), b"%%EOF", within=1024),
    # A ZIP file, with the record that ends it, of a fixed document sequence (ECMA-388, 9.1).
    "xps": _Kind((b"PK\x03\x04",), b"PK\x05\x06", holds=b".fdseq"),
    "jpg": _JPEG,
    "jpeg": _JPEG,
    "png": _Kind((b"\x89PNG\r\n\x1a\n",), b"IEND\xaeB`\x82"),
    "gif": _Kind((b"GIF87a", b"GIF89a"), b"\x3b", near=64),
}


def check_onboarding(
    form: Mapping[str, str], documents: Mapping[str, Callable[[], Document]], *, max_megabytes: float
) -> Application:
    """
    Check the whole form, and return it as it is sent.

    :param form: fields of :class:`~airflow_provider_quoine.exchange.models.OnboardingUser`.
    :param documents: field → reads the document, or raises.
    :param max_megabytes: the connection's limit for one document.
    :raises QuoineFormError: naming every fault of every field.
    """
    faults: dict[str, str] = {}
    read: dict[str, Document] = {}
    user = None
    try:
        user = OnboardingUser(**form)
    except QuoineFormError as error:
        faults |= error.faults
    for field, document in documents.items():
        try:
            read[field] = document()
            check_size(len(read[field].content), name=read[field].name, max_megabytes=max_megabytes)
            _check_content(read[field])
        except QuoineInputError as error:
            faults[field] = f"{field}: {str(error).rstrip('.')}"
    if user is None or faults:
        raise QuoineFormError.of(faults)
    return Application(user=user, documents=read)


def check_size(size: int, *, name: str, max_megabytes: float) -> None:
    """
    Refuse a document that is too large. No limit of the exchange is on record (facts, Onboarding).

    :param size: bytes.
    :param name: of the file, or its path.
    :raises QuoineInputError: if it is.
    """
    if size > max_megabytes * 1_000_000:
        raise QuoineInputError(
            f"the file {name!r:.120} has {size / 1_000_000:.1f} MB, more than the {max_megabytes:g} MB that the "
            "connection's field 'Largest document' allows"
        )


def _check_content(document: Document) -> None:
    """
    Refuse a file that is not what its name says, or not whole (decisions, Onboarding).

    :raises QuoineInputError: if it is not.
    """
    said = document.extension
    kind, content = _KINDS[said], document.content
    begins = any(content.find(mark, 0, kind.within + len(mark)) >= 0 for mark in kind.begins)
    if not begins or kind.holds not in content:
        raise QuoineInputError(
            f"the file {document.name!r:.120} is no {said.upper()} inside, whatever its name says: save it as one of "
            f"{', '.join(sorted(_KINDS))}, and give that"
        )
    if content.find(kind.ends, max(0, len(content) - (kind.near or len(content)))) < 0:
        raise QuoineInputError(
            f"the file {document.name!r:.120} is cut off: the end of a {said.upper()} is missing. Give the whole file"
        )
