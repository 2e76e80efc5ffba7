"""What is shipped, and what Airflow's command line says of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

#: Each starts a process or more.
pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "airflow_provider_quoine"
Airflow = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from it, out of a copy: nothing of an earlier build gets in."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in (PACKAGE, "tests", "tools", "dags"):
        unwanted = shutil.ignore_patterns("__pycache__", "node_modules")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=unwanted)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "out", "."]
    subprocess.run(command, cwd=copy, check=True, timeout=250, stdout=subprocess.PIPE)
    return copy / "out"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """The wheel."""
    (path,) = built.glob("*.whl")
    return path


def package_files() -> set[str]:
    """The package's files, with the examples where the symbolic link puts them."""
    folders = {ROOT / PACKAGE: PACKAGE, ROOT / "dags": f"{PACKAGE}/example_dags"}
    found = {
        (path.relative_to(top), name) for top, name in folders.items() for path in top.rglob("*") if path.is_file()
    }
    return {f"{name}/{path}" for path, name in found if path.suffix != ".pyc" and not path.name.startswith(".")}


def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel: Path) -> None:
    metadata = f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if not name.startswith(f"{metadata}/")}
        assert f"{metadata}/licenses/LICENSE" in archive.namelist()
    assert shipped == package_files()
    assert {f"{PACKAGE}/{name}" for name in ("py.typed", "sandbox/page.html", "example_dags/__init__.py")} <= shipped


def test_the_sdist_holds_the_package_whole_with_the_examples_as_files(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        shipped = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert {name for name in shipped if name.startswith(f"{PACKAGE}/")} == package_files()


def test_every_entry_point_of_the_wheel_exists(wheel: Path) -> None:
    entry_points = ConfigParser()
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        entry_points.read_string(archive.read(name).decode())
    assert entry_points.sections() == ["airflow.plugins", "apache_airflow_provider", "console_scripts"]
    targets = [target.split(":") for group in entry_points.sections() for target in entry_points[group].values()]
    check = "\n".join(f"import {module}; assert callable({module}.{function})" for module, function in targets)
    subprocess.run([sys.executable, "-c", check], check=True, timeout=250, cwd=ROOT)


@pytest.fixture
def airflow(airflow_database: None, capsys: pytest.CaptureFixture[str]) -> Airflow:
    """Run Airflow's command line in this process, and read its JSON."""
    from airflow.cli import cli_parser

    def run(*arguments: str) -> list[dict[str, Any]]:
        told = cli_parser.get_parser().parse_args([*arguments, "--output", "json"])
        told.func(told)
        printed = capsys.readouterr().out
        rows: list[dict[str, Any]] = json.loads(printed[printed.index("[") :])
        return rows

    return run


def test_airflow_lists_the_provider(airflow: Airflow) -> None:
    rows = airflow("providers", "list")
    assert [row["version"] for row in rows if row["package_name"] == "airflow-provider-quoine"] == ["0.1.0"]


def test_airflow_shows_the_provider_in_full(airflow: Airflow) -> None:
    (row,) = airflow("providers", "get", "airflow-provider-quoine", "--full")
    assert row["connection-types"][0]["connection-type"] == "quoine"


def test_airflow_lists_the_hook(airflow: Airflow) -> None:
    rows = airflow("providers", "hooks")
    (ours,) = (row for row in rows if row["connection_type"] == "quoine")
    assert ours["class"] == f"{PACKAGE}.hooks.quoine.QuoineHook"
    assert ours["package_name"] == "airflow-provider-quoine"
