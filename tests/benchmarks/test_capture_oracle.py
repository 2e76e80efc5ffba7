"""The oracle of captures finds each kind of loss, and none where all is accounted for."""

from __future__ import annotations

from array import array
from datetime import UTC, datetime

import pytest

from benchmarks.capture_market import Sent
from benchmarks.capture_oracle import EDGE, Files, Gap, Loss, Verdict, judge

#: Events 0 to 999, one each millisecond from second 100 on; each takes a tenth of a millisecond.
TIMES = [100 + number / 1000 for number in range(1000)]
DELAY = 0.0001


def judged(
    kept: list[int],
    *gaps: Gap,
    until: float = 101.0,
    delay: float = DELAY,
    holds: tuple[tuple[float, float], ...] = (),
) -> Verdict:
    files = Files(gaps=list(gaps))
    files.numbers = array("q", kept)
    files.received = array("d", [TIMES[number] + delay for number in kept])
    gap_seconds = sum(gap.until - gap.since for gap in gaps)
    files.sums = {"rows": len(kept), "gap_seconds": gap_seconds}
    summary = {"rows": len(kept), "gap_seconds": gap_seconds}
    ends = {"from": 100.0, "until": until}
    times = {end: datetime.fromtimestamp(at, UTC).isoformat() for end, at in ends.items()}
    return judge(files, Sent(times=array("d", TIMES)), summary | times, holds)


def without(first: int, last: int) -> list[int]:
    return [*range(first), *range(last + 1, 1000)]


def test_a_capture_of_all_is_right() -> None:
    verdict = judged(list(range(1000)))
    assert (verdict.wrong, verdict.losses, verdict.events) == ([], [], 1000)
    assert verdict.slowest == pytest.approx(DELAY, abs=1e-6)


def test_a_loss_from_the_last_event_on_until_the_next_subscription_is_accounted_for() -> None:
    verdict = judged(without(300, 399), Gap(TIMES[299] + DELAY, TIMES[399], "lost"))
    assert verdict.wrong == []
    assert verdict.losses == [Loss(events=100, since=TIMES[300], until=TIMES[399], reason="lost", edge=0)]


@pytest.mark.parametrize(
    ("gap", "unstated"),
    [
        pytest.param(Gap(TIMES[349] + EDGE, TIMES[399], "noticed late"), range(300, 349), id="it began later"),
        pytest.param(Gap(TIMES[299], TIMES[349], "ended early"), range(350, 400), id="it ended earlier"),
        pytest.param(Gap(TIMES[500], TIMES[600], "another"), range(300, 400), id="it is elsewhere"),
    ],
)
def test_what_a_gap_leaves_out_is_not_accounted_for(gap: Gap, unstated: range) -> None:
    verdict = judged(without(300, 399), gap)
    assert verdict.wrong == [f"{len(unstated)} events are in no file and in no stated gap"]
    assert [loss for loss in verdict.losses if not loss.reason] == [
        Loss(events=len(unstated), since=TIMES[unstated[0]], until=TIMES[unstated[-1]], reason="", edge=0)
    ]


def test_a_loss_without_a_gap_is_not_accounted_for() -> None:
    assert judged(without(300, 399)).wrong == ["100 events are in no file and in no stated gap"]


def test_what_was_on_its_way_when_a_gap_began_is_accounted_for() -> None:
    """All came 50 ms late, so what was sent in the 50 ms before the gap began was still under way."""
    verdict = judged(without(300, 399), Gap(TIMES[299] + 0.0495, TIMES[399], "lost"), delay=0.05)
    assert verdict.wrong == []
    assert verdict.losses[0].edge == 49


def test_what_came_while_the_process_was_held_up_until_a_gap_began_is_accounted_for() -> None:
    """Two holds in a row: the second one ends when the gap has begun."""
    gap, holds = Gap(TIMES[390], TIMES[399], "killed"), ((TIMES[299], TIMES[350]), (TIMES[350], TIMES[391]))
    assert judged(without(300, 399), gap, holds=holds).wrong == []
    assert judged(without(300, 399), gap, holds=holds[:1]).wrong == ["70 events are in no file and in no stated gap"]


def test_what_came_after_the_end_is_not_missed() -> None:
    verdict = judged(list(range(990)), until=TIMES[990])
    assert (verdict.wrong, verdict.losses, verdict.events) == ([], [], 990)


def test_doubled_and_disordered_rows_are_found() -> None:
    verdict = judged([*range(500), 499, *range(510, 520), *range(500, 510), *range(520, 1000)])
    assert verdict.wrong == ["1 rows are doubled", "1 rows are out of order"]


def test_overlapping_gaps_and_wrong_sums_are_found() -> None:
    verdict = judged(list(range(1000)), Gap(100.1, 100.3, "one"), Gap(100.2, 100.4, "other"))
    assert ["gaps overlap" in words for words in verdict.wrong] == [True]
    files = Files(numbers=array("q", [1]), received=array("d", [TIMES[1]]), sums={"rows": 2, "gap_seconds": 0.0})
    summary = {"rows": 1, "gap_seconds": 0.0, "from": "1970-01-01T00:01:40+00:00", "until": "1970-01-01T00:01:40+00:00"}
    assert (
        "rows: 1 in the files, and 2 in the sums of the parts" in judge(files, Sent(array("d", TIMES)), summary).wrong
    )


def test_a_row_from_before_its_sending_is_no_row_of_the_market() -> None:
    files = Files(numbers=array("q", [5]), received=array("d", [TIMES[4]]), sums={"rows": 1, "gap_seconds": 0.0})
    summary = {"rows": 1, "gap_seconds": 0.0, "from": "1970-01-01T00:01:39+00:00", "until": "1970-01-01T00:01:39+00:00"}
    assert judge(files, Sent(array("d", TIMES)), summary).wrong == ["event 5 is in the files before it was sent"]
