"""
The manifest of a capture: what it was to be, its parts with their SHA-256, its gaps, and how complete it is.

A capture writes it when it has ended and all is stored. Of two copies that end at the same time, each writes it anew
until no part has changed meanwhile; and so does one that goes on later.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_quoine.formats.entries import FOR_MERGING, SCHEMA_VERSION, stored_part, times_of, totals
from airflow_provider_quoine.formats.pieces import Span

SUFFIX = ".manifest.json"


class ManifestError(ValueError):
    """A manifest is not as a capture wrote it."""


def manifest_name(stem: str) -> str:
    """Return the name of a manifest; ``stem`` is what the names of all parts begin with."""
    return f"_{stem}{SUFFIX}"


def manifest_of(capture: Mapping[str, Any], span: Span, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """
    Return a manifest as JSON-able data.

    :param capture: what it was to be.
    :param span: its time.
    :param entries: those of its parts, in their order.
    """
    sums = sums_of(entries)
    return {
        "schema_version": SCHEMA_VERSION,
        # Where it is may change: somebody copies it elsewhere.
        "capture": {name: value for name, value in capture.items() if name != "folder"},
        **times_of(span),
        **sums,
        "completeness": completeness(capture, sums),
        "parts": [{of: value for of, value in entry.items() if of not in FOR_MERGING} for entry in entries],
    }


def read_manifest(content: bytes) -> dict[str, Any]:
    """
    Read a manifest.

    :raises ManifestError: if it is none, or not as a capture wrote it.
    """
    try:
        manifest = json.loads(content)
        version, digest = manifest["schema_version"], manifest["digest"]
    except (ValueError, TypeError, LookupError, RecursionError):
        raise ManifestError("it is no manifest") from None
    if version != SCHEMA_VERSION:
        raise ManifestError(
            f"it is of schema version {version!r:.20}, and this version of the provider reads {SCHEMA_VERSION}"
        )
    if digest != _digest(manifest) or as_bytes(manifest) != content:
        raise ManifestError("it was edited")
    found: dict[str, Any] = manifest
    return found


def as_bytes(manifest: Mapping[str, Any]) -> bytes:
    """Write a manifest, with a digest that tells an edit."""
    return json.dumps({**manifest, "digest": _digest(manifest)}, indent=1, allow_nan=False).encode() + b"\n"


def sums_of(entries: Sequence[Mapping[str, Any]]) -> dict[str, int | float]:
    """Sum up parts."""
    return {**totals([stored_part(each) for each in entries]), "bytes": sum(each["bytes"] for each in entries)}


def completeness(capture: Mapping[str, Any], sums: Mapping[str, float]) -> float:
    """
    Return how much of a capture is there, from 0 to 1; it is 1 only if nothing is missing.

    That is the share of its time outside of the gaps; or, if that is less, of the snapshots that were due.
    """
    shares: list[float] = [1 - sums["gap_seconds"] / capture["duration"]]
    if capture["interval"] is not None:
        shares.append(sums["rows"] / round(capture["duration"] / capture["interval"]))
    # Rounded down: what is nearly whole must not look whole.
    return max(0, math.floor(min(shares) * 1_000_000)) / 1_000_000


def _digest(manifest: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
