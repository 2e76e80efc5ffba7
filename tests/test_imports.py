"""What a DAG file drags in, and which way the imports between the package's floors point."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "airflow_provider_quoine"
#: Floors from the ground up; an import goes to a lower floor or stays on its own. The sandbox stands apart.
FLOORS = {"exchange": 0, "hooks": 1, "triggers": 2, "operators": 3, "sensors": 3, "links": 3, "plugins": 4, "dags": 5}
DAG_FACING = ("hooks", "triggers", "operators", "sensors")
HEAVY = ("requests", "pysher", "fastapi", "websocket", "websockets", "uvicorn")

#: Notes every import statement of ours, even if somebody else has loaded the module before.
RECORDER = """
import builtins, importlib, json, sys
package, heavy, modules, dags = json.loads(sys.argv[1])
sys.path.insert(0, dags)
found, original = [], builtins.__import__

def recording(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if level == 0 and name.partition(".")[0] in heavy and importer.startswith(package):
        found.append([importer, name])
    return original(name, globals, locals, fromlist, level)

builtins.__import__ = recording
for module in modules:
    importlib.import_module(module)
json.dump(found, sys.stdout)
"""


def sources(folder: str) -> list[Path]:
    """The Python files of a folder."""
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"nothing in {folder}"
    return found


def module_name(source: Path) -> str:
    """A file's name for an import; the files in dags/ are imported from that folder, as Airflow does."""
    parts = source.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[1:] if parts[0] == "dags" else parts).removesuffix(".__init__")


def heavy_imports(modules: list[str], home: Path) -> list[list[str]]:
    """Import modules in a fresh Python; list which of our modules asked for which heavy one."""
    told = json.dumps([PACKAGE, HEAVY, modules, str(ROOT / "dags")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RECORDER, told],
        env=os.environ | {"AIRFLOW_HOME": str(home)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    found: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_dag_facing_modules_and_dags_import_no_heavy_client(tmp_path: Path) -> None:
    modules = [module_name(source) for folder in DAG_FACING for source in sources(f"{PACKAGE}/{folder}")]
    modules += [f"{PACKAGE}.get_provider_info", *(module_name(source) for source in sources("dags"))]
    assert heavy_imports(modules, tmp_path) == []


def test_the_recorder_sees_a_heavy_import(tmp_path: Path) -> None:
    found = heavy_imports([f"{PACKAGE}.exchange.client", f"{PACKAGE}.sandbox.server"], tmp_path)
    assert {name.partition(".")[0] for _, name in found} >= {"requests", "fastapi"}


def imports_of(source: Path) -> set[str]:
    """All modules that a file names in imports, those inside functions and under TYPE_CHECKING too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source.name}:{node.lineno} is a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imported_floors(source: Path) -> set[str]:
    """The folders of the package that a file imports from."""
    return {name.split(".")[1] for name in imports_of(source) if name.startswith(f"{PACKAGE}.")} - {"__version__"}


FLOOR_SOURCES = [
    pytest.param(floor, source, id=str(source.relative_to(ROOT)))
    for floor in FLOORS
    for folder in (floor if floor == "dags" else f"{PACKAGE}/{floor}",)
    if (ROOT / folder).is_dir()
    for source in sources(folder)
]


@pytest.mark.parametrize(("floor", "source"), FLOOR_SOURCES)
def test_imports_go_down(floor: str, source: Path) -> None:
    assert {other for other in imported_floors(source) if FLOORS.get(other, 99) > FLOORS[floor]} == set()


@pytest.mark.parametrize("source", [pytest.param(each, id=each.name) for each in sources(f"{PACKAGE}/exchange")])
def test_the_exchange_knows_nothing_of_airflow(source: Path) -> None:
    assert {name for name in imports_of(source) if name.partition(".")[0] == "airflow"} == set()


@pytest.mark.parametrize("source", [pytest.param(each, id=each.name) for each in sources(f"{PACKAGE}/sandbox")])
def test_the_sandbox_stands_apart(source: Path) -> None:
    assert imported_floors(source) <= {"sandbox"}
