"""A server whose words would look like lines of the log."""

from __future__ import annotations

import logging

import pytest
from websockets.asyncio.server import ServerConnection

from tests.exchange.stream.pusher_servers import GREETING, websocket_server
from tests.support.streams import open_stream, our_records, until


async def test_a_servers_words_cannot_forge_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def script(connection: ServerConnection) -> None:
        await connection.send(GREETING)
        await connection.close(1001, "bye\r\n2026-11-26 root: \x1b[31mall is paid\u2028and well")

    async with websocket_server(script) as endpoint, open_stream(endpoint) as stream:
        await until(lambda: [one for one in our_records(caplog) if one.levelno == logging.WARNING])
        message = our_records(caplog)[-1].getMessage()
        assert "all is paid" in message
        assert message.isprintable(), "one line"
        assert (stream.problem or "").isprintable()
