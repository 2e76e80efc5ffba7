"""
A market that remembers all that it sent: events numbered over all channels, at a rate, on a Pusher server.

It can fall into a black hole: connections stay open, nothing comes or is taken any more, new ones are not answered, and
at the end all of them are reset. Events go on meanwhile, whether somebody hears them or not.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from array import array
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from queue import SimpleQueue

from benchmarks.stream_link import PusherLink, frame

CHANNELS = ("price_ladders_cash_btcjpy_buy", "price_ladders_cash_btcjpy_sell", "executions_cash_btcjpy")

NUMBER_DIGITS = 9

_TICK = 0.005
"""Seconds between two sendings."""


def data_of(number: str, size: int) -> str:
    """Return an event's data: its number, and something to make it so many bytes long."""
    return f'{{"number":"{number}","filler":"{"x" * size}"}}'


def number_in(data: str) -> int:
    """
    Return the number of an event.

    :raises ValueError: if it is none of this market.
    """
    if not data.startswith('{"number":"'):
        raise ValueError(f"no event of this market: {data[:40]!r}")
    return int(data[11 : 11 + NUMBER_DIGITS])


@dataclass
class Sent:
    """
    What a market has sent.

    :param times: ``time.time()`` of each event, in the order of their numbers.
    :param subscribed: ``time.time()`` of each moment when a connection had subscribed to all channels.
    :param holes: beginnings and ends of black holes.
    """

    times: array[float] = field(default_factory=lambda: array("d"))
    subscribed: list[float] = field(default_factory=list)
    holes: list[tuple[float, float]] = field(default_factory=list)


class _Link(PusherLink):
    """A client whose network can vanish."""

    def __init__(self, link: socket.socket, market: Market) -> None:
        super().__init__(link, market.note_subscription)
        self.batches: SimpleQueue[bytes] = SimpleQueue()
        self.lost = False
        self._market = market

    def send(self, data: bytes) -> None:
        self._market.flowing.wait()
        if self.lost:
            raise ConnectionResetError("lost in a black hole")
        super().send(data)

    def send_batches(self) -> None:
        """Send what the market has for this client, for ever."""
        try:
            while True:
                self.send(self.batches.get())
        except OSError:
            self.lost = True


class Market:
    """
    The market and its clients.

    :param rate: events a second.
    :param size: bytes of an event's data, about.
    """

    def __init__(self, *, rate: float, size: int) -> None:
        self.sent = Sent()
        self.flowing = threading.Event()
        self.flowing.set()
        self._rate = rate
        self._frames = [
            frame("updated", channel, data_of("#" * NUMBER_DIGITS, size)).split(b"#" * NUMBER_DIGITS)
            for channel in CHANNELS
        ]
        self._links: list[_Link] = []
        self._listening: tuple[_Link, ...] = ()
        self._changing = threading.Lock()

    def accept(self, listener: socket.socket) -> None:
        """Take clients, for ever."""
        while True:
            link = _Link(listener.accept()[0], self)
            self._links.append(link)
            threading.Thread(target=link.serve, daemon=True).start()

    def note_subscription(self, link: PusherLink) -> None:
        """
        Send the market to a client that has subscribed to all channels.

        It is noted before the client is told. So an event that this client was not sent is older than any moment that
        the client can take for the beginning.
        """
        if set(link.channels) >= set(CHANNELS) and isinstance(link, _Link):
            with self._changing:
                self._listening = (*(each for each in self._listening if not each.lost), link)
            self.sent.subscribed.append(time.time())
            threading.Thread(target=link.send_batches, daemon=True).start()

    def run(self) -> None:
        """Send, for ever."""
        began = time.monotonic()
        times, frames = self.sent.times, self._frames
        while True:
            due = int((time.monotonic() - began) * self._rate)
            numbers = range(len(times), due)
            batch = b"".join(
                b"%b%0*d%b" % (before, NUMBER_DIGITS, number, after)
                for number in numbers
                for before, after in (frames[number % len(frames)],)
            )
            with self._changing:
                now = time.time()
                times.extend([now] * len(numbers))
                for link in self._listening:
                    link.batches.put(batch)
            time.sleep(_TICK)

    def black_hole(self, seconds: float) -> None:
        """Let the network vanish for a time."""
        began = time.time()
        self.flowing.clear()
        time.sleep(seconds)
        links, self._links = self._links, []
        for link in links:
            link.lost = True
        for link in links:
            link.reset()
        self.flowing.set()
        self.sent.holes.append((began, time.time()))


def serve(pipe: Connection, rate: float, size: int) -> None:
    """Serve; a number asks for a black hole of so many seconds, ``sent`` for all that was sent."""
    market = Market(rate=rate, size=size)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        pipe.send(listener.getsockname()[1])
        threading.Thread(target=market.accept, args=(listener,), daemon=True).start()
        threading.Thread(target=market.run, daemon=True).start()
        while (order := pipe.recv()) != "stop":
            if order == "sent":
                pipe.send(market.sent)
            else:
                threading.Thread(target=market.black_hole, args=(order,), daemon=True).start()
    os._exit(0)
