"""A real Airflow for the tests of payments; the fault matrix is printed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.system.money.environment import Environment, start_environment
from tests.system.money.fault_matrix import FAULTS, FollowUp
from tests.system.money.runner import CELLS, Cell, Outcome, run_cells
from tools.postgres_server import PostgresServer

HERE = Path(__file__).parent
COLUMNS = {
    "": [(follow_up, False) for follow_up in FollowUp],
    "... task state wiped, then:": [(FollowUp.CLEAR, True), (FollowUp.BOTH, True)],
}


#: The fault matrix is run beside the other tests. Its own tests ask how it has ended, and the very last look at all.
LAST = ("test_fault_matrix", "test_without_a_trace")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run these tests last: their Airflow runs until the session ends, and would slow other tests."""
    items.sort(key=lambda item: (item.path.is_relative_to(HERE), *(item.path.stem == name for name in reversed(LAST))))


@pytest.fixture(scope="session")
def beside() -> Iterator[ThreadPoolExecutor]:
    """Run something beside the tests."""
    with ThreadPoolExecutor(1) as thread:
        yield thread


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, beside: ThreadPoolExecutor) -> Iterator[Environment]:
    """Start Airflow and the exchange once. They end first: then whatever is still run beside the tests fails."""
    with start_environment(tmp_path_factory.mktemp("money")) as environment:
        yield environment
        processes = environment.airflow.processes()
    assert [process for process in processes if process.is_running()] == []


@pytest.fixture(scope="session")
def matrix(environment: Environment, beside: ThreadPoolExecutor) -> Future[dict[Cell, Outcome]]:
    """Run the fault matrix beside the tests, most of which wait: a second Airflow would cost a minute of processor."""
    return beside.submit(run_cells, environment, CELLS)


@pytest.fixture(scope="session", autouse=True)
def _early(request: pytest.FixtureRequest) -> None:
    """Begin the fault matrix before the first test, if it is looked at later."""
    if any("outcomes" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("matrix")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Run PostgreSQL."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def environment_over_postgres(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> Iterator[Environment]:
    """Start another Airflow and another exchange, with the ledger in PostgreSQL."""
    with start_environment(tmp_path_factory.mktemp("money"), server=postgres.new_database()) as environment:
        yield environment


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the fault matrix; the tests have recorded how each cell ended."""
    reports = (report for reports in terminalreporter.stats.values() for report in reports)
    ends = dict(entry for report in reports for entry in getattr(report, "user_properties", ()))
    if not ends:
        return
    terminalreporter.section("fault matrix: what the exchange carried out, and how the task ended")
    for title, columns in COLUMNS.items():
        terminalreporter.write_line(
            f"\n{title or 'Fault in the first try':28}" + "".join(f"{c[0]:34}" for c in columns)
        )
        for fault in FAULTS:
            cells = [str(Cell(fault=fault, follow_up=follow_up, wiped=wiped)) for follow_up, wiped in columns]
            row = "".join(f"{ends.get(cell, 'not run'):34}" for cell in cells)
            terminalreporter.write_line(f"{fault.name:28}{row}")
