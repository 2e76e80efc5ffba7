"""A notifier that keeps what it is told."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseNotifier

TOLD: list[str] = []


class Telling(BaseNotifier):
    """
    Keep a message.

    :param message: a template.
    """

    template_fields = ("message",)

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    def notify(self, context: Any) -> None:
        """Keep it."""
        TOLD.append(self.message)
