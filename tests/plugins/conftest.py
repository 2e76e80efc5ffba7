"""The tests of the plugin ask the API server of an Airflow in this process."""

from __future__ import annotations

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark each test of this folder: `make unit` does not look here, where each process would import that server."""
    item.add_marker("airflow")
