"""The ``quoine-sandbox`` command: the Quoine exchange on localhost, for trials and tests."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from airflow_provider_quoine.sandbox.settings import SandboxSettings, new_api_secret, new_pusher_secret

SECRET_VARIABLE = "QUOINE_SANDBOX_VENDOR_SECRET"
PUSHER_SECRET_VARIABLE = "QUOINE_SANDBOX_PUSHER_SECRET"
#: Options that are settings of the sandbox: name, type, placeholder and meaning.
OPTIONS: tuple[tuple[str, Callable[[str], Any], str, str], ...] = (
    ("host", str, "ADDRESS", "address to listen on"),
    ("vendor-id", str, "ID", "api_id of the vendor"),
    ("limit", int, "N", "requests per window and address"),
    ("window", float, "SECONDS", "length of that window"),
    ("market-rate", float, "N", "events per second and market channel"),
    ("seed", int, "N", "seed of the market's random walk"),
    ("replay-speed", float, "N", "2 replays twice as fast as received"),
    ("pusher-key", str, "KEY", "Pusher app key of the stream"),
    ("pusher-app-id", str, "ID", "Pusher app id, for publishing through Pusher's HTTP API"),
    ("code-digits", int, "N", "digits of an authentication code"),
)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="quoine-sandbox",
        description="The Quoine exchange's partner API and stream on localhost. It holds no money.",
        epilog=f"The vendor's API secret is read from {SECRET_VARIABLE}, and the Pusher app's from "
        f"{PUSHER_SECRET_VARIABLE}; secrets that are not set are generated and shown once.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--port", type=int, default=8799, help="port to listen on; 0 takes a free one")
    pace = parser.add_mutually_exclusive_group()
    described = "time per step of a user or withdrawal"
    pace.add_argument("--pace", type=float, default=SandboxSettings.pace, metavar="SECONDS", help=described)
    pace.add_argument("--manual", action="store_true", help="advance users and withdrawals by hand only")
    for name, kind, placeholder, described in OPTIONS:
        default = getattr(SandboxSettings, name.replace("-", "_"))
        add(f"--{name}", type=kind, default=default, metavar=placeholder, help=described)
    described = "raw captures to replay in place of the market"
    add("--replay", type=Path, nargs="+", default=(), metavar="FILE", help=described)
    add("--verbose", action="store_true", help="one line per request on standard error, without secrets")
    return parser.parse_args(argv)


def _fail(message: str) -> int:
    sys.stderr.write(f"quoine-sandbox: {message}\n")
    return 1


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the sandbox until SIGINT or SIGTERM.

    :return: exit code; 1 if it cannot start, with one line on standard error
    """
    given = vars(_arguments(argv))
    manual, pace, replay, verbose = (given.pop(name) for name in ("manual", "pace", "replay", "verbose"))
    missing = [name for name in ("fastapi", "uvicorn", "multipart", "websockets") if not importlib.util.find_spec(name)]
    if missing:
        return _fail(f"{', '.join(missing)} not installed: pip install 'airflow-provider-quoine[sandbox]'")
    vendor_secret, pusher_secret = os.environ.get(SECRET_VARIABLE), os.environ.get(PUSHER_SECRET_VARIABLE)
    try:
        settings = SandboxSettings(
            **given,
            pace=None if manual else pace,
            replay=tuple(replay),
            vendor_secret=vendor_secret or new_api_secret(),
            pusher_secret=pusher_secret or new_pusher_secret(),
        )
        # Not before the settings are right: FastAPI takes most of a second to import.
        from airflow_provider_quoine.sandbox.server import ForegroundServer

        server = ForegroundServer(settings)
    except (ValueError, OverflowError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"cannot listen: {error.strerror or error}")
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger(__package__).setLevel(logging.INFO if verbose else logging.WARNING)
    lines = [
        "This is a sandbox, no exchange, no money.",
        f"Listening on {server.url} (open it in a browser); Ctrl-C stops it.",
        f"Pusher's libraries publish as app {settings.pusher_app_id}, key {settings.pusher_key}, "
        + (f"secret as in {PUSHER_SECRET_VARIABLE}." if pusher_secret else f"secret {settings.pusher_secret}"),
    ]
    if replay := server.hub.stats()["replay"]:
        lines.append(f"The first subscription starts the replay of {replay['events']} events.")
    if vendor_secret:
        lines.append(f"The vendor {settings.vendor_id} signs with the secret in {SECRET_VARIABLE}.")
    else:
        lines.append("The vendor's connection for Airflow; its secret is shown this once:")
        lines.append(f"AIRFLOW_CONN_QUOINE_DEFAULT='{server.airflow_connection()}'")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    # uvicorn stops on these signals and then raises them again, which must not end this process with an error.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
