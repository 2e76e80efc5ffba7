"""A notifier that writes down what people are told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from airflow.sdk import BaseNotifier

TOLD = "told.jsonl"
"""A file in Airflow's home: who has told people, and what."""


class Telling(BaseNotifier):
    """
    Write down what people are told.

    :param by: who tells
    """

    template_fields = ("message",)

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by = by
        self.message = "{{ exception }}"

    def notify(self, context: Any) -> None:
        """Append a line."""
        with (Path(os.environ["AIRFLOW_HOME"]) / TOLD).open("a") as file:
            file.write(json.dumps([self.by, self.message]) + "\n")
