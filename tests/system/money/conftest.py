"""One real Airflow for all tests of money, and the fault matrix printed at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.money.matrix import FAULTS, FollowUp
from tests.system.money.play import PLAYED, Cell, Outcome
from tests.system.money.world import World, opened_world

HERE = Path(__file__).parent
COLUMNS = {
    "": [(follow_up, False) for follow_up in FollowUp],
    "... record wiped, then:": [(FollowUp.CLEAR, True), (FollowUp.BOTH, True)],
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put these tests last: their Airflow is there until the session ends, and slows no other test then."""
    items.sort(key=lambda item: item.path.is_relative_to(HERE))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Start Airflow and the exchange once."""
    with opened_world(tmp_path_factory.mktemp("money")) as world:
        yield world
        processes = world.airflow.processes()
    assert [process for process in processes if process.is_running()] == []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the fault matrix."""
    played = config.stash.get(PLAYED, None)
    if played is None:
        return
    terminalreporter.section("fault matrix: what the exchange carried out, and how the task ended")
    for title, columns in COLUMNS.items():
        terminalreporter.write_line(
            f"\n{title or 'What befalls the first try':28}" + "".join(f"{c[0]:34}" for c in columns)
        )
        for fault in FAULTS:
            cells = [Cell(fault=fault, follow_up=follow_up, wiped=wiped) for follow_up, wiped in columns]
            row = "".join(f"{_shown(cell, played):34}" for cell in cells)
            terminalreporter.write_line(f"{fault.name:28}{row}")


def _shown(cell: Cell, played: dict[Cell, Outcome]) -> str:
    seen = played[cell].end
    return f"{seen}{'' if seen == cell.right_end else '  WRONG'}"
