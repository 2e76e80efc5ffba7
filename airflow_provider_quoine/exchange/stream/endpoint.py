"""The address of a stream's server."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class PusherEndpoint:
    """
    The server of the market streams (facts, Streams: all of it must be a setting).

    :param key: application key; handed out on contact, so not shown.
    :param host: server's name or address.
    :param port: server's port.
    :param tls: whether to encrypt; the certificate is always verified then.
    :param ca_path: PEM file or directory with the authorities to trust instead of the system's.
    """

    key: str = field(repr=False)
    host: str
    port: int
    tls: bool = True
    ca_path: str | None = None
