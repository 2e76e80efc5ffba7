"""Every shape of answer becomes the right error in the server's own words, and no secret comes along."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from airflow_provider_quoine.exchange.errors import (
    STATUS_ERRORS,
    QuoineNotFoundError,
    QuoineRateLimitedError,
    QuoineRefusedError,
    QuoineResponseError,
    QuoineServerError,
    QuoineServiceUnavailableError,
    QuoineUnauthorizedError,
    QuoineUnreadableAnswerError,
)
from airflow_provider_quoine.exchange.models import Withdrawal
from airflow_provider_quoine.exchange.rest.auth import ApiAuth, JwtAuth
from airflow_provider_quoine.exchange.rest.client import QuoineClient
from tests.exchange.rest.conftest import SECRET, MakeClient, order
from tests.exchange.rest.raw_server import RawServer, Script, answer, http_answer, raw_server

JSON = "Content-Type: application/json"
TEXT = "Content-Type: text/plain"
HTML = "Content-Type: text/html; charset=utf-8"
PASSWORD = "S3cret/päss<wörd>"
CODE = "771133"


def withdraw(client: QuoineClient) -> Withdrawal:
    return client.create_withdrawal(order=order(), auth_code=CODE)


def look_up(client: QuoineClient) -> Withdrawal:
    return client.get_withdrawal(withdrawal_id="20")


def ask_status(client: QuoineClient) -> object:
    return client.get_onboarding_status(user_id="25", password=PASSWORD)


def error_of(
    make_client: MakeClient, data: bytes, call: Callable[[QuoineClient], object] = withdraw
) -> QuoineResponseError:
    with raw_server(answer(data)) as server, pytest.raises(QuoineResponseError) as caught:
        call(make_client(server.url))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


SHAPES = {
    "message": (422, JSON, b'{"message": "Password cannot be blank"}', "Password cannot be blank"),
    "success and message": (422, JSON, b'{"success": false, "message": "Invalid address"}', "Invalid address"),
    "errors by field": (422, JSON, b'{"errors": {"user": ["not_enough_fund"]}}', "user: not_enough_fund"),
    "several errors": (
        422,
        JSON,
        b'{"errors": {"user": ["not_enough_fund", "banned"], "amount": ["too small"]}}',
        "user: not_enough_fund, banned; amount: too small",
    ),
    "error text": (400, JSON, b'{"error": "bad request"}', "bad request"),
    "error with msg": (403, JSON, b'{"error": {"msg": "no access"}}', "no access"),
    "extra keys": (422, JSON, b'{"code": 7, "message": "no", "additional_data": {"a": [1.5]}}', "no"),
    "message that is null": (422, JSON, b'{"message": null, "error": "still here"}', "still here"),
    "message that is a list": (422, JSON, b'{"message": ["a", {"b": 1}]}', "a, b: 1"),
    "plain text": (401, TEXT, b"API Authentication failed\n", "API Authentication failed"),
    "plain text, no type": (401, "X: y", b"Nonce is too small", "Nonce is too small"),
    "JSON text": (422, JSON, b'"just words"', "just words"),
    "JSON list": (422, JSON, b'["one", "two"]', "one, two"),
    "JSON number": (422, JSON, b"17", "17"),
    "JSON null": (422, JSON, b"null", ""),
    "empty": (422, JSON, b"", ""),
    "HTML of a proxy": (
        403,
        HTML,
        b"<html><head><style>p {x: y}</style><title>Blocked</title></head><body><p>Ask&nbsp;IT</p></body></html>",
        "Blocked Ask IT",
    ),
    "JSON cut short": (422, JSON, b'{"message": "Password cann', '{"message": "Password cann'),
    "wrong charset": (422, "Content-Type: text/plain; charset=utf-16", "Fehler: größer".encode(), "Fehler: größer"),
    "unknown charset": (422, "Content-Type: text/plain; charset=klingon", b"gr\xf6\xdfer", "größer"),
    "the charset it says": (422, "Content-Type: text/plain; charset=shift_jis", "残高".encode("shift_jis"), "残高"),
    "byte order mark": (422, JSON, b'\xef\xbb\xbf{"message": "marked"}', "marked"),
    "not text at all": (422, "Content-Type: image/png", b"\x89PNG\x00\x01", "\x89PNG".replace("\x89", "")),
    "control characters": (422, TEXT, b"one\x1b[31m\r\ntwo\x00", "one[31mtwo"),
    "nested too deep": (422, JSON, b"[" * 300, "[" * 300),
    "a number beyond reason": (422, JSON, b'{"message": 1e999999999}', '{"message": 1e999999999}'),
}


@pytest.mark.parametrize(("status", "header", "body", "words"), SHAPES.values(), ids=SHAPES.keys())
def test_every_body_shape_gives_the_servers_words(
    make_client: MakeClient, status: int, header: str, body: bytes, words: str
) -> None:
    error = error_of(make_client, http_answer(status, body, header), look_up)

    assert type(error) is STATUS_ERRORS[status]
    assert error.status == status
    assert error.message == words
    assert words in str(error)
    assert f"HTTP {status}" in str(error)


STATUSES = {
    **dict.fromkeys((400, 403, 405, 413, 415, 422), (QuoineRefusedError, False)),
    401: (QuoineUnauthorizedError, False),
    404: (QuoineNotFoundError, False),
    429: (QuoineRateLimitedError, False),
    503: (QuoineServiceUnavailableError, True),
    **dict.fromkeys((301, 302, 304, 307, 402, 408, 409, 410, 418, 425, 451, 499), (QuoineServerError, True)),
    **dict.fromkeys((500, 502, 504, 520, 599, 101, 600, 999), (QuoineServerError, True)),
}


@pytest.mark.parametrize(("status", "expected"), STATUSES.items())
def test_the_status_of_an_answer_to_a_read_tells_its_error(
    make_client: MakeClient, status: int, expected: tuple[type[QuoineResponseError], bool]
) -> None:
    error = error_of(make_client, http_answer(status, b'{"message": "words"}', JSON), look_up)

    assert (type(error), error.may_have_been_carried_out) == expected
    assert ("it can be repeated" in str(error)) is expected[1]


def test_success_false_is_a_refusal_whatever_the_status(make_client: MakeClient) -> None:
    body = b'{"success": false, "message": "Password cannot be blank"}'
    error = error_of(make_client, http_answer(200, body, JSON))

    assert type(error) is QuoineRefusedError
    assert not error.may_have_been_carried_out
    assert (error.status, error.message) == (200, "Password cannot be blank")


UNREADABLE = {
    "empty": b"",
    "HTML": b"<html>Welcome to the hotel's network</html>",
    "cut short": b'{"id": 20, "amo',
    "no id": b'{"amount": 0.5, "address": "1ACi", "state": "pending"}',
    "id null": b'{"id": null, "amount": 0.5, "address": "1ACi", "state": "pending"}',
    "id true": b'{"id": true, "amount": 0.5, "address": "1ACi", "state": "pending"}',
    "id a path": b'{"id": "../20", "amount": 0.5, "address": "1ACi", "state": "pending"}',
    "id a fraction": b'{"id": 20.5, "amount": 0.5, "address": "1ACi", "state": "pending"}',
    "no amount": b'{"id": 20, "address": "1ACi", "state": "pending"}',
    "amount true": b'{"id": 20, "amount": true, "address": "1ACi", "state": "pending"}',
    "amount NaN": b'{"id": 20, "amount": NaN, "address": "1ACi", "state": "pending"}',
    "amount NaN in quotes": b'{"id": 20, "amount": "NaN", "address": "1ACi", "state": "pending"}',
    "amount Infinity": b'{"id": 20, "amount": "-Infinity", "address": "1ACi", "state": "pending"}',
    "amount beyond reason": b'{"id": 20, "amount": "1e999999", "address": "1ACi", "state": "pending"}',
    "amount words": b'{"id": 20, "amount": "half", "address": "1ACi", "state": "pending"}',
    "no state": b'{"id": 20, "amount": 0.5, "address": "1ACi"}',
    "a list": b'[{"id": 20}]',
    "two ids": b'{"id": 19, "id": 20, "amount": 0.5, "address": "1ACi", "state": "pending"}',
    "an error with 200": b'{"error": "something went wrong"}',
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_yes_that_cannot_be_read_may_have_been_carried_out_and_is_quoted(
    make_client: MakeClient, body: bytes
) -> None:
    error = error_of(make_client, http_answer(201, body, JSON))

    assert type(error) is QuoineUnreadableAnswerError
    assert error.may_have_been_carried_out
    assert error.status == 201
    assert "very likely carried out" in str(error)
    # An id in it must not be lost.
    assert ("20" in error.body) == (b"20" in body)
    assert error.body in str(error)


@pytest.mark.parametrize("call", [look_up, ask_status])
def test_a_read_with_a_key_twice_cannot_be_read(
    make_client: MakeClient, call: Callable[[QuoineClient], object]
) -> None:
    body = b'{"id":20,"amount":0.5,"address":"1ACi","state":"pending","state":"processed","status":"A","status":"B"}'
    error = error_of(make_client, http_answer(200, body, JSON), call)

    assert type(error) is QuoineUnreadableAnswerError
    assert "each key once" in str(error)
    assert "only reads" in str(error)


@pytest.mark.parametrize(
    ("answer_body", "expected"),
    [
        (
            b'{"id":20,"amount":0.10000001,"address":"1ACi","state":"pending"}',
            {"id": "20", "amount": "0.10000001", "address": "1ACi", "state": "pending"},
        ),
        (
            b'{"id":"20","amount":"0.50","address":" 1ACi ","state":"Broadcasted","x":1}',
            {"id": "20", "amount": "0.5", "address": "1ACi", "state": "broadcasted"},
        ),
        (
            b'{"id":9007199254740993,"amount":1e-8,"address":"1ACi","state":"new"}',
            {"id": "9007199254740993", "amount": "0.00000001", "address": "1ACi", "state": "new"},
        ),
        (
            b'{"id":20,"amount":1,"address":"1ACi","state":"processed"}',
            {"id": "20", "amount": "1", "address": "1ACi", "state": "processed"},
        ),
    ],
)
def test_a_withdrawal_is_read_exactly(make_client: MakeClient, answer_body: bytes, expected: dict[str, str]) -> None:
    with raw_server(answer(http_answer(200, answer_body, JSON))) as server:
        assert look_up(make_client(server.url)).as_dict() == expected


@pytest.mark.parametrize(
    ("answer_body", "status", "credentials"),
    [
        (b'{"status":"PENDING"}', "PENDING", None),
        (b'{"status":"documents_submitted"}', "DOCUMENTS_SUBMITTED", None),
        (b'{"status":"Under_Review"}', "UNDER_REVIEW", None),
        (b'{"status":"banned"}', "BANNED", None),
        (b'{"status":"APPROVED","api_id":"25","api_secret":"abc=="}', "APPROVED", ("25", "abc==")),
        (b'{"status":"approved","api_id":25,"api_secret":"abc=="}', "APPROVED", ("25", "abc==")),
        (b'{"status":"APPROVED","api_id":null,"api_secret":null}', "APPROVED", None),
    ],
)
def test_an_onboarding_status_is_read_without_case(
    make_client: MakeClient, answer_body: bytes, status: str, credentials: tuple[str, str] | None
) -> None:
    with raw_server(answer(http_answer(200, answer_body, JSON))) as server:
        read = make_client(server.url).get_onboarding_status(user_id="25", password=PASSWORD)

    assert read.status == status
    assert (read.credentials and (read.credentials.api_id, read.credentials.api_secret)) == credentials
    assert "abc==" not in repr(read)


@pytest.mark.parametrize(
    ("answer_body", "sent", "message"),
    [
        (b'{"message":"Email token was sent","email_sent":true}', True, "Email token was sent"),
        (b'{"message":"SMS token was sent"}', True, "SMS token was sent"),
        (b'{"message":"Use your app","ignored":true}', False, "Use your app"),
        (b"{}", True, ""),
        (b"", True, ""),
        (b"OK", True, "OK"),
        (b"null", True, ""),
    ],
)
def test_what_came_of_asking_for_a_code(make_client: MakeClient, answer_body: bytes, sent: bool, message: str) -> None:
    with raw_server(answer(http_answer(200, answer_body))) as server:
        asked = make_client(server.url).request_auth_code(user_id="25")

    assert (asked.sent, asked.message) == (sent, message)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<!doctype html><p>Log in to the network</p>", HTML),
        (b'{"ignored": false, "ignored": true}', JSON),
        (b'{"message": "Email tok', JSON),
    ],
)
def test_a_web_page_and_unreadable_json_are_no_answer_to_asking_for_a_code(
    make_client: MakeClient, body: bytes, content_type: str
) -> None:
    data = http_answer(200, body, content_type)
    error = error_of(make_client, data, lambda client: client.request_auth_code(user_id="25"))

    assert type(error) is QuoineUnreadableAnswerError


@pytest.mark.parametrize(
    ("header", "body", "seconds"),
    [
        (TEXT, b"API rate limit exceeded. Please retry after 300s", 300.0),
        (TEXT, b"API rate limit exceeded. Please retry after 17.5 s", 17.5),
        (JSON, b'{"message": "Please retry after 42s"}', 42.0),
        ("Retry-After: 12", b"Please retry after 300s", 12.0),
        ("Retry-After: nonsense", b"Please retry after 60s", 60.0),
        ("Retry-After: -5", b"", 300.0),
        ("Retry-After: Wed, 01 Jan 2020 00:00:00 GMT", b"", 0.0),
        (TEXT, b"slow down", 300.0),
        (TEXT, b"", 300.0),
        (TEXT, b"retry after " + b"9" * 5000 + b"s", 300.0),
    ],
)
def test_a_429_tells_how_long_to_wait(make_client: MakeClient, header: str, body: bytes, seconds: float) -> None:
    error = error_of(make_client, http_answer(429, body, header), look_up)

    assert isinstance(error, QuoineRateLimitedError)
    assert error.retry_after == seconds
    assert f"Wait {seconds:g} s" in str(error)
    # A write in doubt pauses all requests too.
    assert error_of(make_client, http_answer(429, body, header)).retry_after == seconds


def test_a_429_may_name_a_date_to_wait_for(make_client: MakeClient) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    error = error_of(make_client, http_answer(429, b"", f"Retry-After: {later}"), look_up)

    assert isinstance(error, QuoineRateLimitedError)
    assert 80 < error.retry_after <= 90


def echo(status: int, write: Callable[[bytes], bytes]) -> Script:
    """Answer with what was sent, as the test wants it written."""

    def script(server: RawServer, connection: socket.socket) -> None:
        connection.sendall(http_answer(status, write(server.take_request(connection)), TEXT))

    return script


@pytest.mark.parametrize("scheme", [ApiAuth, JwtAuth])
@pytest.mark.parametrize("status", [200, 422, 500])
@pytest.mark.parametrize(
    "write",
    [
        lambda request: request,
        lambda request: json.dumps({"message": "you sent " + request.decode("latin-1")}).encode(),
        lambda request: request.hex(" ").encode() + SECRET.encode(),
        lambda request: json.dumps({"errors": {"auth": [SECRET, CODE]}}).encode(),
        lambda request: b'{"message": "' + "".join(f"\\u{ord(c):04x}" for c in SECRET + CODE).encode() + b'"}',
        lambda request: ("\u200b" + "\x00".join(SECRET + CODE)).encode(),
        lambda request: b"x" * 480 + SECRET.encode() + b"x" * 100,
    ],
    ids=["as it came", "in JSON", "secret in text", "secret in JSON", "escaped", "with zeros", "at the cut"],
)
def test_an_answer_that_tells_a_secret_does_not_bring_it_into_the_error(
    make_client: MakeClient, scheme: type[ApiAuth | JwtAuth], status: int, write: Callable[[bytes], bytes]
) -> None:
    with raw_server(echo(status, write)) as server:
        client = make_client(server.url, auth=scheme("25", SECRET))
        with pytest.raises(QuoineResponseError) as caught:
            withdraw(client)

    (request,) = server.requests
    sent = dict(line.split(b": ", 1) for line in request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:])
    signature = sent.get(b"Authorization", sent.get(b"X-Quoine-Auth", b"")).decode()
    for text in (str(caught.value), caught.value.message, caught.value.body, repr(caught.value)):
        assert CODE not in text
        assert SECRET[:12] not in text
        assert signature.rpartition(":")[2] not in text


@pytest.mark.parametrize(
    "write",
    [
        lambda text: text,
        lambda text: json.dumps({"message": text}),
        lambda text: json.dumps({"a": text}, ensure_ascii=False),
        lambda text: "password=S3cret%2Fp%C3%A4ss%3Cw%C3%B6rd%3E",
        lambda text: f"<b>S3cret/päss&lt;wörd&gt;</b> {text}",
        lambda text: "You sent S3cret/päss&lt;wörd&gt;.",
        lambda text: "<b>" + "".join(f"&#{ord(character)};" for character in text) + "</b>",
    ],
    ids=["text", "JSON", "JSON with umlauts", "form", "HTML", "text written for HTML", "HTML in numbers"],
)
def test_a_password_with_special_characters_is_found_in_every_spelling(
    make_client: MakeClient, write: Callable[[str], str]
) -> None:
    error = error_of(make_client, http_answer(401, write(PASSWORD).encode(), TEXT), ask_status)

    for text in (str(error), error.message, error.body):
        assert "***" in error.body
        for part in ("S3cret", "wörd", "w%C3%B6rd", "w\\u00f6rd", "&#119;"):
            assert part not in text


def test_a_code_that_is_part_of_the_secret_does_not_leave_the_rest_of_it_standing(make_client: MakeClient) -> None:
    with raw_server(answer(http_answer(422, SECRET.encode(), TEXT))) as server:
        client = make_client(server.url)
        with pytest.raises(QuoineResponseError) as caught:
            client.create_withdrawal(order=order("1"), auth_code=SECRET[:6])

    assert caught.value.message == "***"


@pytest.mark.parametrize(
    "body",
    [
        b'{"api_id": "25", "api_secret": "XMDwUjclch9"}',
        b'{"status": "APPROVED", "api_id": "25", "api_secret": "XMDwUjclch9"',
        b'{"status": 7, "message": "XMDwUjclch9"}',
        b"XMDwUjclch9",
    ],
)
def test_a_yes_to_the_onboarding_status_is_never_quoted(make_client: MakeClient, body: bytes) -> None:
    error = error_of(make_client, http_answer(200, body, "Content-Type: application/json; v=1"), ask_status)

    assert type(error) is QuoineUnreadableAnswerError
    for text in (str(error), error.message, error.body):
        assert "XMDwUjclch9" not in text
    assert f"{len(body)} bytes of application/json; v=1" in str(error)


def test_a_refusal_of_the_onboarding_status_keeps_its_words_but_not_its_body(make_client: MakeClient) -> None:
    body = b'{"success": false, "message": "Unauthorized access", "api_secret": "XMDwUjclch9"}'
    error = error_of(make_client, http_answer(200, body, JSON), ask_status)

    assert type(error) is QuoineRefusedError
    assert error.message == "Unauthorized access"
    assert "XMDwUjclch9" not in str(error) + error.body


def test_a_long_body_is_quoted_in_part(make_client: MakeClient) -> None:
    error = error_of(make_client, http_answer(500, b"words " * 10_000, TEXT))

    assert len(error.body) < 600
    assert len(str(error)) < 1000


def test_an_answer_tells_the_servers_time(make_client: MakeClient) -> None:
    told = error_of(make_client, http_answer(401, b"", "Date: Sat, 27 Sep 2014 04:55:17 GMT"))
    assert told.server_time == datetime(2014, 9, 27, 4, 55, 17, tzinfo=UTC)
    assert error_of(make_client, http_answer(401, b"", "Date: soon")).server_time is None
    assert error_of(make_client, http_answer(401, b"")).server_time is None
