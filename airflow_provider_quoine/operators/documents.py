"""Reading onboarding documents from local paths and object stores."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.models import Document

#: ``C:\\...``, ``C:/...``, or a share: ``\\\\server\\...``.
_OF_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def read_document(*, path: str, max_megabytes: float) -> Document:
    """
    Read a whole document.

    :param path: a local path or any URI that Airflow's ``ObjectStoragePath`` knows, such as
        ``s3://connection@bucket/passport.pdf``.
    :param max_megabytes: larger files are refused before they are read.
    :raises QuoineInputError: if this worker cannot read that kind of URI, or if the file does not exist, is empty, too
        large, or of a type that the exchange does not take.
    """
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_quoine.applications.checks import check_size
    from airflow_provider_quoine.exchange.errors import QuoineInputError
    from airflow_provider_quoine.exchange.models import Document

    if _OF_WINDOWS.match(path):
        raise QuoineInputError(
            f"{path!r} is a path of a Windows computer, which no worker can read. Put the file where the "
            "workers can read it, and give that path or URI."
        )
    try:
        source = ObjectStoragePath(path)
        found = source.is_file()
        size = source.stat().st_size if found else 0
    except (ImportError, ValueError) as error:
        raise QuoineInputError(
            f"this worker cannot read the store of {path!r}: {error}. Install the Airflow provider of that store, or "
            "give another path or URI."
        ) from None
    if not found:
        raise QuoineInputError(f"there is no file {path!r}. Give a path or a URI that this worker can read.")
    check_size(size, name=path, max_megabytes=max_megabytes)
    return Document(name=source.name, content=source.read_bytes())
