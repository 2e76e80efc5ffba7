"""The rules for withdrawals: allow-list, bounds, network."""

from __future__ import annotations

import pytest

from airflow_provider_quoine.exchange.addresses import Network
from airflow_provider_quoine.exchange.amounts import Amount
from airflow_provider_quoine.exchange.errors import QuoineInputError
from airflow_provider_quoine.exchange.models import WithdrawalOrder
from airflow_provider_quoine.payments.policy import WithdrawalPolicy

SEGWIT = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
LEGACY = "1ACiWrMafn3YLRw5DCf9CqGAHcg1oK9tUj"
TEST_NETWORK = "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"


def policy(*addresses: str, largest: str | None = None, smallest: str | None = None) -> WithdrawalPolicy:
    return WithdrawalPolicy(
        conn_id="payouts",
        addresses=frozenset(addresses),
        largest=Amount(largest) if largest else None,
        smallest=Amount(smallest) if smallest else None,
        network=Network.MAIN,
    )


@pytest.mark.parametrize("rules", [policy(SEGWIT), policy(LEGACY, SEGWIT.upper()), policy("*")])
def test_listed_address_passes_in_either_case(rules: WithdrawalPolicy) -> None:
    rules.check(WithdrawalOrder.parse(amount="0.5", address=SEGWIT))
    rules.check(WithdrawalOrder.parse(amount="0.5", address=SEGWIT.upper()))


@pytest.mark.parametrize(
    ("rules", "amount", "address", "words"),
    [
        (policy(), "0.5", SEGWIT, "empty, which allows none"),
        (policy(LEGACY), "0.5", SEGWIT, "not on that list"),
        (policy(LEGACY.lower(), SEGWIT), "0.5", SEGWIT, "no address, so nothing is sent"),
        (policy("*"), "0.5", TEST_NETWORK, "network"),
        (policy("*", largest="0.5"), "0.50000001", SEGWIT, "Largest withdrawal"),
        (policy("*", smallest="0.5"), "0.49999999", SEGWIT, "Smallest withdrawal"),
    ],
)
def test_refusal_names_the_rule(rules: WithdrawalPolicy, amount: str, address: str, words: str) -> None:
    order = WithdrawalOrder.parse(amount=amount, address=address)
    with pytest.raises(QuoineInputError, match=words):
        rules.check(order)


def test_bounds_themselves_pass() -> None:
    rules = policy("*", largest="0.5", smallest="0.5")
    rules.check(WithdrawalOrder.parse(amount="0.50", address=SEGWIT))
