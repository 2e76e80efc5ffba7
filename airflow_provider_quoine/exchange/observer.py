"""What the exchange's floor tells whoever counts requests: the seam that a hook's metrics fill."""

from __future__ import annotations


class Observer:
    """Is told what happens, and does nothing with it. Its methods are called from any thread and must not raise."""

    def requested(self, endpoint: str, outcome: str, seconds: float) -> None:
        """
        A request ended.

        :param endpoint: its name, such as ``get_withdrawal``.
        :param outcome: ``ok``, or the name of the error's class.
        :param seconds: from its first step to the end of its answer, without waiting for a slot.
        """

    def waited(self, priority: str, seconds: float) -> None:
        """
        A slot of the request budget was taken.

        :param priority: ``urgent``, ``normal`` or ``polling``.
        :param seconds: waited for it.
        """

    def paused(self, seconds: float) -> None:
        """
        A 429 paused everybody who shares the budget.

        :param seconds: how long.
        """
