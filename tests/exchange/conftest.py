"""Fixtures that the tests of several folders of the exchange share."""

from __future__ import annotations

import pytest

from airflow_provider_quoine.exchange.models import OnboardingUser


@pytest.fixture
def user() -> OnboardingUser:
    """A user with every optional field."""
    return OnboardingUser(
        first_name="太郎",
        last_name="山田",
        phone="+81 (90) 1790-1357",
        email="taro@example.com",
        country="jp",
        first_furi_name="タロウ",
        last_furi_name="ヤマダ",
        address="千代田1-1",
        city="Tokyo",
        postcode="100-0001",
    )
