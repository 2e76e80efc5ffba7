"""What every test may use: a sandbox exchange of its own."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import traceback
from asyncio import constants
from collections.abc import Generator, Iterator

import hypothesis
import pytest

from airflow_provider_quoine.sandbox.server import SandboxServer
from airflow_provider_quoine.sandbox.settings import SandboxSettings
from tests.support.heap import kept

pytest_plugins = ["tests.support.airflow_fixtures"]

# Beside other tests an example may take any time; a test that never ends has pytest-timeout.
hypothesis.settings.register_profile("side_by_side", deadline=None)
hypothesis.settings.load_profile("side_by_side")

# In debug mode asyncio notes where each future was made. Its C code asks for the whole stack, mostly that of pytest,
# instead of as many frames as its Python code does: that took 0.1 ms for each future, and takes a fifth of it now.
traceback.extract_stack.__defaults__ = (None, constants.DEBUG_STACK_DEPTH)

# Before any test imports Airflow: it reads its environment once, and must find a home of its own.
AIRFLOW_HOME = tempfile.mkdtemp(prefix="quoine-tests-")
os.environ["AIRFLOW_HOME"] = AIRFLOW_HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, None, None]:
    """Import what the tests import."""
    with kept():
        yield


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a test by the begin of what is long: some have a million characters, which each process would send."""
    return ascii(val[:60]) if isinstance(val, str | bytes) and len(val) > 200 else None


def pytest_unconfigure() -> None:
    """Remove the home."""
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    """Run a fresh sandbox on a free port, with a fast pace."""
    with SandboxServer(SandboxSettings(pace=0.05)) as server:
        yield server


@pytest.fixture
def heap_of_its_own() -> None:
    """Keep the objects of earlier tests out of garbage collections, which hold the event loop for 0.1 s and more."""
    gc.collect()
    gc.freeze()
