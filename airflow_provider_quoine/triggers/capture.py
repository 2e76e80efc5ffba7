"""The trigger of deferred captures: a market stream for hours, into files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow_provider_quoine.captures.capture import capture
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.triggers.base import OutcomeTrigger
from airflow_provider_quoine.triggers.events import Outcome, Status


class QuoineCaptureTrigger(OutcomeTrigger):
    """
    Capture a stream for a time, into files that are written while it goes on.

    Its one event is an :class:`~airflow_provider_quoine.triggers.events.Outcome`: ``success`` with a summary (``path``,
    which is a pattern of the files, ``files``, ``rows``, ``gaps``, ``gap_seconds``, ``completeness``, ``reconnects``,
    ``dropped``, ``skipped``, ``from``, ``until``); ``empty`` if not one snapshot was there; ``refused`` if the input is
    wrong; ``error`` if the capture could not go on. Nothing in it is secret.

    Started again with the same arguments it goes on where the files end, and states the time between as a gap. Two at
    the same time write one set of files.

    :param quoine_conn_id: connection that names the stream.
    :param spec: the arguments of :meth:`~airflow_provider_quoine.captures.spec.CaptureSpec.of`, plain JSON.
    """

    def __init__(self, *, quoine_conn_id: str, spec: Mapping[str, Any]) -> None:
        super().__init__()
        self.quoine_conn_id = quoine_conn_id
        self.spec = dict(spec)

    def stored_arguments(self) -> dict[str, Any]:
        """Return connection and spec."""
        return {"quoine_conn_id": self.quoine_conn_id, "spec": self.spec}

    async def outcomes(self) -> AsyncIterator[Outcome]:
        """Capture, and yield the one outcome."""
        try:
            result = await capture(CaptureSpec.of(**self.spec), quoine_conn_id=self.quoine_conn_id)
        except QuoineInputError as error:
            yield Outcome(status=Status.REFUSED, message=str(error))
        else:
            status = Status.EMPTY if result.empty else Status.SUCCESS
            yield Outcome(status=status, result=result.summary, message=result.empty)
