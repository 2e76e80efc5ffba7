"""Arguments that are one of a few words."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeVar

from airflow_provider_quoine.exchange.errors import QuoineInputError

_Choice = TypeVar("_Choice", bound=StrEnum)


def checked_choice(choices: type[_Choice], name: str, value: Any) -> _Choice:
    """
    Read an argument that is one of a few words.

    :param name: of the argument, for the message.
    :raises QuoineInputError: if it is none of them.
    """
    if value not in list(choices):
        words = ", ".join(repr(str(each)) for each in choices)
        raise QuoineInputError(f"{name} is {value!r:.40}: give one of {words}.")
    return choices(value)
