"""Trigger forms: what a person reads in them, and what the first task says of them."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_quoine.exchange.market.channels import PRODUCT_IDS
from airflow_provider_quoine.forms import check_withdrawal
from tests.support.airflow_fixtures import FOLDERS

#: Airflow answers a value that breaks one of these with the raw schema.
RAW = {"pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxLength"}
GOOD = {"payment_reference": "invoice-7", "amount": "0.5", "address": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"}


@pytest.fixture(scope="module")
def fields(airflow_database: None) -> dict[tuple[str, str], Any]:
    """Every field of every example's form, by DAG and name."""
    from airflow.dag_processing.dagbag import BundleDagBag

    bag = BundleDagBag(str(FOLDERS["examples"]), bundle_path=FOLDERS["examples"], bundle_name="examples")
    return {(dag.dag_id, name): dag.params.get_param(name) for dag in bag.dags.values() for name in dag.params}


def test_a_field_says_what_it_wants_and_shows_no_pattern(fields: dict[tuple[str, str], Any]) -> None:
    for where, field in fields.items():
        schema = field.schema
        assert schema["title"], where
        assert field.description.endswith("."), where
        # What a field refuses, a task says in words.
        assert not schema.keys() & RAW, where
        assert not schema.get("items", {}).keys() & RAW, where
        # The page would say "Start typing to see options".
        assert schema["type"] == "array" or "examples" not in schema, where


def test_pairs_are_listed(fields: dict[tuple[str, str], Any]) -> None:
    named = {name: field.schema for (_, name), field in fields.items()}
    assert named["pairs"]["examples"] == list(PRODUCT_IDS)
    assert named["pair"]["enum"] == list(PRODUCT_IDS)
    assert "JP" in named["country"]["enum"]


def test_the_check_of_a_withdrawal_names_everything_at_once() -> None:
    check_withdrawal(GOOD)
    with pytest.raises(AirflowFailException) as caught:
        check_withdrawal({"payment_reference": "", "amount": "1,5", "to": "bc1q"}, address="to")
    words = " ".join(str(caught.value).split())
    for wrong in ("'1,5' is no amount", "address", "is no payment reference", "Nothing was sent"):
        assert wrong in words
