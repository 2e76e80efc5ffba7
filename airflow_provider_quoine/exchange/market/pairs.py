"""Currency pairs."""

from __future__ import annotations

import re
from typing import Self

from airflow_provider_quoine.exchange.errors import QuoineInputError

_CODE = re.compile(r"[A-Za-z0-9]+")


class Pair(str):
    """
    The code of a currency pair as channel names have it, such as ``btcjpy``. It is checked where a pair enters.

    In events and serialized arguments write ``str(pair)``: Airflow's messages between processes (msgpack) accept no
    subclass of ``str``.

    :param code: letters and digits in upper or lower case, without a separator.
    :raises QuoineInputError: if it is anything else.
    """

    __slots__ = ()

    def __new__(cls, code: str) -> Self:
        if isinstance(code, cls):
            return code
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise QuoineInputError(f"{code!r} is no currency pair: give its code without separators, such as 'btcjpy'.")
        return super().__new__(cls, code.lower())
