"""The search for secrets finds them in every encoding and place."""

from __future__ import annotations

import base64
import json
import sqlite3
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.support.leaks import cells, contents, find

SECRET = 'a+/ü"1?>~\\secret=='


@pytest.mark.parametrize(
    "hidden",
    [
        SECRET,
        json.dumps({"api_secret": SECRET}),
        urlencode({"password": SECRET}),
        *(base64.b64encode(("." * shift + SECRET + "tail").encode()).decode() for shift in range(3)),
        *(base64.urlsafe_b64encode(("." * shift + SECRET).encode()).decode() for shift in range(3)),
    ],
)
def test_a_secret_is_found_in_every_disguise(hidden: str) -> None:
    assert find({"it": SECRET}, [("here", f"before {hidden} after".encode())]) == {("it", "here")}
    assert find({"it": SECRET}, [("here", b"before after")]) == set()


def test_every_table_and_every_file_is_searched(tmp_path: Path) -> None:
    database = tmp_path / "airflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE one (id INTEGER, kept BLOB)")
        connection.execute("CREATE TABLE two (words TEXT)")
        connection.execute("INSERT INTO one VALUES (1, ?)", (b"\x80" + SECRET.encode(),))
        connection.execute("INSERT INTO two VALUES (?)", (SECRET,))
    connection.close()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "task.log").write_text(SECRET)
    assert find({"it": SECRET}, cells(database)) == {("it", "one.kept"), ("it", "two.words")}
    assert find({"it": SECRET}, contents(tmp_path)) == {("it", "logs/task.log")}
