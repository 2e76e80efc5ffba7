"""Raw captures of a stream, played again in place of the random walk: same events, order and distances in time."""

from __future__ import annotations

import asyncio
import gzip
import heapq
import json
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from airflow_provider_quoine.sandbox.pusher import CHANNEL

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CapturedEvent:
    """
    One row of a raw capture.

    :param received_at: when it was received, in Unix seconds
    :param channel: channel name
    :param event: event name
    :param data: the data, a string
    """

    received_at: float
    channel: str
    event: str
    data: str


def _seconds(received_at: Any) -> float:
    moment = datetime.fromisoformat(received_at)
    if moment.tzinfo is None:
        raise ValueError("received_at has no time zone")
    return moment.timestamp()


def _read_row(line: str) -> CapturedEvent | None:
    """
    Read one line.

    :return: None for a row that is no event, such as one that states a gap
    :raises ValueError: if it is no row of a raw capture
    """
    row = json.loads(line)
    if not isinstance(row, dict) or not isinstance(row.get("type"), str):
        raise ValueError("a JSON object with a type is wanted")
    if row["type"] != "event":
        return None
    missing = [name for name in ("received_at", "channel", "event", "data") if not isinstance(row.get(name), str)]
    if missing:
        raise ValueError(f"{', '.join(missing)} must be there, as a string")
    if not CHANNEL.fullmatch(row["channel"]):
        raise ValueError("channel is no channel's name")
    return CapturedEvent(_seconds(row["received_at"]), row["channel"], row["event"], row["data"])


def read_capture(path: Path) -> Iterator[CapturedEvent]:
    """
    Read the events of a raw capture, JSON Lines, one after another.

    :param path: the file; packed if its name ends in ``.gz``
    :raises ValueError: if it cannot be read, with the file, the line and what is wrong with it
    """
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as lines:
            for line in lines:
                number += 1
                if event := _read_row(line.decode("utf-8")):
                    yield event
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number}: no JSON: {error.msg}") from None
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}, after line {number}: damaged: {error}") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None


class Replay:
    """
    Plays raw captures, read anew each time: they may be larger than memory.

    :param paths: the files; their events are merged by time, and those of one file keep their order
    :param publish: takes channel, event and data of each event when it is due
    :raises ValueError: when one is no raw capture, or when there is no event in any
    """

    def __init__(self, *, paths: Sequence[Path], publish: Callable[[str, str, str], Any]) -> None:
        self._paths = tuple(paths)
        self._publish = publish
        self._playing: asyncio.Task[None] | None = None
        self._played = 0
        self.events = 0
        channels = set()
        for event in self._read():
            self.events += 1
            channels.add(event.channel)
        if not channels:
            raise ValueError(f"{', '.join(map(str, self._paths))}: no event to replay")
        #: The channels that have events.
        self.channels = frozenset(channels)

    def _read(self) -> Iterator[CapturedEvent]:
        return heapq.merge(*map(read_capture, self._paths), key=attrgetter("received_at"))

    @property
    def begun(self) -> bool:
        """Whether it was started, and not taken back."""
        return self._playing is not None

    def start(self, *, after: float, speed: float) -> None:
        """
        Play from the beginning, once; what is being played ends.

        :param after: seconds until the first event
        :param speed: how many times as fast as it was received
        """
        self.stop()
        self._playing = asyncio.create_task(self._play(after, speed))

    def stop(self) -> None:
        """End what is being played, as if it had never begun."""
        if self._playing is not None:
            self._playing.cancel()
        self._playing = None
        self._played = 0

    async def close(self) -> None:
        """End what is being played, and wait for its end."""
        playing = self._playing
        self.stop()
        if playing is not None:
            await asyncio.gather(playing, return_exceptions=True)

    async def _play(self, after: float, speed: float) -> None:
        try:
            await self._publish_all(after, speed)
        except ValueError as error:
            logger.error("The replay has ended, since a file was changed: %s", error)

    async def _publish_all(self, after: float, speed: float) -> None:
        loop = asyncio.get_running_loop()
        begin, first = loop.time() + after, None
        for event in self._read():
            first = event.received_at if first is None else first
            await asyncio.sleep(begin + (event.received_at - first) / speed - loop.time())
            self._publish(event.channel, event.event, event.data)
            self._played += 1

    def figures(self) -> dict[str, Any]:
        """Tell how many events there are, how many were played, and whether more will come by themselves."""
        playing = self._playing is not None and not self._playing.done()
        return {"events": self.events, "played": self._played, "playing": playing}
