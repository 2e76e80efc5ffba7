"""Counting how often a currency pair is checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from airflow_provider_quoine.exchange.market import pairs


@contextmanager
def counted_pair_checks() -> Iterator[list[str]]:
    """Yield the codes that were checked so far; a pair that is a ``Pair`` already is not checked again."""
    checked: list[str] = []

    class Counting:
        """The pattern of a code, which notes its use."""

        def fullmatch(self, code: str) -> re.Match[str] | None:
            """Match, and note the code."""
            checked.append(code)
            return pattern.fullmatch(code)

    pattern = pairs._CODE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "_CODE", Counting())
        yield checked
