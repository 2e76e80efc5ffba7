"""What a DAG file drags in, which way imports between the package's folders point, and what each folder lets out."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "airflow_provider_quoine"
#: Floors from the ground up. A folder imports from lower floors only, and not from its neighbours on the same floor.
FLOORS = (
    {"exchange"},
    {"exchange/budget", "exchange/stream"},
    {"exchange/rest", "exchange/market"},
    {"hooks"},
    {"formats"},
    {"payments", "waiting", "captures", "datasets", "applications"},
    {"links", "triggers", "failures", "assets", "api_server"},
    {"operators", "sensors", "forms"},
    {"desk"},
    {"cli"},
    {"plugins"},
)
#: The same for the exchange's other side. The folder itself has two floors: the modules that both sides share are on
#: the ground, listed one by one; its other modules are at the top.
SANDBOX = (
    {"sandbox/faults", "sandbox/refusals", "sandbox/settings", "sandbox/sockets"},
    {"sandbox/rest", "sandbox/stream"},
    {"sandbox"},
)
#: Modules beside the folders that are on no floor: the version, and what Airflow reads by its entry point.
LONE = {"__init__", "get_provider_info"}
MOST_MODULES = 16
DAG_FACING = ("hooks", "triggers", "operators", "sensors")
HEAVY = ("requests", "pysher", "fastapi", "websocket", "websockets", "uvicorn")

#: Notes every import statement of ours, even if somebody else has loaded the module before.
RECORDER = """
import builtins, importlib, json, sys
package, heavy, modules = json.loads(sys.argv[1])
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
    """The Python files below a folder."""
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"nothing in {folder}"
    return found


def module_name(source: Path) -> str:
    """A file's name for an import; dags/ is the package's example_dags."""
    folder, *rest = source.relative_to(ROOT).with_suffix("").parts
    return ".".join([f"{PACKAGE}.example_dags" if folder == "dags" else folder, *rest]).removesuffix(".__init__")


MODULES = {module_name(source): source for source in sources(PACKAGE)}


def folder_of(module: str) -> str:
    """The folder of the package that a module is in, such as ``exchange/rest``; empty for those beside the folders."""
    return str(MODULES[module].parent.relative_to(ROOT / PACKAGE)).removeprefix(".")


FOLDERS = {folder_of(module) for module in MODULES} - {""}


@cache
def imports_of(source: Path) -> frozenset[str]:
    """All modules that a file names in imports, those inside functions and under TYPE_CHECKING too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named = {alias.name for alias in node.names}
            whole = {name for name in named if name.partition(".")[0] == PACKAGE}
            assert not whole, f"{source.name}:{node.lineno} has all folders by one name: write from ... import ..."
            found |= named
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source.name}:{node.lineno} is a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def ours(source: Path) -> set[str]:
    """The modules of the package that a file imports."""
    named = {name for name in imports_of(source) if name.split(".")[0] == PACKAGE}
    return {name if name in MODULES else name.rpartition(".")[0] for name in named}


def public(folder: str) -> list[str]:
    """The modules that a folder's ``__init__`` lets out, by its ``__all__``."""
    tree = ast.parse((ROOT / PACKAGE / folder / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    raise AssertionError(f"{folder}/__init__.py says in no __all__ what may be used from outside")


def heavy_imports(modules: list[str], home: Path) -> list[list[str]]:
    """Import modules in a fresh Python; list which of our modules asked for which heavy one."""
    told = json.dumps([PACKAGE, HEAVY, modules])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RECORDER, told],
        env=os.environ | {"AIRFLOW_HOME": str(home)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=250,
    )
    found: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.long
def test_dag_facing_modules_and_dags_import_no_heavy_client(tmp_path: Path) -> None:
    modules = [module_name(source) for folder in DAG_FACING for source in sources(f"{PACKAGE}/{folder}")]
    modules += [f"{PACKAGE}.get_provider_info", *(module_name(source) for source in sources("dags"))]
    assert heavy_imports(modules, tmp_path) == []


@pytest.mark.long
def test_the_recorder_sees_a_heavy_import(tmp_path: Path) -> None:
    found = heavy_imports([f"{PACKAGE}.exchange.rest.client", f"{PACKAGE}.sandbox.server"], tmp_path)
    assert {name.partition(".")[0] for _, name in found} >= {"requests", "fastapi"}


def test_every_folder_has_a_floor_and_every_floor_is_there() -> None:
    places = [place for floor in (*FLOORS, *SANDBOX) for place in floor]
    assert len(places) == len(set(places))
    assert [place for place in places if f"{PACKAGE}.{place}".replace("/", ".") not in MODULES] == []
    assert FOLDERS - {*places} == set()
    assert {module.rpartition(".")[2] for module in MODULES if folder_of(module) == ""} - {PACKAGE} <= LONE | {*places}


FLOOR_OF = {place: number for number, floor in enumerate((*FLOORS, *SANDBOX)) for place in floor}


def place_of(module: str) -> str:
    """Where a module stands: on the floor of its folder, unless it is listed by itself."""
    own = module.removeprefix(f"{PACKAGE}.").replace(".", "/")
    return own if own in FLOOR_OF else folder_of(module)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    place = place_of(module)
    if not place:
        return
    others = {place_of(other) for other in ours(MODULES[module])} - {place, ""}
    assert {other for other in others if FLOOR_OF[other] >= FLOOR_OF[place]} == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: ours(source) - {module} for module, source in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def users() -> Iterator[tuple[Path, str | None]]:
    """Every file that may use the package, with the folder that it belongs to."""
    for place in (PACKAGE, "benchmarks", "tools", "dags", "tests"):
        for source in sources(place):
            yield source, source.parent.relative_to(ROOT / place).as_posix() if place in (PACKAGE, "tests") else None


def used_around_entrances(source: Path, inside: str | None) -> set[str]:
    """What a file imports of other folders that they do not let out; a folder by its own name is such a thing."""
    used = ((folder_of(module), module.rpartition(".")[2]) for module in ours(source))
    return {f"{folder}/{name}" for folder, name in used if folder not in ("", inside) and name not in public(folder)}


def test_a_folder_is_used_through_its_entrance() -> None:
    around = {source: used_around_entrances(source, inside) for source, inside in users()}
    assert {str(source.relative_to(ROOT)): names for source, names in around.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "from airflow_provider_quoine.exchange.rest import quoting",
        "from airflow_provider_quoine.exchange.rest.quoting import excerpt",
        "from airflow_provider_quoine.exchange import rest",
        "from airflow_provider_quoine import exchange",
    ],
)
def test_a_way_around_an_entrance_is_seen(tmp_path: Path, line: str) -> None:
    source = tmp_path / "user.py"
    source.write_text(line)
    assert used_around_entrances(source, None)


def test_an_import_that_lets_all_folders_in_is_seen(tmp_path: Path) -> None:
    source = tmp_path / "user.py"
    source.write_text("import airflow_provider_quoine.exchange.rest.client")
    with pytest.raises(AssertionError, match=r"user\.py:1 has all folders by one name"):
        ours(source)


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_what_a_folder_lets_out_is_there_and_used(folder: str) -> None:
    there = {source.stem for source in (ROOT / PACKAGE / folder).glob("*.py")} - {"__init__"}
    assert set(public(folder)) <= there


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_a_folder_has_few_enough_modules(folder: str) -> None:
    assert len(list((ROOT / PACKAGE / folder).glob("*.py"))) <= MOST_MODULES


@pytest.mark.parametrize("module", [module for module in MODULES if folder_of(module).startswith("exchange")])
def test_the_exchange_knows_nothing_of_airflow(module: str) -> None:
    assert {name for name in imports_of(MODULES[module]) if name.partition(".")[0] == "airflow"} == set()


@pytest.mark.parametrize("module", [module for module in MODULES if folder_of(module).startswith("sandbox")])
def test_the_sandbox_stands_apart(module: str) -> None:
    others = {place_of(other) or other for other in ours(MODULES[module])}
    assert {other.partition("/")[0] for other in others} <= {"sandbox", PACKAGE}
