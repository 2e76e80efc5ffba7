"""What an error quotes of a page, and that no body makes it slow."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_quoine.exchange.rest.quoting import Scrubber, excerpt, words
from airflow_provider_quoine.exchange.rest.responses import parse
from tests.exchange.rest.conftest import MakeClient
from tests.exchange.rest.raw_server import answer, http_answer, raw_server
from tests.exchange.rest.test_responses import error_of

PARTS = (
    *("<", ">", "&", '"', "'", " ", "\n", "/", "-", "=", ";", "#", "x", "9", "[", "{", ":"),
    *(
        "<p>",
        "</p>",
        "<p",
        "<!--",
        "-->",
        "<![CDATA[",
        "<style>",
        "</style",
        "<style",
        "<script ",
        "</script  ",
        "&#",
        "&#9",
    ),
    *("&lt", "&lt;", "&#x", "after ", "retry after 9", "\u200b", "\x00", '<p a="', "<a><b>"),
)


def cpu_seconds(body: str) -> float:
    """Measure what an answer's reading costs."""
    began = time.thread_time()
    scrub = Scrubber(("a secret", "another/secret=="))
    answered = parse(body)
    if isinstance(answered, str):
        answered = scrub.hide(answered)
    scrub(words(answered))
    scrub(excerpt(answered))
    return time.thread_time() - began


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=3), st.lists(st.sampled_from(PARTS), min_size=1, max_size=4))
@example([], ["<"])
@example([], ["&"])
@example(["<"], ['"'])
@example(["<"], [" "])
@example([], ["<p>"])
@example([], ["<style"])
@example([], ["<!--"])
@example(["<!--"], ["--"])
@example(["<style>"], ["</style", " "])
@example(["<&#"], ["9"])
def test_the_time_grows_with_the_length_only(start: list[str], repeated: list[str]) -> None:
    unit = "".join(repeated)
    short, long = (("".join(start) + unit * (size // len(unit))) for size in (16_000, 256_000))
    # Sixteen times the length: 256 times the time if it were quadratic. Below 20 ms it is noise.
    allowed = max(0.02, 64 * min(cpu_seconds(short) for _ in range(3)))
    assert any(cpu_seconds(long) < allowed for _ in range(3))


@pytest.mark.parametrize("unit", ["<", "&", '"', "<p>", "<style>", " ", "<div a='", "&#9", "[", '{"a":'])
@pytest.mark.parametrize("status", [200, 422, 500])
def test_a_body_of_a_million_characters_is_read_at_once(make_client: MakeClient, unit: str, status: int) -> None:
    body = "<" + unit * (1_000_000 // len(unit))
    began = time.thread_time()
    error = error_of(make_client, http_answer(status, body.encode(), "Content-Type: text/html"))
    assert time.thread_time() - began < 1
    assert error.may_have_been_carried_out
    assert len(str(error)) < 1500


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("<h1>Bad</h1> gateway", "Bad gateway"),
        ("<p>Ask&nbsp;IT &amp; wait</p>", "Ask IT & wait"),
        ("<style>p {x: y}</style><p>Seen</p><script>var a = '<b>';</script >!", "Seen !"),
        ("<STYLE type='a'>p</STYLE>Seen", "Seen"),
        ("<p>Seen</p><style>never closed <p>", "Seen"),
        ("<p>1 < 2 and 3", "1 2 and 3"),
        ("<!-- <p>x --><p>Seen", "Seen"),
        ("<p>Seen</p><!-- never closed <p>", "Seen"),
        ("<p>&#" + "9" * 5000 + ";</p>", "\ufffd"),
        ("<", ""),
    ],
)
def test_the_words_of_a_page(page: str, said: str) -> None:
    assert words(page) == said


def test_a_page_of_a_million_characters_has_no_answer(make_client: MakeClient) -> None:
    with (
        raw_server(answer(http_answer(200, b"<" * 1_000_000))) as server,
        pytest.raises(Exception, match="65536 bytes"),
    ):
        make_client(server.url).get_withdrawal(withdrawal_id="20")


def test_personal_data_are_hidden_as_whole_words_in_any_case() -> None:
    scrub = Scrubber(("a secret",), ("Ema", "ema@example.com", "李", ""))
    said = scrub('email EMA@example.com of EMA, "\\u674e" has a secret, %E6%9D%8E; the email has already been taken')
    assert said == 'email *** of ***, "***" has ***, ***; the email has already been taken'


@pytest.mark.parametrize(
    "said",
    [
        "+81 90-5544-3322",
        "819055443322",
        "9055443322",
        "090-5544-3322",
        "(090) 5544 3322",
        "+81.90.5544.3322",
        "55443322",
    ],
)
def test_a_phone_number_is_hidden_however_the_server_writes_it(said: str) -> None:
    scrub = Scrubber((), ("+81 90-5544-3322", "106-0032", "12"))
    assert scrub(f"the phone {said} is used; code 443321, 12 tries") == "the phone *** is used; code 443321, *** tries"


def test_each_name_of_a_person_is_hidden() -> None:
    scrub = Scrubber((), ("Anna Maria", "van der Berg", "1-2-3 Marunouchi"))
    said = scrub("Anna, Ms Berg of Marunouchi: an annex of the Bergs, 1-2-3 MARUNOUCHI")
    assert said == "***, Ms *** of ***: an annex of the Bergs, ***"


def test_many_digits_take_no_longer() -> None:
    scrub = Scrubber((), ("+819055443322",))
    began = time.thread_time()
    scrub("1 (" * 300_000 + "9" * 300_000)
    assert time.thread_time() - began < 5
