"""The commands that verify, draw and convert captures. They run wherever the captures can be read."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk import ObjectStoragePath

from airflow_provider_quoine.cli.terminal import say, store_errors
from airflow_provider_quoine.datasets.reading import one_capture
from airflow_provider_quoine.datasets.report import facts_of, write_report
from airflow_provider_quoine.datasets.tardis import convert
from airflow_provider_quoine.datasets.verification import verify
from airflow_provider_quoine.desk.opening import as_server
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.failures import WIDTH


def verify_(args: Namespace) -> None:
    """
    Verify all captures of a path.

    :raises SystemExit: if something is wrong.
    """
    with _reading(args.path):
        done = verify(args.path)
    for line in done.table(width=WIDTH):
        say(line)
    if done.faults:
        raise SystemExit(f"{len(done.faults)} faults: these captures are not as they were written.")
    say("Every part is as it was written, every row in its place, and all that is missing is stated.")


def report_(args: Namespace) -> None:
    """
    Draw a capture into a file beside it.

    :raises SystemExit: if it cannot be read.
    """
    with _reading(args.path):
        capture = one_capture(args.path)
        picture = write_report(capture, timezone=args.timezone)
        say(facts_of(capture.manifest))
    say(f"The picture is {picture}.")


def convert_(args: Namespace) -> None:
    """
    Write order books as tardis.dev's CSV.

    :raises SystemExit: if they cannot be read, or the store refuses.
    """
    with _reading(f"{args.path} or {args.folder}"):
        target, rows, left_out = convert(one_capture(args.path), ObjectStoragePath(args.folder), depth=args.depth)
    say(f"{rows} books are in {target}. {left_out} stale ones were left out.")


@contextmanager
def _reading(path: str) -> Iterator[None]:
    with as_server(), store_errors(path):
        try:
            yield
        except QuoineInputError as error:
            raise SystemExit(str(error)) from None
