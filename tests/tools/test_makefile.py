"""The checks that do not look at all tests miss none of theirs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"


def command(target: str) -> str:
    """The command of one target of the Makefile."""
    (found,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("folder", re.findall(r"--ignore=tests/(\w+)", command("unit")))
def test_a_folder_that_unit_leaves_out_marks_each_test_as_something_else(folder: str) -> None:
    hook = re.compile(
        r"^def pytest_itemcollected\(item: pytest.Item\) -> None:\n    .*\n    item.add_marker\(\"(\w+)\"\)", re.M
    )
    found = hook.search((TESTS / folder / "conftest.py").read_text())
    assert found
    assert f"not {found[1]}" in command("unit")


def test_what_is_paced_is_where_its_check_looks() -> None:
    assert command("test-paced").endswith(" -m paced tests/captures\n")
    paced = [path for path in TESTS.rglob("test_*.py") if re.search(r"\bmark\.paced\b", path.read_text())]
    assert paced
    assert [path for path in paced if not path.is_relative_to(TESTS / "captures")] == []
