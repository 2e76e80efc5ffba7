"""Replay of raw captures in place of the generated market: same events, same order, same intervals."""

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

from airflow_provider_quoine.sandbox.stream.protocol import CHANNEL

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CapturedEvent:
    """
    One row of a raw capture.

    :param received_at: time of receipt, in Unix seconds
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

    :return: None for a row of another type, such as a gap
    :raises ValueError: if it is not a row of a raw capture
    """
    row = json.loads(line)
    if not isinstance(row, dict) or not isinstance(row.get("type"), str):
        raise ValueError("expected a JSON object with a type")
    if row["type"] != "event":
        return None
    missing = [name for name in ("received_at", "channel", "event", "data") if not isinstance(row.get(name), str)]
    if missing:
        raise ValueError(f"{', '.join(missing)} must be present, as a string")
    if not CHANNEL.fullmatch(row["channel"]):
        raise ValueError("channel is not a valid channel name")
    return CapturedEvent(_seconds(row["received_at"]), row["channel"], row["event"], row["data"])


def read_capture(path: Path) -> Iterator[CapturedEvent]:
    """
    Read the events of a raw capture (JSON Lines) one by one.

    :param path: the file; compressed if its name ends in ``.gz``
    :raises ValueError: naming file, line and error, if it cannot be read
    """
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as lines:
            for line in lines:
                number += 1
                if event := _read_row(line.decode("utf-8")):
                    yield event
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number}: not JSON: {error.msg}") from None
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}, after line {number}: damaged: {error}") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None


class Replay:
    """
    Replays raw captures. The files are read again for each replay, so they may be larger than memory.

    :param paths: the files; events are merged by time, and events of one file keep their order
    :param publish: called with channel, event and data of each event when it is due
    :raises ValueError: if a file is not a raw capture, or if no file contains an event
    """

    def __init__(self, *, paths: Sequence[Path], publish: Callable[[str, str, str], Any]) -> None:
        self._paths = tuple(paths)
        self._publish = publish
        self._task: asyncio.Task[None] | None = None
        self._published = 0
        self.events = 0
        channels = set()
        for event in self._read():
            self.events += 1
            channels.add(event.channel)
        if not channels:
            raise ValueError(f"{', '.join(map(str, self._paths))}: no event to replay")
        #: Channels that have events.
        self.channels = frozenset(channels)

    def _read(self) -> Iterator[CapturedEvent]:
        return heapq.merge(*map(read_capture, self._paths), key=attrgetter("received_at"))

    @property
    def started(self) -> bool:
        """Whether the replay was started and not stopped."""
        return self._task is not None

    def start(self, *, after: float, speed: float) -> None:
        """
        Replay once, from the beginning. A running replay is stopped.

        :param after: seconds until the first event
        :param speed: 2 replays twice as fast as received
        """
        self.stop()
        self._task = asyncio.create_task(self._run(after, speed))

    def stop(self) -> None:
        """Stop, and forget that the replay was started."""
        if self._task is not None:
            self._task.cancel()
        self._task = None
        self._published = 0

    async def close(self) -> None:
        """Stop, and wait for the end."""
        task = self._task
        self.stop()
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, after: float, speed: float) -> None:
        try:
            await self._publish_all(after, speed)
        except ValueError as error:
            logger.error("The replay stopped, because a file was changed: %s", error)

    async def _publish_all(self, after: float, speed: float) -> None:
        loop = asyncio.get_running_loop()
        start, first = loop.time() + after, None
        for event in self._read():
            first = event.received_at if first is None else first
            await asyncio.sleep(start + (event.received_at - first) / speed - loop.time())
            self._publish(event.channel, event.event, event.data)
            self._published += 1

    def stats(self) -> dict[str, Any]:
        """Return ``events`` (in all files), ``played`` (so far), ``playing`` (whether the replay is running)."""
        playing = self._task is not None and not self._task.done()
        return {"events": self.events, "played": self._published, "playing": playing}
