"""The map in docs/architecture.rst is the tree's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_imports import FLOORS, FOLDERS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "airflow_provider_quoine"
PAGE = (ROOT / "docs" / "architecture.rst").read_text(encoding="utf-8")
MAP = (ROOT / "docs" / "rooms.txt").read_text(encoding="utf-8")


def test_the_map_has_every_floor_in_order() -> None:
    rows = (re.search("│(.*)│$", line) for line in MAP.splitlines())
    floors = [set(row[1].split()) for row in rows if row]
    *ours, other_side = floors
    assert ours == list(reversed([set(floor) for floor in FLOORS]))
    assert "sandbox" in other_side


def test_every_folder_is_explained() -> None:
    table = set(re.findall(r"^``([a-z_/]*[a-z])`` {2,}", PAGE, re.MULTILINE))
    assert {folder for folder in FOLDERS if not folder.startswith("sandbox/")} == table


@pytest.mark.parametrize("page", ["docs/architecture.rst", "CONTRIBUTING.md"])
def test_every_file_and_folder_that_is_named_exists(page: str) -> None:
    named = set(re.findall(r"`([\w/]+(?:\.(?:py|rst|md)|/))`", (ROOT / page).read_text(encoding="utf-8")))
    assert len(named) > 20
    assert [name for name in sorted(named) if not ((PACKAGE / name).exists() or (ROOT / name).exists())] == []


def test_what_a_walk_ends_at_is_defined_there() -> None:
    table = PAGE.partition("Where things stand")[2]
    walks = re.findall(r"``([\w/]+\.py)``\s+``(\w+)``", table)
    assert len(walks) == 5
    for module, name in walks:
        source = (PACKAGE / module).read_text(encoding="utf-8")
        assert re.search(rf"^(?:class |def )?{name}\b", source, re.MULTILINE), f"{module} defines no {name}"


def test_each_override_of_pysher_exists_and_has_a_test() -> None:
    page = (ROOT / "docs" / "reference" / "pusher.rst").read_text(encoding="utf-8").partition("What is overridden")[2]
    named = re.findall(r"``([a-z_]+)\.(\w+)(?:\.(\w+))?``", page)
    assert len(named) > 30
    for module, name, method in named:
        folder = ROOT / "tests" if module.startswith("test_") else PACKAGE
        source = (folder / "exchange" / "stream" / f"{module}.py").read_text(encoding="utf-8")
        assert re.search(rf"^(?:class|(?:async )?def) {name}\b", source, re.MULTILINE), f"{module} has no {name}"
        if method:
            assert re.search(rf"^    (?:async )?def {method}\b", source, re.MULTILINE), f"{module} has no {method}"
