"""A registry: the users, or the withdrawals, by number."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Generic, TypeVar

from airflow_provider_quoine.sandbox.refusals import not_found

Resource = TypeVar("Resource")


class Registry(Generic[Resource]):
    """
    Resources by number, in the order in which they were created.

    :param first: the first number. Users begin at 1001 and withdrawals at 5001, so that a mix-up is noticed.
    """

    def __init__(self, *, first: int) -> None:
        self._by_number: dict[int, Resource] = {}
        self._numbers = itertools.count(first)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._by_number.values())

    def get(self, number: str | int) -> Resource:
        """Find a resource. Raises Refusal: 404."""
        text = str(number)
        found = self._by_number.get(int(text)) if text.isascii() and text.isdigit() else None
        if found is None:
            raise not_found()
        return found
