"""A capture from its beginning, or from where its files end, to its summary."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_quoine.captures.run import CaptureRun
from airflow_provider_quoine.captures.store import PartStore
from airflow_provider_quoine.captures.writer import OPEN_PATIENCE, CaptureWriter
from airflow_provider_quoine.exchange.clock import CLOCK
from airflow_provider_quoine.exchange.errors import QuoineError
from airflow_provider_quoine.exchange.market.sampling import Sampler
from airflow_provider_quoine.formats.entries import totals
from airflow_provider_quoine.hooks.quoine import QuoineHook

if TYPE_CHECKING:
    from airflow_provider_quoine.captures.spec import CaptureSpec

log = logging.getLogger(__name__)

SUMMARY = ("files", "rows", "gaps", "gap_seconds", "completeness", "reconnects", "dropped", "skipped", "from", "until")
"""What a summary has of the manifest."""

QUEUE_SIZE = 10_000
"""Events that wait for a loop that is busy, 64 MiB at most; beyond it the oldest is dropped, and counted."""


@dataclass(frozen=True, kw_only=True)
class CaptureResult:
    """
    The result of a capture.

    :param summary: JSON-able: ``path`` (a pattern of the files), and what :data:`SUMMARY` names of the manifest.
    :param empty: why there is nothing, in words; empty if there is something.
    """

    summary: dict[str, Any]
    empty: str = ""


async def capture(spec: CaptureSpec, *, quoine_conn_id: str) -> CaptureResult:
    """
    Capture until the end of the spec's time, and write the files while that goes on.

    Started again with the same spec it goes on where the files end, and states the time between as a gap. Cancelled,
    it writes the unfinished part.

    :param quoine_conn_id: connection that names the stream.
    :raises QuoineInputError: if the store is not known here, or a file that is no part of the capture is in the way.
    :raises QuoineError: if the stream or the store cannot go on; the message says what was kept.
    :raises AirflowException: if there is no such connection.
    """
    periods = spec.periods
    store = PartStore(spec)
    writer = CaptureWriter(store=store, periods=periods)
    silence = ""
    try:
        lasts = CLOCK.now() < periods.ends_at
        await writer.open(patience=OPEN_PATIENCE if lasts else None)
        if lasts:
            until, found = periods.ends_at.isoformat(), writer.files
            log.info("Capturing into %s until %s; %d files are there already.", store.pattern, until, found)
            silence = await _listen(spec, writer, quoine_conn_id)
        elif not writer.files:
            reason = "The time of the capture was over before anything was written. The next try begins a new one."
            return CaptureResult(summary={}, empty=reason)
        manifest = await writer.seal()
    except QuoineError as error:
        parts = await writer.stored()
        if not parts:
            raise
        sums = totals(parts)
        kept = f"{sums['rows']} rows in {sums['files']} files were kept: {store.pattern}. A retry goes on there."
        raise type(error)(f"{error} {kept}") from error
    finally:
        writer.stop()
    summary = {"path": store.pattern, **{name: manifest[name] for name in SUMMARY}}
    empty = "" if spec.schedule is None or summary["rows"] else silence or f"Not one row was captured: {store.pattern}."
    return CaptureResult(summary=summary, empty=empty)


async def _listen(spec: CaptureSpec, writer: CaptureWriter, quoine_conn_id: str) -> str:
    """
    Take what comes until the end.

    :return: why no snapshot came, if none did.
    """
    from airflow_provider_quoine.exchange.stream.pusher import PusherStream

    endpoint = await QuoineHook(quoine_conn_id).aget_stream_endpoint()
    subject = spec.subject()
    channels, queue_size = (subject.channels, None) if subject else (spec.event_channels(), QUEUE_SIZE)
    async with PusherStream(endpoint=endpoint, channels=channels, queue_size=queue_size) as stream:
        run = CaptureRun(spec=spec, stream=stream, writer=writer)
        if subject is None or spec.schedule is None:
            await run.run(run.take_events)
            return ""
        sampler = Sampler(subject, stream, on_doubt=spec.on_doubt)
        await run.run(partial(run.take_snapshots, sampler, spec.schedule))
        return sampler.silence(spec.periods.ends_at - spec.periods.began_at)
