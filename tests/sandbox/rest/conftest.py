"""A user for the tests of the partner API."""

from __future__ import annotations

import pytest

from tests.support.partner import Key, Partner


@pytest.fixture
def user(by_hand: Partner) -> Key:
    """The key of an approved user."""
    return by_hand.approved_user()
