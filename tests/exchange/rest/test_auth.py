"""Signing: known answers of both schemes to the byte, and nonces that never repeat or fall."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.rest.auth import ApiAuth, JwtAuth, next_nonce

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text())
SECRET = VECTORS["secret"]


def prepared(auth: ApiAuth | JwtAuth, path: str, **given: Any) -> requests.PreparedRequest:
    method = "POST" if given.keys() & {"data", "files"} else "GET"
    return requests.Request(method, f"https://api.quoine.com{path}", auth=auth, **given).prepare()


@pytest.mark.parametrize("case", VECTORS["apiauth"]["cases"], ids=lambda case: case["request_uri"])
def test_apiauth_reproduces_the_known_answers(case: dict[str, str]) -> None:
    known = VECTORS["apiauth"]
    auth = ApiAuth(
        VECTORS["api_id"],
        SECRET,
        # Another zone, the same moment.
        clock=lambda: parsedate_to_datetime(known["date"]).astimezone(timezone(timedelta(hours=9))),
        nonce=lambda: known["nonce"],
    )
    body = {"data": case["body"]} if "body" in case else {}
    request = prepared(auth, case["request_uri"], headers={"Content-Type": case["content_type"]}, **body)

    assert request.headers["Authorization"] == f"APIAuth 25:{case['signature']}"
    assert request.headers.get("Content-MD5", "") == case["content_md5"]
    assert request.headers["Date"] == known["date"]
    assert request.headers["NONCE"] == known["nonce"]


def test_apiauth_signs_a_multipart_request_as_it_leaves_with_its_boundary() -> None:
    request = prepared(
        ApiAuth("25", SECRET), "/users/onboarding", files={"id_document": ("a.png", b"\x00\xff")}, data={"a": "b"}
    )

    assert isinstance(request.body, bytes)
    assert request.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    md5 = base64.b64encode(hashlib.md5(request.body).digest()).decode()
    assert request.headers["Content-MD5"] == md5
    text = ",".join(
        (
            request.headers["Content-Type"],
            md5,
            "/users/onboarding",
            request.headers["Date"],
            request.headers["NONCE"],
        )
    )
    signature = base64.b64encode(hmac.digest(SECRET.encode(), text.encode(), "sha1")).decode()
    assert request.headers["Authorization"] == f"APIAuth 25:{signature}"


def test_apiauth_signs_each_request_with_a_new_nonce_and_the_time_of_now() -> None:
    auth = ApiAuth("25", SECRET)
    requests_made = [prepared(auth, "/btc_withdrawals/20") for _ in range(50)]

    nonces = {request.headers["NONCE"] for request in requests_made}
    assert len(nonces) == 50
    assert all(len(nonce) == 32 and int(nonce, 16) >= 0 for nonce in nonces)
    age = datetime.now(UTC) - parsedate_to_datetime(requests_made[-1].headers["Date"])
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert requests_made[0].headers["Content-Type"] == "application/json"


def test_jwt_reproduces_the_known_answer() -> None:
    known = VECTORS["jwt"]
    request = prepared(JwtAuth("25", SECRET, nonce=lambda: known["claims"]["nonce"]), known["claims"]["path"])

    assert request.headers["X-Quoine-Auth"] == known["token"]
    assert request.headers["X-Quoine-API-Version"] == "2"
    assert "Authorization" not in request.headers


def test_jwt_signs_the_path_with_its_query() -> None:
    request = prepared(JwtAuth("25", SECRET, nonce=lambda: "1"), "/orders?currency_pair_code=BTCUSD")

    claims = jwt.decode(request.headers["X-Quoine-Auth"], SECRET, algorithms=["HS256"])
    assert claims["path"] == "/orders?currency_pair_code=BTCUSD"
    assert claims["token_id"] == "25"


def test_nonces_of_one_key_grow_over_threads_and_processes(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from airflow_provider_quoine.exchange.rest.auth import next_nonce\n"
        "print(*(next_nonce('25', folder=Path(sys.argv[1])) for _ in range(300)))"
    )
    others = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    with ThreadPoolExecutor(4) as pool:
        series = list(pool.map(lambda _: [next_nonce("25", folder=tmp_path) for _ in range(300)], range(4)))
    series += [list(map(int, process.communicate(timeout=200)[0].split())) for process in others]

    assert [len(one) for one in series] == [300] * 7
    assert all(one == sorted(set(one)) for one in series)
    assert len({nonce for one in series for nonce in one}) == 7 * 300


def test_a_nonce_is_the_time_in_milliseconds_and_grows_even_when_the_clock_was_ahead(tmp_path: Path) -> None:
    first = next_nonce("25", folder=tmp_path)
    assert abs(first / 1000 - datetime.now(UTC).timestamp()) < 60

    (file,) = tmp_path.iterdir()
    ahead = first + 10_000_000
    file.write_text(str(ahead))
    assert next_nonce("25", folder=tmp_path) == ahead + 1
    assert next_nonce("25", folder=tmp_path) == ahead + 2


def test_a_nonce_file_with_rubbish_in_it_is_written_anew(tmp_path: Path) -> None:
    next_nonce("25", folder=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"\xff rubbish that is longer than any number")

    first = next_nonce("25", folder=tmp_path)

    assert abs(first / 1000 - datetime.now(UTC).timestamp()) < 60
    assert next_nonce("25", folder=tmp_path) > first


def test_keys_do_not_share_nonces_and_the_file_does_not_name_the_key(tmp_path: Path) -> None:
    next_nonce("key-one", folder=tmp_path)
    next_nonce("key-two", folder=tmp_path)

    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 2
    assert not any("key" in name for name in names)


def test_no_nonce_is_better_than_an_unsafe_one(tmp_path: Path) -> None:
    next_nonce("25", folder=tmp_path)
    (file,) = tmp_path.iterdir()
    target = tmp_path / "somebody's file"
    target.write_text("precious")
    file.unlink()
    file.symlink_to(target)

    with pytest.raises(QuoineInputError, match="apiauth"):
        next_nonce("25", folder=tmp_path)
    assert target.read_text() == "precious"


def test_jwt_takes_its_nonces_from_the_shared_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    auth = JwtAuth("25", SECRET)

    tokens = [prepared(auth, "/btc_withdrawals/20").headers["X-Quoine-Auth"] for _ in range(3)]

    nonces = [int(jwt.decode(token, SECRET, algorithms=["HS256"])["nonce"]) for token in tokens]
    assert nonces == sorted(set(nonces))
    assert [path.stat().st_uid for path in tmp_path.iterdir()] == [os.getuid()]


@pytest.mark.parametrize("scheme", [ApiAuth, JwtAuth])
def test_a_repr_shows_the_id_and_hides_the_secret(scheme: type[ApiAuth | JwtAuth]) -> None:
    shown = repr(scheme("25", SECRET))

    assert "25" in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("api_id", "secret"),
    [("", SECRET), ("2 5", SECRET), ("25\r\nX: y", SECRET), ("2:5", SECRET), ("25", ""), ("25", f"{SECRET}\n")],
)
@pytest.mark.parametrize("scheme", [ApiAuth, JwtAuth])
def test_a_badly_pasted_key_is_refused_without_showing_it(
    scheme: type[ApiAuth | JwtAuth], api_id: str, secret: str
) -> None:
    with pytest.raises(QuoineInputError) as caught:
        scheme(api_id, secret)
    assert SECRET not in str(caught.value)
