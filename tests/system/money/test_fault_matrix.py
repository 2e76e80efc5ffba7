"""Whatever fails and whoever tries again: a withdrawal is sent at most once, and its task ends as expected."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

import pytest

from tests.system.money.environment import Environment
from tests.system.money.fault_matrix import FAULTS, FollowUp
from tests.system.money.runner import CELLS, Cell, Outcome, run_cells

pytestmark = pytest.mark.timeout(1500)

#: Each fault once as Airflow leaves it, and once with everything that may follow.
CELLS_OVER_POSTGRES = [
    *(Cell(fault=fault, follow_up=FollowUp.RETRY) for fault in FAULTS),
    *(Cell(fault=fault, follow_up=FollowUp.BOTH, wiped=True) for fault in FAULTS),
]


@pytest.fixture(scope="module")
def outcomes(matrix: Future[dict[Cell, Outcome]]) -> dict[Cell, Outcome]:
    """Wait until all cells have been run."""
    return matrix.result()


@pytest.fixture(scope="module")
def outcomes_over_postgres(environment_over_postgres: Environment) -> dict[Cell, Outcome]:
    """Run them with the ledger in PostgreSQL."""
    return run_cells(environment_over_postgres, CELLS_OVER_POSTGRES)


def check(cell: Cell, outcome: Outcome, record_property: Callable[[str, object], None]) -> None:
    """Compare a cell's end with the expected one."""
    # For the matrix that is printed at the end.
    record_property(str(cell), f"{outcome.end}{'' if outcome.end == cell.expected_end else '  WRONG'}")
    assert outcome.end.withdrawals <= 1
    assert outcome.end == cell.expected_end
    if outcome.end.state == "failed":
        assert [text for text in cell.expected_log_texts if text not in outcome.log] == []


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_cell(outcomes: dict[Cell, Outcome], cell: Cell, record_property: Callable[[str, object], None]) -> None:
    check(cell, outcomes[cell], record_property)


@pytest.mark.cluster
@pytest.mark.parametrize("cell", CELLS_OVER_POSTGRES, ids=str)
def test_cell_over_postgres(
    outcomes_over_postgres: dict[Cell, Outcome], cell: Cell, record_property: Callable[[str, object], None]
) -> None:
    check(cell, outcomes_over_postgres[cell], record_property)


def test_every_fault_was_applied(outcomes: dict[Cell, Outcome], environment: Environment) -> None:
    assert environment.sandbox.state(requests=1)["faults"] == []
