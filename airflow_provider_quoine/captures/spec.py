"""The specification of a capture: checked once where it enters, and plain JSON on its way to the triggerer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_quoine.captures.parts import Periods
from airflow_provider_quoine.exchange.choices import checked_choice
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.market.channels import LONGEST_CHANNEL, executions_channel
from airflow_provider_quoine.exchange.market.order_book import OrderBook
from airflow_provider_quoine.exchange.market.pairs import Pair
from airflow_provider_quoine.exchange.market.sampling import OnDoubt
from airflow_provider_quoine.exchange.market.schedule import Schedule, moment, seconds
from airflow_provider_quoine.exchange.market.ticker import Ticker
from airflow_provider_quoine.formats.kinds import BY_TIME, FileFormat, StreamKind

if TYPE_CHECKING:
    from airflow_provider_quoine.exchange.market.subject import Subject

MAX_FILES = 20_000
"""Files of one capture at most."""


@dataclass(frozen=True, kw_only=True)
class CaptureSpec:
    """
    A capture, as it was checked by :meth:`of`.

    :param stream: the kind of stream.
    :param folder: where the files go, of this capture only: an absolute path or any URI of ``ObjectStoragePath``.
    :param periods: its time, and how it is cut into files.
    :param schedule: when snapshots are due; None where every event is captured.
    :param pair: None for ``event``.
    :param channels: to subscribe to, for ``event``; empty for the others.
    :param depth: rows to keep of each side of an order book; None keeps all.
    :param product_id: the exchange's number of a product; None where it is on record.
    :param on_doubt: how a snapshot is treated that is stale or crossed.
    """

    stream: StreamKind
    folder: str
    file_format: FileFormat
    periods: Periods
    schedule: Schedule | None
    pair: Pair | None
    channels: tuple[str, ...]
    depth: int | None
    product_id: int | None
    on_doubt: OnDoubt

    @classmethod
    def of(
        cls,
        *,
        stream: str,
        folder: str,
        file_format: str,
        began_at: str,
        part_seconds: float,
        duration: float | None = None,
        interval: float | None = None,
        count: int | None = None,
        pair: str | None = None,
        channels: Sequence[str] = (),
        depth: int | None = None,
        product_id: int | None = None,
        on_doubt: str = OnDoubt.MARK,
    ) -> Self:
        """
        Check what was given for a capture.

        :param began_at: ISO 8601 with an offset.
        :param part_seconds: length of the period that one file holds.
        :param duration: seconds.
        :param interval: seconds between two snapshots. Of ``interval``, ``count`` and ``duration`` give two.
        :param count: number of snapshots.
        :raises QuoineInputError: saying what is wrong.
        """
        kind = checked_choice(StreamKind, "stream", stream)
        begins_at = moment(began_at)
        schedule = None
        if kind in BY_TIME:
            schedule = Schedule.of(began_at=begins_at, interval=interval, count=count, duration=duration)
            if schedule.ends_at is None:
                raise QuoineInputError("A capture needs an end: give a duration or a count beside the interval.")
            ends_at = schedule.ends_at
        else:
            ends_at = begins_at + seconds("duration", duration)
        periods = Periods(began_at=begins_at, ends_at=ends_at, length=seconds("part_seconds", part_seconds))
        if periods.count > MAX_FILES:
            raise QuoineInputError(
                f"part_seconds is {part_seconds:g}, which makes {periods.count} files: give more seconds."
            )
        if "://" not in folder and not PurePath(folder).is_absolute():
            raise QuoineInputError(
                f"path is {folder!r:.200}: a relative path is another folder on each host. Nothing was captured. Give "
                "an absolute path or a URI; where several hosts run triggerers, one that all of them share."
            )
        spec = cls(
            stream=kind,
            folder=folder,
            file_format=checked_choice(FileFormat, "file_format", file_format),
            periods=periods,
            schedule=schedule,
            # A pair is given as code for all but raw events: those name their channels themselves.
            pair=None if kind is StreamKind.EVENT else Pair(pair),  # type: ignore[arg-type]  # it refuses None itself
            channels=_channels(channels) if kind is StreamKind.EVENT else (),
            depth=depth,
            product_id=product_id,
            on_doubt=checked_choice(OnDoubt, "on_doubt", on_doubt),
        )
        # Depth and product are checked where they are used.
        spec.subject()
        return spec

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON, from which :meth:`of` makes an equal one."""
        periods = self.periods
        return {
            "stream": str(self.stream),
            "folder": self.folder,
            "file_format": str(self.file_format),
            "began_at": periods.began_at.isoformat(),
            "duration": (periods.ends_at - periods.began_at).total_seconds(),
            "part_seconds": periods.length.total_seconds(),
            "interval": self.schedule and self.schedule.interval.total_seconds(),
            "pair": None if self.pair is None else str(self.pair),
            "channels": list(self.channels),
            "depth": self.depth,
            "product_id": self.product_id,
            "on_doubt": str(self.on_doubt),
        }

    @property
    def label(self) -> str:
        """Stream and pair, such as ``order_book_btcjpy``: the files' names begin with it."""
        return "_".join(filter(None, (self.stream, self.pair)))

    def subject(self) -> Subject | None:
        """Return what to take snapshots of; None where every event is captured."""
        match self.stream, self.pair:
            case StreamKind.ORDER_BOOK, Pair() as pair:
                return OrderBook(pair=pair, depth=self.depth)
            case StreamKind.PRODUCT, Pair() as pair:
                return Ticker(pair=pair, product_id=self.product_id)
        return None

    def event_channels(self) -> tuple[str, ...]:
        """Return the channels of which every event is captured."""
        return self.channels if self.pair is None else (executions_channel(self.pair),)


def _channels(names: Any) -> tuple[str, ...]:
    sequence = isinstance(names, Sequence) and not isinstance(names, str)
    if not (sequence and names and all(isinstance(one, str) and 1 <= len(one) <= LONGEST_CHANNEL for one in names)):
        raise QuoineInputError(f"channels is {names!r:.200}: give a list of channels' names.")
    return tuple(names)
