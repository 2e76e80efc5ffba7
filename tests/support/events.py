"""The events of triggers, as a worker gets them."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_quoine.triggers.events import Outcome, Status


def event_of(status: str, *, result: dict[str, Any] | None = None, message: str = "") -> dict[str, Any]:
    """Return the event that a trigger ends with."""
    outcome = Outcome(status=Status(status), result=result or {}, message=message)
    event: dict[str, Any] = json.loads(json.dumps(outcome.as_event().payload))
    return event
