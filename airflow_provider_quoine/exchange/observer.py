"""The interface through which requests and waits are reported; a hook's metrics implement it."""

from __future__ import annotations


class Observer:
    """Ignores all reports; subclasses override what they need. Methods are called on any thread and must not raise."""

    def requested(self, endpoint: str, outcome: str, seconds: float) -> None:
        """
        A request ended.

        :param endpoint: its name, such as ``get_withdrawal``.
        :param outcome: ``ok``, or the name of the error's class.
        :param seconds: from its first step to the end of its response, without the wait for a slot.
        """

    def waited(self, priority: str, seconds: float) -> None:
        """
        A slot of the request budget was taken.

        :param priority: ``urgent``, ``normal`` or ``polling``.
        :param seconds: waited for it.
        """

    def paused(self, seconds: float) -> None:
        """
        A 429 paused all processes that share the budget.

        :param seconds: how long.
        """
