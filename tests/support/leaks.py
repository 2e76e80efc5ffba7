"""A search for secrets in whatever Airflow and the exchange left behind."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, quote_plus


def disguises(secret: str) -> set[bytes]:
    """
    List the forms in which a secret could stand somewhere: as it is, in JSON, in a URL, in base64.

    Base64 of a text that holds the secret depends on what stands before it, so the three alignments are cut to the
    characters that the secret alone decides.
    """
    raw = secret.encode()
    forms = {raw, json.dumps(secret)[1:-1].encode(), quote(secret, safe="").encode(), quote_plus(secret).encode()}
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\0" * shift + raw)
            last = len(encoded) - (0 if (shift + len(raw)) % 3 == 0 else 4)
            forms.add(encoded[(0, 2, 3)[shift] : last])
    return forms


def cells(database: Path) -> Iterator[tuple[str, bytes]]:
    """Give every value of every column of every table, with the name of its place."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            rows = connection.execute(f'SELECT * FROM "{table}"')
            columns = [description[0] for description in rows.description]
            for row in rows:
                for column, value in zip(columns, row, strict=True):
                    yield f"{table}.{column}", value if isinstance(value, bytes) else str(value).encode()


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Give every file below a folder, the database's own left out: its rows are read instead."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("airflow.db"):
            yield str(path.relative_to(folder)), path.read_bytes()


def find(secrets: Mapping[str, str], places: Iterable[tuple[str, bytes]]) -> set[tuple[str, str]]:
    """
    Look for secrets in any disguise.

    :param secrets: what it is → the secret
    :param places: name of the place → what stands there
    :return: (what it is, where it stands); never the secret
    """
    needles = [(name, form) for name, secret in secrets.items() for form in disguises(secret)]
    return {(name, place) for place, text in places for name, form in needles if form in text}
