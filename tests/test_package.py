"""What is shipped, and what Airflow's command line says of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "airflow_provider_quoine"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that nothing of an earlier build gets in."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in (PACKAGE, "tests", "tools", "dags"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out", "."]
    subprocess.run(command, cwd=copy, check=True, timeout=120, stdout=subprocess.PIPE)
    (built,) = (copy / "out").iterdir()
    return built


def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel: Path) -> None:
    paths = [path.relative_to(ROOT) for path in (ROOT / PACKAGE).rglob("*") if path.is_file()]
    files = {str(path) for path in paths if path.suffix != ".pyc" and not any(p.startswith(".") for p in path.parts)}
    metadata = f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if not name.startswith(f"{metadata}/")}
        assert f"{metadata}/licenses/LICENSE" in archive.namelist()
    assert shipped == files
    assert {f"{PACKAGE}/py.typed", f"{PACKAGE}/sandbox/page.html"} <= shipped


def test_every_entry_point_of_the_wheel_exists(wheel: Path) -> None:
    entry_points = ConfigParser()
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        entry_points.read_string(archive.read(name).decode())
    assert entry_points.sections() == ["apache_airflow_provider", "console_scripts"]
    for group in entry_points.sections():
        for target in entry_points[group].values():
            module, _, function = target.partition(":")
            check = f"import {module}; assert callable({module}.{function})"
            subprocess.run([sys.executable, "-c", check], check=True, timeout=60, cwd=ROOT)


def airflow(home: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run Airflow's command line, and read its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments, "--output", "json"],
        env=os.environ | {"AIRFLOW_HOME": str(home)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout[done.stdout.index("[") :])
    return rows


def test_airflow_lists_the_provider(tmp_path: Path) -> None:
    rows = airflow(tmp_path, "providers", "list")
    assert [row["version"] for row in rows if row["package_name"] == "airflow-provider-quoine"] == ["0.1.0"]


def test_airflow_shows_the_provider_in_full(tmp_path: Path) -> None:
    (row,) = airflow(tmp_path, "providers", "get", "airflow-provider-quoine", "--full")
    assert row["connection-types"][0]["connection-type"] == "quoine"


def test_airflow_lists_the_hook(tmp_path: Path) -> None:
    rows = airflow(tmp_path, "providers", "hooks")
    (ours,) = (row for row in rows if row["connection_type"] == "quoine")
    assert ours["class"] == f"{PACKAGE}.hooks.quoine.QuoineHook"
    assert ours["package_name"] == "airflow-provider-quoine"


README_DAG = """
import re, sys
from pathlib import Path
from airflow.sdk import DAG
from airflow_provider_quoine.operators.authorization import QuoineAuthorizeWithdrawalOperator
from airflow_provider_quoine.operators.onboarding import QuoineCreateOnboardingUserOperator
from airflow_provider_quoine.sensors.onboarding import QuoineOnboardingStatusSensor

(lines,) = re.findall("```python\\n(.*?)```", Path(sys.argv[1]).read_text(), re.DOTALL)
with DAG("readme", schedule=None) as dag:
    exec(lines)
print(*dag.topological_sort(), sep="\\n")
"""


def test_the_ten_lines_of_the_readme_are_a_dag(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", README_DAG, str(ROOT / "README.md")],
        env=os.environ | {"AIRFLOW_HOME": str(tmp_path)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    tasks = [line for line in done.stdout.splitlines() if line.startswith("<Task")]
    assert [task.split(": ")[1].removesuffix(">") for task in tasks] == ["create", "wait", "withdraw"]
