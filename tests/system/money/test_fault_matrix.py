"""Whatever befalls a withdrawal and whoever tries again: it is sent at most once, and its task ends as it should."""

from __future__ import annotations

import pytest

from tests.system.money.matrix import FAULTS, FollowUp
from tests.system.money.play import PLAYED, Cell, Outcome, play
from tests.system.money.world import World

pytestmark = pytest.mark.timeout(1500)

CELLS = [
    *(Cell(fault=fault, follow_up=follow_up) for fault in FAULTS for follow_up in FollowUp),
    *(
        Cell(fault=fault, follow_up=follow_up, wiped=True)
        for fault in FAULTS
        for follow_up in (FollowUp.CLEAR, FollowUp.BOTH)
    ),
]


@pytest.fixture(scope="module")
def played(world: World, pytestconfig: pytest.Config) -> dict[Cell, Outcome]:
    """Play all cells, at the same time."""
    outcomes = play(world, CELLS)
    pytestconfig.stash[PLAYED] = outcomes
    return outcomes


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_cell(played: dict[Cell, Outcome], cell: Cell) -> None:
    outcome = played[cell]
    assert outcome.end.withdrawals <= 1
    assert outcome.end == cell.right_end
    if outcome.end.state == "failed":
        assert [words for words in cell.right_words if words not in outcome.log] == []


def test_every_fault_has_struck(played: dict[Cell, Outcome], world: World) -> None:
    assert world.sandbox.state(requests=1)["faults"] == []
