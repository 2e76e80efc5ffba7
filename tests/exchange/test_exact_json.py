"""JSON that never touches a float: numbers come in and go out digit by digit."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_quoine.exchange.exact_json import plain_number, read_json, write_json

DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | DECIMALS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


@given(VALUES)
def test_what_is_written_is_read_back_exactly(value: Any) -> None:
    assert read_json(write_json(value)) == value


@given(VALUES)
def test_what_is_written_is_json_to_everybody(value: Any) -> None:
    json.loads(write_json(value))


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30))
def test_a_plain_number_is_exact_and_has_no_exponent(value: Decimal) -> None:
    try:
        text = plain_number(value)
    except ValueError:
        assert abs(int(value.as_tuple().exponent)) > 40 or abs(value.adjusted()) > 40
        return
    assert Decimal(text) == value
    assert set(text) <= set("-0123456789.")
    assert len(text) < 100


def test_the_body_of_a_withdrawal_is_that_of_the_known_answers() -> None:
    order = {"amount": Decimal("0.5"), "address": "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"}

    assert write_json({"auth_code": "13332", "btc_withdrawal": order}) == (
        '{"auth_code":"13332","btc_withdrawal":{"amount":0.5,"address":"1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"}}'
    )


@pytest.mark.parametrize("value", [0.5, {"a": [0.5]}, b"bytes", object()])
def test_a_float_is_not_written(value: Any) -> None:
    with pytest.raises(TypeError, match="Decimal"):
        write_json(value)


@pytest.mark.parametrize(
    "text",
    [
        *("NaN", "[Infinity]", "-Infinity", "1e999999999", "1e99999999999999999999", "9" * 5000),
        *("[" * 300, '{"a":' * 300, "[" * 33 + "]" * 33, "[" * 1_000_000, '{"a":[' * 100_000, "[]" * 100_000 + "["),
        *('[["]",' * 40 + "1" + "]" * 80, r'[["\"]",' * 40 + "1" + "]" * 80),
        *('{"a": 1, "a": 1}', '[{"b": {"a": 1, "\\u0061": 2}}]'),
    ],
)
def test_numbers_and_nests_beyond_reason_and_keys_twice_are_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_json(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 32 + "]" * 32,
        "[" + ",".join(['["1","2"]'] * 100_000) + "]",
        "[" + ",".join(['{"a":[{}]}'] * 100) + "]",
        '["' + "[{" * 1000 + '"]',
        r'["\"' + "[" * 1000 + r'\\\"[", "[[[\\", [["]"]]]',
    ],
)
def test_the_depth_is_bounded_and_not_the_number_of_brackets(text: str) -> None:
    assert read_json(text) == json.loads(text)


NESTS = st.recursive(
    st.text('[]{}"\\,:', max_size=3), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("[{"), inner)
)


@pytest.mark.long
@given(st.lists(NESTS, max_size=40), st.integers(0, 40))
def test_the_depth_is_that_of_a_walk_through_the_value(value: list[Any], more: int) -> None:
    def depth(one: Any) -> int:
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        return isinstance(one, dict | list) + max(map(depth, inner), default=0)

    for _ in range(more):
        value = [value, "]"]
    text = json.dumps(value)
    if depth(value) <= 32:
        assert read_json(text) == value
    else:
        with pytest.raises(ValueError, match="more than 32"):
            read_json(text)


@pytest.mark.parametrize("value", ["NaN", "sNaN", "Infinity", "-Infinity", "1E+50", "1E-50"])
def test_a_number_beyond_reason_is_not_written(value: str) -> None:
    with pytest.raises(ValueError, match="sensible length"):
        write_json(Decimal(value))
