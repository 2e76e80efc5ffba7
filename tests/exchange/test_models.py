"""Data that is checked when it is made: orders, the onboarding form, documents, passwords, stored credentials."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.models import (
    Document,
    OnboardingStatus,
    OnboardingUser,
    UserCredentials,
    WithdrawalOrder,
    check_password,
    make_password,
)

FULL_WIDTH_PHONE = "\uff10\uff19\uff10\uff0d\uff11\uff17\uff19\uff10\uff0d\uff11\uff13\uff15\uff17"


SEGWIT = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"


def test_an_order_keeps_the_address_as_it_was_given_and_writes_the_amount_in_plain_digits() -> None:
    order = WithdrawalOrder.parse(amount=" 0.00000010 ", address=f" {SEGWIT.upper()} ")
    assert order.as_dict() == {"amount": "0.0000001", "address": SEGWIT.upper()}
    assert str(order) == f"0.0000001 BTC to {SEGWIT.upper()}"
    assert order == WithdrawalOrder.parse(amount="0.0000001", address=SEGWIT)


@pytest.mark.parametrize(
    ("amount", "address", "words"),
    [
        (0.5, SEGWIT, "must be text such as '0.5', not float"),
        (2, SEGWIT, "must be text such as '0.5', not int.*write quotes around the template"),
        ("0", SEGWIT, "must be above zero"),
        ("0.5", SEGWIT[:-1] + "q", "checksum"),
        ("0.5", f"{SEGWIT} {SEGWIT}", "is in no address"),
        ("0.5", " ", "There is no address to withdraw to"),
        ("0.5", None, "There is no address to withdraw to"),
    ],
)
def test_an_order_that_is_wrong_cannot_be_made(amount: Any, address: Any, words: str) -> None:
    with pytest.raises(QuoineInputError, match=words):
        WithdrawalOrder.parse(amount=amount, address=address)


@pytest.mark.parametrize("text", ["approved", " Approved ", "APPROVED"])
def test_a_status_is_read_without_case(text: str) -> None:
    assert OnboardingStatus(text) is OnboardingStatus.APPROVED


@pytest.mark.parametrize("value", ["", "nearly", None, 7])
def test_what_is_no_status_on_record_is_no_member(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a valid"):
        OnboardingStatus(value)


def test_the_form_is_normalised(user: OnboardingUser) -> None:
    assert user.phone == "+819017901357"
    assert user.country == "JP"

    typed = replace(user, phone=FULL_WIDTH_PHONE, email=" a@b.jp ", postcode="")
    assert typed.phone == "09017901357"
    assert typed.email == "a@b.jp"
    assert "postcode" not in typed.form_fields()
    assert list(typed.form_fields())[:5] == ["first_name", "last_name", "phone", "email", "country"]


BAD_FIELDS: list[tuple[dict[str, Any], list[str]]] = [
    ({"first_name": ""}, ["first_name"]),
    ({"last_name": "  "}, ["last_name"]),
    ({"phone": ""}, ["phone"]),
    ({"phone": "call me"}, ["phone"]),
    ({"phone": "12345"}, ["phone"]),
    ({"phone": "+1234567890123456"}, ["phone"]),
    ({"phone": "0901790+1357"}, ["phone"]),
    ({"email": ""}, ["email"]),
    ({"email": "taro"}, ["email"]),
    ({"email": "taro@localhost"}, ["email"]),
    ({"email": "taro@@example.com"}, ["email"]),
    ({"email": "taro@example..com"}, ["email"]),
    ({"email": "a b@example.com"}, ["email"]),
    ({"email": "a@example.com,b@example.com"}, ["email"]),
    ({"country": "JPN"}, ["country"]),
    ({"country": "XX"}, ["country"]),
    ({"country": ""}, ["country"]),
    ({"city": "To\x00kyo"}, ["city"]),
    ({"address": "\udcff"}, ["address"]),
    ({"city": None}, ["city"]),
    ({"phone": 9017901357}, ["phone"]),
    ({"first_name": "", "email": "x", "country": "Japan"}, ["first_name", "email", "country"]),
]


@pytest.mark.parametrize(("change", "named"), BAD_FIELDS)
def test_every_fault_of_the_form_is_named_and_no_value_is_shown(
    user: OnboardingUser, change: dict[str, Any], named: list[str]
) -> None:
    with pytest.raises(QuoineInputError) as caught:
        replace(user, **change)

    for field in named:
        assert field in str(caught.value)
    for value in (*change.values(), user.last_name, "+819017901357"):
        if isinstance(value, str) and len(value) > 3:
            assert value not in str(caught.value)


@pytest.mark.parametrize("name", ["a.pdf", "A.PDF", "photo.of.me.JPeG", "旅券.png", "x.xps", "x.gif", "x.jpg"])
def test_documents_of_the_types_on_record_are_taken(name: str) -> None:
    document = Document(name=name, content=b"x")

    assert document.name == name
    assert "content" not in repr(document)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.exe", b"x"),
        ("a.pdf.exe", b"x"),
        ("pdf", b"x"),
        (".pdf", b"x"),
        ("", b"x"),
        ("folder/a.pdf", b"x"),
        ("folder\\a.pdf", b"x"),
        ("a\r\n.pdf", b"x"),
        ("a\udcff.pdf", b"x"),
        ("a.pdf", b""),
    ],
)
def test_other_documents_are_refused(name: str, content: bytes) -> None:
    with pytest.raises(QuoineInputError):
        Document(name=name, content=content)


@pytest.mark.parametrize("password", ["Abcdefg1", "\u00e9\u00c9xyz123", 'aA1 <>&é"'])
def test_a_password_that_obeys_the_rule_is_taken(password: str) -> None:
    check_password(password)


@pytest.mark.parametrize(
    "password", ["", "Abcdef1", "abcdefg1", "ABCDEFG1", "Abcdefgh", "Abcdefg1\n", "Abcdefg1\ud800"]
)
def test_a_password_that_does_not_is_refused_without_being_shown(password: str) -> None:
    with pytest.raises(QuoineInputError) as caught:
        check_password(password)
    assert not password or password not in str(caught.value)


def test_made_passwords_obey_the_rule_and_differ() -> None:
    made = {make_password() for _ in range(200)}

    assert len(made) == 200
    for password in made:
        check_password(password)
        assert len(password) >= 20


@given(api_id=st.text(min_size=1), api_secret=st.text(min_size=1))
def test_credentials_come_back_from_their_text(api_id: str, api_secret: str) -> None:
    credentials = UserCredentials(api_id=api_id, api_secret=api_secret)

    assert UserCredentials.from_json(credentials.to_json()) == credentials


def test_credentials_do_not_show_their_secret() -> None:
    assert "hush" not in repr(UserCredentials(api_id="25", api_secret="hush"))


@pytest.mark.parametrize(
    "text",
    [
        "hush",
        "",
        '"hush"',
        '["25", "hush"]',
        '{"api_secret": "hush"}',
        '{"api_id": "", "api_secret": "hush"}',
        '{"api_id": 25, "api_secret": "hush"}',
        '{"api_id": "25", "api_secret": ["hush"]}',
        '{"api_id": "25", "api_secret": "hush"',
        "[" * 100_000 + "hush",
        None,
    ],
)
def test_stored_credentials_of_another_shape_are_refused_without_being_shown(text: Any) -> None:
    with pytest.raises(QuoineInputError) as caught:
        UserCredentials.from_json(text)

    assert "hush" not in str(caught.value)
    assert caught.value.__context__ is None
