"""The trigger of deferred captures: a market stream for hours, into files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_quoine.captures.capture import capture
from airflow_provider_quoine.captures.spec import CaptureSpec
from airflow_provider_quoine.exchange.errors import QuoineError, QuoineInputError
from airflow_provider_quoine.triggers.events import Outcome, Status


class QuoineCaptureTrigger(BaseTrigger):
    """
    Capture a stream for a time, into files that are written while it goes on.

    Its one event is an :class:`~airflow_provider_quoine.triggers.events.Outcome`: ``success`` with a summary (``path``,
    which is a pattern of the files, ``files``, ``rows``, ``gaps``, ``gap_seconds``, ``reconnects``, ``dropped``,
    ``skipped``, ``from``, ``until``); ``empty`` if not one snapshot was there; ``refused`` if the input is wrong;
    ``error`` if the capture could not go on. Nothing in it is secret.

    Started again with the same arguments it goes on where the files end, and states the time between as a gap.

    :param quoine_conn_id: connection that names the stream.
    :param stream: type of the rows: ``order_book``, ``product``, ``execution`` or ``event``.
    :param folder: where the files go, of this capture only: a local path or any URI of ``ObjectStoragePath``.
    :param file_format: ``jsonl``, ``jsonl.gz`` or ``parquet``.
    :param began_at: ISO 8601 with an offset.
    :param duration: seconds from then on; ``order_book`` and ``product`` end with the last snapshot in it.
    :param part_seconds: of one file.
    :param pair: currency pair code; None for ``event``.
    :param channels: for ``event``.
    :param interval: seconds between two snapshots, for ``order_book`` and ``product``.
    :param depth: rows to keep of each side, for ``order_book``.
    :param product_id: the exchange's number, for ``product``; None where it is on record.
    :param on_doubt: what to do with a snapshot that is stale or crossed: ``mark``, ``skip``, ``fail``.
    """

    def __init__(
        self,
        *,
        quoine_conn_id: str,
        stream: str,
        folder: str,
        file_format: str,
        began_at: str,
        duration: float,
        part_seconds: float,
        pair: str | None = None,
        channels: Sequence[str] = (),
        interval: float | None = None,
        depth: int | None = None,
        product_id: int | None = None,
        on_doubt: str = "mark",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's has no types
        self.quoine_conn_id = quoine_conn_id
        self.arguments: dict[str, Any] = {
            "stream": stream,
            "folder": folder,
            "file_format": file_format,
            "began_at": began_at,
            "duration": duration,
            "part_seconds": part_seconds,
            "pair": pair,
            "channels": list(channels),
            "interval": interval,
            "depth": depth,
            "product_id": product_id,
            "on_doubt": on_doubt,
        }

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments; Airflow rebuilds the trigger from them in a triggerer."""
        return f"{__name__}.{type(self).__qualname__}", {"quoine_conn_id": self.quoine_conn_id, **self.arguments}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event. Only name look-up, imports, certificates and files take long: on other threads."""
        try:
            result = await capture(CaptureSpec.of(**self.arguments), quoine_conn_id=self.quoine_conn_id)
            status = Status.EMPTY if result.empty else Status.SUCCESS
            outcome = Outcome(status=status, result=result.summary, message=result.empty)
        except QuoineInputError as error:
            outcome = Outcome(status=Status.REFUSED, message=str(error))
        except (QuoineError, AirflowException) as error:
            outcome = Outcome(status=Status.ERROR, message=str(error))
        yield outcome.as_event()
