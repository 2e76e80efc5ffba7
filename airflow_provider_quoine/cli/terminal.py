"""What the commands of ``airflow quoine`` share: errors of a store, and words for a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def store_errors(path: str) -> Iterator[None]:
    """
    Say in words why a store cannot be used.

    :raises SystemExit: then.
    """
    try:
        yield
    except (OSError, ImportError, ValueError) as error:
        raise SystemExit(f"{path} cannot be used: {type(error).__name__}: {error}") from None


def say(text: str) -> None:
    """Print a line."""
    # A terminal takes control characters for commands.
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    print(text)  # noqa: T201 - the command's answer
