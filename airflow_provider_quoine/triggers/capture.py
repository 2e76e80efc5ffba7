"""Deferred captures: what comes on the market streams for hours, into files."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_quoine.captures.parts import Windows
from airflow_provider_quoine.captures.run import CaptureRun
from airflow_provider_quoine.captures.schedule import Schedule, moment, seconds
from airflow_provider_quoine.captures.store import FORMATS, PartStore
from airflow_provider_quoine.captures.writer import CaptureWriter
from airflow_provider_quoine.exchange.errors import QuoineError, QuoineInputError
from airflow_provider_quoine.exchange.market.channels import LONGEST_CHANNEL, executions_channel
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.market.sampling import (
    OnDoubt,
    Sampler,
    Subject,
    execution_row,
    order_book,
    product,
)
from airflow_provider_quoine.hooks.quoine import QuoineHook
from airflow_provider_quoine.triggers.loop import spare_the_loop

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.stream.pusher import StreamEvent

log = logging.getLogger(__name__)

QUEUE = 10_000
"""Events that wait for a loop that is busy; beyond it the oldest is dropped, and counted."""

MOST_WINDOWS = 20_000
"""Parts of one capture at most."""


ARGUMENTS = (
    "quoine_conn_id",
    "stream",
    "folder",
    "file_format",
    "began_at",
    "duration",
    "part_seconds",
    "pair",
    "channels",
    "interval",
    "depth",
    "product_id",
    "on_doubt",
)


class QuoineCaptureTrigger(BaseTrigger):
    """
    Capture a stream for a time, into files that are written while it goes on.

    Its one event is ``{"status": "success", "path": pattern of the files, "files": number, "rows": number, "gaps":
    number, "gap_seconds": seconds, "reconnects": number, "dropped": number, "skipped": number, "from": time, "until":
    time}``; ``empty`` with a ``message`` if not one snapshot was there; or ``{"status": "refused" |
    "error", "message": words}``. Nothing in it is secret.

    Started again with the same arguments it goes on where the files end, and states the time between as a gap.

    :param quoine_conn_id: connection that names the stream.
    :param stream: type of the rows: ``order_book``, ``product``, ``execution`` or ``event``.
    :param folder: where the files go, of this capture only: a local path or any URI of ``ObjectStoragePath``.
    :param file_format: ``jsonl``, ``jsonl.gz`` or ``parquet``.
    :param began_at: ISO 8601.
    :param duration: seconds from then on.
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
        on_doubt: str = OnDoubt.MARK,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.quoine_conn_id = quoine_conn_id
        self.stream = stream
        self.folder = folder
        self.file_format = file_format
        self.began_at = began_at
        self.duration = duration
        self.part_seconds = part_seconds
        self.pair = pair
        self.channels = list(channels)
        self.interval = interval
        self.depth = depth
        self.product_id = product_id
        self.on_doubt = on_doubt

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments; Airflow rebuilds the trigger from them in a triggerer."""
        return f"{__name__}.{type(self).__qualname__}", {name: getattr(self, name) for name in ARGUMENTS}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event. Only name look-up, imports, certificates and files take long: on other threads."""
        spare_the_loop()
        try:
            payload = await self._capture()
        except QuoineInputError as error:
            payload = {"status": "refused", "message": str(error)}
        except (QuoineError, AirflowException) as error:
            payload = {"status": "error", "message": str(error)}
        yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    def check(self) -> None:
        """
        Check the arguments.

        :raises QuoineInputError: saying what is wrong.
        """
        self._windows()
        if self.stream not in (*BY_TIME, *EVERY):
            raise QuoineInputError(f"stream is {self.stream!r}: give one of {', '.join([*BY_TIME, *EVERY])}.")
        if self.file_format not in FORMATS:
            raise QuoineInputError(f"The format {self.file_format!r} is none: give one of {', '.join(FORMATS)}.")
        if self.stream in BY_TIME:
            self._schedule()
            BY_TIME[self.stream](self)
            OnDoubt.of(self.on_doubt)
        else:
            EVERY[self.stream].channels(self)

    def _windows(self) -> Windows:
        began_at, duration = moment(self.began_at), seconds("duration", self.duration)
        windows = Windows(
            began_at=began_at, ends_at=began_at + duration, length=seconds("part_seconds", self.part_seconds)
        )
        if windows.count > MOST_WINDOWS:
            raise QuoineInputError(
                f"part_seconds is {self.part_seconds:g}, which makes {windows.count} files: give more seconds."
            )
        return windows

    def _schedule(self) -> Schedule:
        return Schedule.of(began_at=moment(self.began_at), interval=self.interval, count=None, duration=self.duration)

    async def _capture(self) -> dict[str, Any]:
        self.check()
        windows = self._windows()
        label = "_".join(filter(None, (self.stream, self.pair and Pair(self.pair))))
        store = PartStore(
            folder=self.folder, label=label, stream=self.stream, file_format=self.file_format, windows=windows
        )
        writer = CaptureWriter(store=store, windows=windows)
        silence = ""
        try:
            await writer.open()
            if datetime.now(UTC) < windows.ends_at:
                log.info(
                    "Capturing into %s until %s; %d files are there already.",
                    store.pattern,
                    windows.ends_at.isoformat(),
                    len(writer.kept),
                )
                silence = await self._listen(windows, writer)
            elif not writer.kept:
                message = "The time of the capture was over before anything was written. The next try begins a new one."
                return {"status": "empty", "message": message}
            else:
                await writer.account(windows.ends_at)
                await writer.finish(writer.run())
        except QuoineError as error:
            if not writer.kept:
                raise
            told = writer.told()
            kept = f"{told['rows']} rows in {told['files']} files were kept: {store.pattern}. A retry goes on there."
            raise type(error)(f"{error} {kept}") from error
        finally:
            writer.stop()
        times = {"from": windows.began_at.isoformat(), "until": windows.ends_at.isoformat()}
        result = {"status": "success", "path": store.pattern, **writer.told(), **times}
        if self.stream in BY_TIME and not result["rows"]:
            return result | {"status": "empty", "message": silence or f"Not one row was captured: {store.pattern}."}
        return result

    async def _listen(self, windows: Windows, writer: CaptureWriter) -> str:
        from airflow_provider_quoine.exchange.stream.pusher import PusherStream

        endpoint = await QuoineHook(self.quoine_conn_id).aget_stream_endpoint()
        subject = BY_TIME[self.stream](self) if self.stream in BY_TIME else None
        channels = subject.channels if subject else EVERY[self.stream].channels(self)
        async with PusherStream(endpoint=endpoint, channels=channels, queue_size=None if subject else QUEUE) as stream:
            # One moment for both: a window that ended between two would be nobody's.
            since = datetime.now(UTC)
            await writer.account(since)
            run = CaptureRun(kind=self.stream, stream=stream, windows=windows, writer=writer, since=since)
            if subject is None:
                await run.run(partial(run.every, partial(EVERY[self.stream].row, self)))
                return ""
            sampler = Sampler(subject, stream, on_doubt=OnDoubt.of(self.on_doubt))
            await run.run(partial(run.by_time, sampler, self._schedule()))
            return sampler.silence(self.duration)


@dataclass(frozen=True, kw_only=True)
class Every:
    """
    A stream of which everything is captured.

    :param channels: names them.
    :param row: writes an event as JSON-able data.
    """

    channels: Callable[[QuoineCaptureTrigger], Sequence[str]]
    row: Callable[[QuoineCaptureTrigger, StreamEvent], dict[str, Any]]


def _raw_channels(trigger: QuoineCaptureTrigger) -> Sequence[str]:
    channels = trigger.channels
    wrong = [name for name in channels if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_CHANNEL]
    if not channels or wrong:
        raise QuoineInputError(f"channels is {channels!r:.200}: give a list of channels' names.")
    return channels


def _raw_row(trigger: QuoineCaptureTrigger, event: StreamEvent) -> dict[str, Any]:
    times = {"received_at": event.received_at.isoformat(), "connection": event.connection}
    return {**times, "channel": event.channel, "event": event.event, "data": event.data}


BY_TIME: Mapping[str, Callable[[QuoineCaptureTrigger], Subject]] = {
    "order_book": lambda trigger: order_book(pair=str(trigger.pair), depth=trigger.depth),
    "product": lambda trigger: product(pair=str(trigger.pair), product_id=trigger.product_id),
}
"""Streams of which the state is captured, by the rows' type."""

EVERY: Mapping[str, Every] = {
    "execution": Every(
        channels=lambda trigger: [executions_channel(Pair(str(trigger.pair)))],
        row=lambda trigger, event: {"pair": str(Pair(str(trigger.pair))), **execution_row(event)},
    ),
    "event": Every(channels=_raw_channels, row=_raw_row),
}
"""Streams of which every event is captured, by the rows' type."""
